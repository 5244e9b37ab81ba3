"""Tests of reason fidelity: changing the named factors flips the decisions of a run's champions."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks import reason_fidelity, reasons
from benchmarks.reasons import DEMANDED, Applicants, compare, refused, stored
from finrisk_assets.domains.loan_default import actionability, decide
from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.modelling.training.scorecard import Scorecard
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.recourse import RecourseSearch, approved_quantile_rows
from tests.pipeline.conftest import Run


@pytest.fixture(scope="module")
def champion(run: Run) -> Bundle:
    return Bundle.load(folder(run))


@pytest.fixture(scope="module")
def applicants(run: Run) -> Applicants:
    return stored(run.settings, folder(run), LOAN_DEFAULT)


def folder(run: Run) -> Path:
    return run.settings.root / "champions" / "loan_default" / "bundle"


def test_changing_the_named_factors_flips_nine_refusals_of_ten(champion: Bundle, applicants: Applicants) -> None:
    held_against = compare(champion, applicants, "refer_from")
    turn = champion.thresholds["refuse_from"]
    rows = np.concatenate([nearest for _, nearest in refused(champion, applicants, turn)])[:300]
    assert len(rows) >= 50
    rate = {
        choice: reason_fidelity.flips(champion, rows, held_against.choices[choice], held_against.ordinary, turn).rate.value
        for choice in ("reasons", "any four")
    }
    assert rate["reasons"] >= DEMANDED
    assert rate["any four"] < rate["reasons"]


def test_the_command_of_the_docs_prints_what_it_promises(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FINRISK_HOME", str(run.settings.home))
    monkeypatch.setattr("sys.argv", ["benchmarks.reasons", "simulator"])
    reasons.main()
    printed = capsys.readouterr().out
    assert "demanded 0.9: reached" in printed and "MISSED" not in printed
    assert all(words in printed for words in ("mean SHAP", "any four", "nearest change to be approved", "sentences of"))


def test_the_champion_knows_what_approved_applicants_have_and_the_nearest_change_holds(champion: Bundle, applicants: Applicants) -> None:
    assert set(champion.approved) == {"loan_amount", "term_months", "month_end_balance_amount", "usual_expense_amount"}
    turn = champion.thresholds["refer_from"]
    shortfall = partial(decide.measure_shortfall, names=list(champion.columns), policy=champion.policy)
    search = RecourseSearch(champion, {}, approved_quantile_rows(champion), shortfall, actionability.apply_changes)
    helped = 0
    for values in np.concatenate([nearest for _, nearest in refused(champion, applicants, turn)])[:60].tolist():
        pairs = zip(champion.features, values, strict=True)
        row = {feature.name: None if value != value else value for feature, value in pairs}
        nearest = RecourseSearch(
            champion, actionability.find_allowed_changes(row), search.approved, shortfall, actionability.apply_changes
        ).find_nearest(row)
        if nearest.changes:
            helped += 1
            changed = actionability.apply_changes(row, {one.feature: one.after for one in nearest.changes})
            again = champion.row({feature.name: changed[feature.name] for feature in champion.features})
            probability = champion.probability(again[None])
            assert float(probability[0]) == nearest.probability
            columns = {name: again[None, at] for name, at in champion.columns.items()}
            assert decide.decide_applications(columns, probability, champion.policy).words == ["approve"]
    assert helped >= 10


def test_every_version_has_its_scorecard_beside_the_bundle_and_with_its_run(run: Run) -> None:
    folder_of_candidates = run.settings.root / "candidates" / "loan_default"
    card = Scorecard.from_json((folder_of_candidates / "scorecard.json").read_text())
    assert (folder_of_candidates / "scorecard.md").read_text() == card.to_markdown()
    query = (folder_of_candidates / "scorecard.sql").read_text()
    points = run.warehouse.connection.raw_sql(query).fetchdf().set_index("loan_id").points
    features = run.warehouse.table("features_loan_default").order_by("loan_id").limit(200).to_pyarrow().to_pylist()
    assert [points[row["loan_id"]] for row in features] == [card.points(row) for row in features]
    assert "scorecard.json" not in {file.name for file in folder(run).iterdir()}
    assert any((run.settings.root / "mlflow" / "artifacts").rglob("scorecard.md"))


def test_no_sentence_of_any_domain_is_false_or_contradicts_another(run: Run) -> None:
    truth = reasons.print_truth(run.settings, 300)
    assert truth.sentences > truth.decisions > 1000
    assert truth.false == [] and truth.contradictions == 0
