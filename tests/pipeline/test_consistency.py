"""Tests of consistency over a whole small population: offers with loans, spending risk with offers, and the figures that say so."""

import json

import ibis
import numpy as np
import pandas as pd
import pytest

from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.domains.loan_offers.definition import LOAN_OFFERS
from finrisk_assets.graph.build import build_resources
from finrisk_assets.graph.stages import consistency
from finrisk_assets.graph.stages.common import champion_folder, load_bundle, read_figures
from finrisk_assets.graph.stages.pack import pack_folder
from finrisk_assets.ledger import customer_parts, sources
from finrisk_assets.modelling.packs import pack
from finrisk_assets.modelling.training import model_registry

TERMS = ("offered_rate_pct", "offered_amount", "offered_term_months")


@pytest.fixture(scope="module")
def offers(run):
    return consistency.select_offers(run.warehouse, run.settings).to_pandas()


@pytest.fixture(scope="module")
def figures(run):
    return {figure.metric: figure.value for figure in read_figures(run.warehouse.table(consistency.ASSET))}


def decide(run, offers):
    wanted = ibis.memtable(offers[["application_id", *TERMS]])
    decided = consistency.decide_offered_loans(wanted, sources.load(run.settings), run.warehouse, run.settings)
    return pd.concat([pd.Series(dtype=object), *decided]).reindex(offers.application_id).fillna("")


def test_loan_default_approves_every_offer_at_its_terms(run, offers):
    scores = run.warehouse.table("scores_loan_offers")
    assert len(offers) == scores.filter(scores.decision == "offer").count().to_pyarrow().as_py() > 1_000
    assert set(decide(run, offers)) == {"approve"}


def test_nobody_of_high_spending_risk_has_an_offer(run, offers):
    levels = run.warehouse.table("scores_spending_risk").select("customer_id", "as_of", "decision").to_pandas()
    assert (levels.decision == "HIGH").sum() > 100
    for offer in offers.sample(400, random_state=1).itertuples():
        known = levels[(levels.customer_id == offer.customer_id) & (levels.as_of <= offer.offered_at)]
        assert known.empty or known.sort_values("as_of").decision.iloc[-1] != "HIGH", offer.application_id


def test_the_stored_figures_say_so_and_their_check_passes(run, offers, figures):
    assert (figures["n_offers"], figures["n_inconsistent_offers"], figures["n_high_risk_offers"]) == (len(offers), 0, 0)
    (check,) = (each for each in run.result.get_asset_check_evaluations() if each.check_name == f"{consistency.ASSET}_contract")
    assert check.passed


def test_an_offer_that_loan_default_would_not_approve_is_counted(run, offers):
    """At ten times the amount nobody can pay the instalment, and an offer to a person without an application has none."""
    some = offers.head(50)
    decided = decide(run, some.assign(offered_amount=some.offered_amount * 10))
    assert not (decided == "approve").any()
    assert decide(run, some.assign(application_id="nobody@2024-01")).tolist() == [""] * 50


def test_offers_that_are_refused_and_offers_without_an_application_are_the_inconsistent_ones(run, offers, monkeypatch):
    """Of 100 offers 50 cannot be paid and 10 belong to nobody: the figure and its check say 60."""
    some = offers.head(100).copy()
    some.iloc[:50, some.columns.get_loc("offered_amount")] *= 10
    some.iloc[50:60, some.columns.get_loc("application_id")] = [f"nobody@2024-{month:02d}" for month in range(1, 11)]
    monkeypatch.setattr(consistency, "select_offers", lambda *_: ibis.memtable(some))
    figures = {
        figure.metric: figure.value for figure in consistency.measure_consistency(sources.load(run.settings), run.warehouse, run.settings)
    }
    assert (figures["n_offers"], figures["n_inconsistent_offers"]) == (100, 60)


def test_the_applications_are_built_from_the_ledger_as_those_of_every_loan(run, offers):
    """At the typical terms of its month-end an application has the features and the decision that are stored of it."""
    stored = run.warehouse.table("features_loan_default")
    frame = stored.filter(stored.loan_id.isin(offers.application_id.head(200).tolist())).to_pandas()
    typical = offers.head(200).merge(frame, left_on="application_id", right_on="loan_id")
    columns = dict(zip(TERMS, ("annual_rate_pct", "loan_amount", "term_months"), strict=True))
    asked = typical[["application_id"]].assign(**{name: typical[column] for name, column in columns.items()})
    scored = run.warehouse.table("scores_loan_default").select("loan_id", "decision").to_pandas().set_index("loan_id").decision
    decided = decide(run, asked)
    assert len(decided) == 200
    assert (decided == scored.reindex(decided.index)).all()


def test_people_in_parts_have_the_figures_of_all_at_once(run, figures, monkeypatch):
    monkeypatch.setattr(customer_parts, "PART_ROWS", 500)
    assert len(customer_parts.list_customer_ranges(run.warehouse.table("scores_loan_default"))) > 5
    in_parts = consistency.measure_consistency(sources.load(run.settings), run.warehouse, run.settings)
    assert {figure.metric: figure.value for figure in in_parts} == pytest.approx(figures)


def test_paydays_are_compared_by_people_of_whom_the_ledger_knows_one(run, figures):
    names = {name.removeprefix("n_people_paid_") for name in figures if name.startswith("n_people_paid_")}
    assert {"1_to_3", "10_to_31"} <= names <= {"1_to_3", "4_to_9", "10_to_31"}
    for name in names:
        assert figures[f"n_people_paid_{name}"] >= 10
        assert 0.3 < figures[f"approved_share_paid_{name}"] < 1
        assert 0 < figures[f"default_share_paid_{name}"] < 0.3
        assert 1 < figures[f"offer_in_incomes_paid_{name}"] < 7
    assert figures["payday_offer_gap"] < 0.15


def test_the_offers_pack_has_the_figures_with_the_hash_of_their_artifact(run, figures):
    client = build_resources(run.settings)["tracking"].client()
    champion = model_registry.find_version(client, "loan_offers", model_registry.CHAMPION)
    stored = model_registry.read_artifact(client, champion, consistency.ARTIFACT)
    assert {row["metric"]: row["value"] for row in json.loads(stored)} == pytest.approx(figures)
    version = load_bundle(champion_folder(LOAN_OFFERS, run.settings), LOAN_OFFERS, run.settings).version
    file = pack_folder(run.settings, "loan_offers", version) / pack.MANIFEST
    record, _ = pack.read_manifest(file.read_bytes(), str(file))
    assert {each.metric: each.value for each in record.figures_of("consistency")} == pytest.approx(figures)
    assert record.by_artifact[consistency.ARTIFACT].sha256 == pack.sha256(stored)


def test_terms_that_lender_and_borrower_chose_have_no_weight_in_the_probability_of_default(run):
    bundle = load_bundle(champion_folder(LOAN_DEFAULT, run.settings), LOAN_DEFAULT, run.settings)
    names = [feature.name for feature in bundle.features]
    stored = run.warehouse.table("features_loan_default").limit(200).select(*names).to_pandas().to_numpy(np.float32)
    changed = stored.copy()
    for name in ("annual_rate_pct", "loan_amount", "term_months", "instalment_amount"):
        changed[:, names.index(name)] *= 1.5
    np.testing.assert_array_equal(bundle.probability(changed), bundle.probability(stored))
    for at, name in enumerate(names):
        if name.startswith("instalment_to_"):
            changed[:, at] *= 3
    assert (bundle.probability(changed) > bundle.probability(stored)).mean() > 0.9
