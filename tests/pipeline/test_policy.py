"""The policy over a whole population: offers agree with decisions on loans, and a change of policy needs no training."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from finrisk_assets.cli.main import cli
from finrisk_assets.domains.loan_default import decide
from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.domains.loan_offers.definition import LOAN_OFFERS
from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY
from finrisk_assets.features.loan_terms import with_terms
from finrisk_assets.graph.stages.common import champion_folder, join_companions, load_bundle, load_frame
from finrisk_assets.graph.stages.scores import score_table
from finrisk_assets.ledger import customer_parts
from finrisk_assets.policy.policy_file import DEFAULT_POLICY, default_policy, parse_policy
from tests.pipeline.conftest import Run

TEXT = DEFAULT_POLICY.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def offers(run: Run) -> pd.DataFrame:
    """Return the batch decisions of loan offers, with each customer's loan features at the offer's moment."""
    rows = load_frame(join_companions(run.warehouse.table("features_loan_offers"), LOAN_OFFERS, run.warehouse), LOAN_OFFERS)
    scores = run.warehouse.table("scores_loan_offers").to_pandas()
    return rows.drop(columns=["pd", "spending_probability"]).merge(scores, on="offer_id", validate="one_to_one")


def test_no_offer_is_made_that_an_application_at_the_same_terms_would_not_get(run: Run, offers: pd.DataFrame) -> None:
    bundle = load_bundle(champion_folder(LOAN_DEFAULT, run.settings), LOAN_DEFAULT, run.settings)
    made = offers[offers.decision == "offer"]
    assert len(made) > 500
    names = [name for name in made.columns if name.startswith("loan_default.")]
    rows, applications = [], []
    for values, *terms in zip(
        made[names].to_dict("records"), made.offered_amount, made.offered_term_months, made.offered_rate_pct, strict=True
    ):
        known = {name.removeprefix("loan_default."): None if math.isnan(value) else value for name, value in values.items()}
        amount, term, rate = terms
        application = with_terms(known, loan_amount=amount, term_months=int(term), annual_rate_pct=rate)
        applications.append(application)
        rows.append(bundle.row({name: application[name] for name in bundle.columns}))
    probability = bundle.probability(np.stack(rows))
    columns = {name: np.array([np.nan if one[name] is None else one[name] for one in applications]) for name in bundle.columns}
    decided = decide.decide_applications(columns, probability, bundle.policy)
    assert decided.is_approved.all()
    np.testing.assert_allclose(probability, made.offered_pd, atol=1e-6)


def test_no_offer_goes_to_a_high_spending_risk(offers: pd.DataFrame) -> None:
    is_high = offers.spending_probability >= default_policy().spending_risk.high_from
    assert is_high.any()
    assert not (is_high & (offers.decision == "offer")).any()


def test_every_decision_names_its_policy(run: Run) -> None:
    for domain in ("loan_default", "loan_offers", "spending_risk", "transaction_anomaly"):
        assert set(run.warehouse.table(f"scores_{domain}").policy_version.to_pandas()) == {default_policy().version}


def test_the_same_bundle_decides_otherwise_under_another_policy(run: Run) -> None:
    frame = load_frame(run.warehouse.table("features_loan_default"), LOAN_DEFAULT)
    bundle = load_bundle(champion_folder(LOAN_DEFAULT, run.settings), LOAN_DEFAULT, run.settings)
    strict = bundle.under(parse_policy(TEXT.replace("lgd: 0.45", "lgd: 0.9"), "strict"))
    approved = [LOAN_DEFAULT.score(frame, one)["decision"].count("approve") for one in (bundle, strict)]
    assert approved[1] < approved[0]


def test_the_diff_counts_who_changes_and_what_it_is_worth(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINRISK_HOME", str(run.settings.home))
    other = tmp_path / "harsh.yaml"
    other.write_text(TEXT.replace("lgd: 0.45", "lgd: 0.7").replace("name: default", "name: harsh"), encoding="utf-8")
    same = CliRunner().invoke(cli, ["policy", "diff", str(DEFAULT_POLICY), str(DEFAULT_POLICY)])
    assert same.exit_code == 0, same.output
    assert "loan_default, " in same.output and ": 0 of " in same.output and "→ approve" not in same.output
    changed = CliRunner().invoke(cli, ["policy", "diff", str(DEFAULT_POLICY), str(other)])
    assert changed.exit_code == 0, changed.output
    assert "lending.lgd: 0.45 → 0.7" in changed.output
    assert "approve → refer" in changed.output and "grade" in changed.output and "gender" in changed.output and "worth" in changed.output
    monkeypatch.setattr(customer_parts, "PART_ROWS", 100)
    in_parts = CliRunner().invoke(cli, ["policy", "diff", str(DEFAULT_POLICY), str(other)])
    assert in_parts.output == changed.output


def test_batch_scores_follow_the_rules_of_the_policy(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "ruled.yaml"
    other.write_text(
        TEXT.replace("{name: burst, kind: velocity, enabled: false", "{name: burst, kind: velocity, enabled: true"), encoding="utf-8"
    )
    settings = replace(run.settings, policy=other)
    policy = parse_policy(other.read_text(encoding="utf-8"), "ruled")
    rows = TRANSACTION_ANOMALY.join_rules(run.warehouse.table("features_transaction_anomaly"), run.warehouse.table, policy)
    ruled = score_table(rows, TRANSACTION_ANOMALY, settings, run.warehouse.engine).to_pandas().set_index("transaction_id")
    before = run.warehouse.table("scores_transaction_anomaly").to_pandas().set_index("transaction_id")
    fired = ruled.fired_rules == "burst"
    assert before.fired_rules.isna().all() and 0 < fired.sum() < len(ruled) / 10
    assert (ruled.decision[fired] != "allow").all() and (before.decision.loc[ruled.index][fired] == "allow").any()
    assert (ruled.decision[~fired] == before.decision.loc[ruled.index][~fired]).all()
    monkeypatch.setattr(customer_parts, "PART_ROWS", 10_000)
    in_parts = TRANSACTION_ANOMALY.join_rules(run.warehouse.table("features_transaction_anomaly"), run.warehouse.table, policy)
    assert set(in_parts.filter(in_parts.fired_rules == "burst").transaction_id.to_pyarrow().to_pylist()) == set(ruled.index[fired])


def test_rules_and_capacity_are_measured_over_the_ledger(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINRISK_HOME", str(run.settings.home))
    tested = CliRunner().invoke(cli, ["rules", "test"])
    assert tested.exit_code == 0 and "(impossible_travel)" in tested.output, tested.output
    sized = CliRunner().invoke(cli, ["capacity", "--alerts-per-day", "2"])
    assert sized.exit_code == 0 and "The policy has reviews_per_day 100; write 2 there" in sized.output, sized.output
    monkeypatch.setattr(customer_parts, "PART_ROWS", 2_000)
    assert CliRunner().invoke(cli, ["rules", "test"]).output == tested.output
