"""Tests of serving parity: the service's answers equal the batch scores on 1,000 rows of every domain."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from ibis.expr.types import Table as LazyTable

from bento.decisions.answers import find_snapshots
from bento.decisions.scorers.cashflow import CashflowScorer
from bento.decisions.scorers.loan import LoanScorer
from bento.decisions.scorers.offer import OfferScorer
from bento.decisions.scorers.spending import SpendingScorer
from bento.decisions.scorers.transaction import TransactionScorer
from bento.problems import Problem
from bento.store.bulk_load import read_transactions
from bento.store.keyring import Keyring
from bento.store.records import FeatureSnapshot
from bento.store.session import Store
from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.loan_default.decide import REFER
from finrisk_assets.domains.loan_offers.decide import NO_PD
from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.domains.spending_risk.decide import EIGHT
from finrisk_assets.graph.stages.common import champion_folder, load_bundle
from finrisk_assets.ledger import sources
from finrisk_assets.operations import load_history
from finrisk_assets.scoring.bundle import Bundle
from schemas.api import CashflowRequest, LoanRequest, OfferRequest, SpendingRequest, TransactionRequest
from tests.pipeline.conftest import Run

ROWS = 1_000
BY_NAME = {domain.name: domain for domain in DOMAINS}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    open_store = Store(tmp_path / "store.sqlite", Keyring([bytes(range(32))]))
    yield open_store
    open_store.close()


def sample_rows(run: Run, domain: Domain, rows: int = ROWS) -> LazyTable:
    """Return rows of the feature table, spread over customers and months by the hash of their keys."""
    features, key = run.warehouse.table(f"features_{domain.group}"), domain.keys[0].name
    return features.order_by([features[key].hash(), features[key]]).limit(rows)


def read_batch_scores(run: Run, domain: Domain) -> list[dict[str, Any]]:
    """Return the batch scores of the sampled rows, each with its features."""
    key = domain.keys[0].name
    scores = run.warehouse.table(f"scores_{domain.name}").drop("customer_id", domain.decision_time)
    rows: list[dict[str, Any]] = sample_rows(run, domain).inner_join(scores, key).order_by(key).to_pyarrow().to_pylist()
    assert len(rows) == ROWS
    return rows


def store_snapshots(run: Run, domain: Domain, store: Store, others: Sequence[FeatureSnapshot] = ()) -> dict[str, dict[str, Any]]:
    """Store the sampled rows, each as its own customer named by the row's key, and others; return their scores by that name."""
    source, scores = sources.load(run.settings), run.warehouse.table(f"scores_{domain.name}")
    rows = [
        one._replace(customer_id=one.subject) for one in load_history.feature_snapshots(domain, source, sample_rows(run, domain), scores)
    ]
    assert len(rows) == ROWS
    store.replace_snapshots([*rows, *others])
    return {one.subject: dict(one.score) for one in rows}


def read_applications(run: Run) -> list[FeatureSnapshot]:
    """Return the application at the moment of each sampled offer, as that of the customer whom the offer names."""
    domain, offers, loans = BY_NAME["loan_default"], sample_rows(run, BY_NAME["loan_offers"]), run.warehouse.table("features_loan_default")
    application = offers.offer_id.contains("@").ifelse(offers.offer_id, offers.customer_id + "@" + offers.offer_id)
    named = offers.select(offers.offer_id, application=application).to_pyarrow().to_pydict()
    offer_of = dict(zip(named["application"], named["offer_id"], strict=True))
    rows = loans.filter(loans.loan_id.isin(list(offer_of)))
    snapshots = load_history.feature_snapshots(domain, sources.load(run.settings), rows, run.warehouse.table("scores_loan_default"))
    return [one._replace(customer_id=offer_of[one.subject]) for one in snapshots]


def champion(run: Run, domain: Domain) -> Bundle:
    return load_bundle(champion_folder(domain, run.settings), domain, run.settings)


def test_spending_risk(run: Run, store: Store) -> None:
    domain = BY_NAME["spending_risk"]
    scorer = SpendingScorer(champion(run, domain), store)
    for subject, scored in store_snapshots(run, domain, store).items():
        answer = scorer.answer(SpendingRequest(customer_id=subject))
        assert answer.score == pytest.approx(scored["score"], abs=1e-6)
        assert (answer.risk_level, answer.model.version) == (scored["decision"], scored["model_version"])


def test_spending_risk_of_eight_fields(run: Run, store: Store) -> None:
    domain = BY_NAME["spending_risk_eight"]
    scorer = SpendingScorer(champion(run, domain), store)
    for scored in read_batch_scores(run, domain):
        answer = scorer.answer(SpendingRequest(**{name: scored[name] for name in EIGHT}))
        assert answer.score == pytest.approx(scored["score"], abs=1e-6)
        assert answer.risk_level == scored["decision"]


def test_cashflow(run: Run, store: Store) -> None:
    domain = BY_NAME["cashflow"]
    scorer = CashflowScorer(champion(run, domain), store)
    for subject, scored in store_snapshots(run, domain, store).items():
        answer = scorer.answer(CashflowRequest(customer_id=subject))
        assert answer.score == pytest.approx(scored["score"], abs=1e-6)
        assert answer.direction == scored["decision"]
        assert answer.expected_change_amount == pytest.approx(scored["expected_change_amount"])
        if answer.interval is not None:
            assert (answer.interval.low, answer.interval.high) == pytest.approx((scored["low_change_amount"], scored["high_change_amount"]))


def test_loan_offers(run: Run, store: Store) -> None:
    domain = BY_NAME["loan_offers"]
    scorer = OfferScorer(champion(run, domain), store)
    decisions = set()
    for subject, scored in store_snapshots(run, domain, store, read_applications(run)).items():
        if scored["no_offer_reason"] == NO_PD and not find_snapshots(store, domain="loan_default", customer_id=subject):
            with pytest.raises(Problem) as refused:  # the service asks for the PD that nobody knows
                scorer.answer(OfferRequest(customer_id=subject))
            assert [field.field for field in refused.value.fields] == ["pd"]
            continue
        answer = scorer.answer(OfferRequest(customer_id=subject))
        decisions.add(answer.decision)
        assert answer.score == pytest.approx(scored["score"], abs=1e-5)
        assert answer.decision == scored["decision"]
        if answer.offer is not None:
            assert answer.offer.annual_rate_pct == scored["offered_rate_pct"]
            assert answer.offer.expected_profit == pytest.approx(scored["expected_profit_amount"], rel=1e-5)
    assert decisions == {"offer", "no_offer"}


def test_loan_default(run: Run, store: Store) -> None:
    domain = BY_NAME["loan_default"]
    bundle = champion(run, domain)
    scorer = LoanScorer(bundle, store)
    always_known = [name for name, values in zip(bundle.columns, bundle.values, strict=True) if not values.is_ever_missing]
    answered = 0
    for scored in read_batch_scores(run, domain):
        request = LoanRequest(features={feature.name: scored[feature.name] for feature in bundle.features})
        if unknown := {f"features.{name}" for name in always_known if scored[name] is None}:
            # Nobody can be asked in a batch: what the service refuses to judge is referred there.
            with pytest.raises(Problem) as refused:
                scorer.answer(request)
            assert {field.field for field in refused.value.fields} == unknown
            assert scored["decision"] == REFER
            continue
        answer, answered = scorer.answer(request), answered + 1
        assert answer.score == pytest.approx(scored["score"], abs=1e-6)
        assert answer.decision == scored["decision"]
    assert answered >= 0.9 * ROWS


def test_transaction_anomaly(run: Run, store: Store, tmp_path: Path) -> None:
    domain = BY_NAME["transaction_anomaly"]
    ledger = run.warehouse.table("validated_transactions").select(*load_history.Transaction._fields)
    path = tmp_path / "ledger.parquet"
    ledger.to_parquet(path)
    store.load_transactions(read_transactions(path))
    scorer = TransactionScorer(champion(run, domain), store)
    scores = {row["transaction_id"]: row for row in read_batch_scores(run, domain)}
    asked = ledger.filter(ledger.transaction_id.isin(list(scores))).to_pyarrow().to_pylist()
    assert len(asked) == ROWS
    for row in asked:
        said = {name: row[name] for name in ("transaction_id", "amount", "direction", "merchant", "country")}
        answer = scorer.answer(TransactionRequest(**said, user_id=row["customer_id"], timestamp=row["occurred_at"]))
        assert answer.score == pytest.approx(scores[row["transaction_id"]]["score"], abs=1e-5)
        assert answer.decision == scores[row["transaction_id"]]["decision"]
