"""Tests of the other pages: overview, person, loan and offer, models, policy, audit and privacy."""

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bento.console.presentation.formats import label_feature
from tests.console.conftest import Reader
from tests.service.conftest import Serving
from tests.service.evidence_example import measure_challenger, measure_example, write_reports
from tests.service.examples import EIGHT_FIELDS

ROOT = Path(__file__).parents[2]
STATEMENT = """Booking date;Text;Amount;Balance
2024-01-02;Rent;-950,00;1200,00
2024-01-28;Salary ACME;2450,00;3650,00
2024-02-02;Rent;-950,00;2700,00
2024-02-11;Supermarket;-120,50;2579,50
2024-03-28;Salary ACME;2450,00;5029,50
"""


def count_decisions(reader: Reader) -> int:
    return int(reader.client.get("/v1/activity").json()["counted"])


def test_the_overview_of_a_quiet_service_says_so(reader: Reader) -> None:
    page = reader.get("overview").text
    assert "No decision was made in these days" in page and "Ready" in page
    assert "Loan default: features as of 1 Jul 2024" in page


def test_the_overview_counts_decisions_alerts_and_money(reader: Reader, queue: list[str]) -> None:
    reader.post(f"alerts/{queue[0]}/dispose", version="1", disposition="fraud")
    activity = reader.client.get("/v1/activity").json()
    page = reader.get("overview?days=7").text
    assert activity["counted"] == 36 and re.search(r'figure">36<', page)
    assert "expected loss of alerts closed as fraud" in page and "1 labelled fraud" in page
    assert sum(row["count"] for row in activity["scores"]) == 36
    assert "day,domain,decision,count" in reader.get("overview?format=csv").text


def test_a_number_of_days_that_is_none_is_a_month(reader: Reader) -> None:
    assert "last 30 days" in reader.get("overview?days=9x").text


def test_a_customer_has_scores_a_gauge_reasons_and_sliders_and_no_decision_is_made(reader: Reader) -> None:
    page = reader.post("person", customer="123")
    assert page.status_code == 200 and 'class="gauge"' in page.text and "Cashflow" in page.text
    assert set(re.findall(r'name="x_(\w+)"', page.text)) == {"penalty_n_90d", "Expense_Income_Ratio", "Low_Balance_Freq"}
    assert "The balance is expected to change by −80.50" in page.text
    assert count_decisions(reader) == 0


def test_an_unknown_customer_is_told_so(reader: Reader) -> None:
    assert reader.post("person", customer="nobody").status_code == 404
    assert reader.post("person", customer=" ").status_code == 422


def test_a_slider_scores_again(reader: Reader) -> None:
    def probability(**changes: str) -> str:
        answer = reader.post("person/what-if", customer="123", **changes)
        assert answer.headers["x-fragment"] == "1"
        return str(re.search(r"risk: (\S+)", answer.text)[1])  # type: ignore[index]

    assert probability() == probability(x_penalty_n_90d="1") != probability(x_penalty_n_90d="0")
    refused = reader.post("person/what-if", customer="123", x_nothing="1")
    assert "no such feature" in refused.text
    assert reader.post("person/what-if", customer="123", x_penalty_n_90d="many").status_code == 422


def test_a_statement_is_read_summed_and_scored(reader: Reader) -> None:
    page = reader.post("person/statement", files={"statement": ("s.csv", STATEMENT, "text/csv")})
    assert page.status_code == 200 and "2 Jan 2024 to 28 Mar 2024" in page.text
    assert "4,900" in page.text and "Housing" in page.text and "−1,900.00" in page.text and 'class="gauge"' in page.text
    fields = dict(re.findall(r'name="(x_\w+)"[^>]*value="([^"]+)"', page.text))
    assert fields["x_Total_Income"] == "4900.0"
    answer = reader.post("person/what-if", customer="", **(fields | {"x_Total_Expense": "9000"}))
    assert "risk:" in answer.text and 'role="alert"' not in answer.text
    assert count_decisions(reader) == 0


def test_an_ambiguous_statement_asks_once(reader: Reader) -> None:
    text = "Date,Description,Amount\n03/04/2024,Rent,-10.00\n05/04/2024,Salary,20.00\n"
    question = reader.post("person/statement", files={"statement": ("s.csv", text, "text/csv")})
    assert "Which day is 03/04/2024?" in question.text and "03 April 2024" in question.text
    page = reader.post("person/statement", date_format="%m/%d/%Y")
    assert "4 Mar 2024 to 4 May 2024" in page.text
    assert reader.post("person/statement", date_format="%m/%d/%Y").status_code == 422, "the draft is used up"


@pytest.mark.parametrize("content", [b"", b"%PDF-1.4 \x00\x01", b"hello", b"a;b\n1;2\n", b"Date,Amount\nyesterday,much\n"])
def test_a_file_that_is_no_statement_says_what_to_do(reader: Reader, content: bytes) -> None:
    page = reader.post("person/statement", files={"statement": ("s.csv", content, "text/csv")})
    assert page.status_code == 422 and 'role="alert"' in page.text and 'type="file"' in page.text


def test_a_file_that_is_too_large_is_refused(reader: Reader) -> None:
    answer = reader.post("person/statement", files={"statement": ("s.csv", b"x" * (4 * 2**20 + 1), "text/csv")})
    assert answer.status_code == 413


def test_a_loan_has_a_decision_a_change_and_an_offer_with_its_curve(reader: Reader) -> None:
    page = reader.post("loan", customer_id="123", loan_amount="50 000", term_months="36", annual_rate_pct="9,5")
    assert page.status_code == 200
    assert "probability of default" in page.text and "Nearest feasible change" in page.text and "Expected profit" in page.text
    assert count_decisions(reader) == 2, "an application and an offer are decisions of record"
    assert reader.get("loan").status_code == 200


@pytest.mark.parametrize("fields", [{"customer_id": "123", "loan_amount": "much"}, {"customer_id": "", "loan_amount": "100"}])
def test_a_wrong_application_names_its_field(reader: Reader, fields: dict[str, str]) -> None:
    page = reader.post("loan", **fields)
    assert page.status_code == 422 and 'role="alert"' in page.text


def test_an_unknown_applicant_is_told_so_beside_both_parts(reader: Reader) -> None:
    page = reader.post("loan", customer_id="nobody", loan_amount="100")
    assert page.status_code == 200 and page.text.count("knows nothing of this customer") == 2


def test_the_models_have_figures_with_intervals_and_cards(reader: Reader) -> None:
    page = reader.get("models").text
    assert "0.833" in page and "0.797 to 0.869" in page
    card = reader.get("models/loan_default").text
    assert "Linear" in card and "Amount lent." in card and "No challenger was scored" in card
    assert "loan_amount,currency" in reader.get("models/loan_default?format=csv").text
    assert 'id="precision-recall"' in reader.get("models/transaction_anomaly").text or not has_charts(reader)
    assert reader.get("models/nothing").status_code == 404


def test_a_model_with_evidence_shows_curves_scorecard_fairness_and_challenger(
    serve: Serving, console_bundles: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINRISK_REPORTS", str(write_reports(tmp_path / "reports", "loan_default", challenger=measure_challenger())))
    monkeypatch.setenv("FINRISK_MLFLOW_URL", "http://127.0.0.1:5000/")
    monkeypatch.setenv("FINRISK_DAGSTER_URL", "javascript:alert(1)")
    origin = {"registry_version": "3", "run_id": "r1", "experiment_id": "7"}
    with serve(console_bundles, evidence={"loan_default": measure_example()}, origins={"loan_default": origin}) as client:
        page = Reader(client).get("models/loan_default").text
        other = Reader(client).get("models/cashflow").text
    for chart in ("roc", "precision-recall", "calibration", "shap"):
        assert f'id="{chart}"' in page or "vega.js" not in page
    assert "2,000 rows of which the model learned nothing" in page and "base points" in page and ">chosen<" in page
    assert re.search(r"gender: f.*?0\.93.*?0\.85 to 1\.02.*?supports", page, re.DOTALL)
    assert "c" * 12 in page and "AUC beside champion" in page and "No drift report is known here yet" in page
    assert 'href="http://127.0.0.1:5000/#/experiments/7/runs/r1/artifactPath/pack/pack.html"' in page
    assert "javascript:" not in page and "Dagster</a>" not in page
    assert "packed without its curves" in other and "This domain trains no scorecard" in other and "No figure compares groups" in other
    assert "addresses of Dagster and MLflow are not known" in other


def has_charts(reader: Reader) -> bool:
    return "vega.js" in reader.get("policy").text


def test_a_missing_bundle_of_charts_is_said_in_a_sentence_and_tables_stay(
    reader: Reader, queue: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from bento.console.presentation import vega_bundle

    monkeypatch.setattr(vega_bundle, "BUNDLE", tmp_path / "vega.js.gz")
    page = reader.get("overview").text
    assert "make console-assets" in page and "vega.js" not in page and "<details open>" in page
    assert reader.get("static/nothing.js").status_code == 404


def test_the_policy_is_explained_and_compared(reader: Reader) -> None:
    page = reader.get("policy").text
    assert "Largest share of the usual monthly income that an instalment may take." in page and "0.35" in page
    shipped = (ROOT / "finrisk_assets/policy/default_policy.yaml").read_text(encoding="utf-8")
    other = shipped.replace("high_from: 0.7", "high_from: 0.8")
    changed = reader.post("policy", files={"policy": ("p.yaml", other, "text/yaml")}).text
    assert "<code>spending_risk.high_from</code>" in changed and "Smallest probability of HIGH risk." in changed
    assert "Both policies say the same" in reader.post("policy", files={"policy": ("p.yaml", shipped, "text/yaml")}).text
    assert "made no decision in the last 30 days" in changed
    wrong = reader.post("policy", files={"policy": ("p.yaml", shipped.replace("high_from: 0.7", "high_from: 0.1"), "text/yaml")})
    assert wrong.status_code == 422 and "medium_from" in wrong.text
    assert reader.post("policy").status_code == 422


def test_another_policy_decides_the_last_month_again(reader: Reader, closed_policy: str) -> None:
    reader.client.post("/v1/spending-risk", json={"customer_id": "123"})
    page = reader.post("policy", pasted=closed_policy).text
    assert "1 decision since" in page and "→ LOW" in page
    assert count_decisions(reader) == 1, "nothing is stored"


@pytest.fixture
def closed_policy() -> str:
    """Return a policy under which nobody's spending is a risk."""
    shipped = (ROOT / "finrisk_assets/policy/default_policy.yaml").read_text(encoding="utf-8")
    return shipped.replace("high_from: 0.7", "high_from: 0.9999").replace("medium_from: 0.4", "medium_from: 0.9998")


def test_a_reader_without_the_role_sees_the_changes_and_why_nothing_was_decided_again(closed: Reader, closed_policy: str) -> None:
    closed.sign_in("scorer")
    page = closed.post("policy", pasted=closed_policy)
    assert page.status_code == 200 and "spending_risk.high_from" in page.text and "The decisions were not decided again" in page.text


def test_a_changed_rule_is_named_alone(reader: Reader) -> None:
    shipped = (ROOT / "finrisk_assets/policy/default_policy.yaml").read_text(encoding="utf-8")
    page = reader.post("policy", pasted=shipped.replace("from_amount: 5000.0", "from_amount: 4000.0")).text
    assert "<code>transaction_anomaly.rules.large_amount</code>" in page and "<code>transaction_anomaly.rules.burst</code>" not in page


def test_sliders_of_a_loan_score_again_and_decide_nothing(reader: Reader) -> None:
    page = reader.post("loan", customer_id="123", loan_amount="50000", term_months="36", annual_rate_pct="9.5").text
    assert set(re.findall(r'type="range" id="slider-\d" name="(\w+)"', page)) == {"loan_amount", "term_months", "annual_rate_pct"}
    before = count_decisions(reader)

    def explore(**terms: str) -> str:
        answer = reader.post("loan/what-if", customer_id="123", **({"loan_amount": "50000", "term_months": "36"} | terms))
        assert answer.status_code == 200 and answer.headers["x-fragment"] == "1"
        return str(answer.text)

    assert explore() != explore(loan_amount="1000") and "would be decided" in explore()
    assert 'role="alert"' in explore(term_months="0")
    assert reader.post("loan/what-if", customer_id="123", loan_amount="much").status_code == 422
    assert count_decisions(reader) == before


def test_the_overview_compares_served_scores_with_the_test_window(serve: Serving, console_bundles: dict[str, Path]) -> None:
    with serve(console_bundles, evidence={"spending_risk_eight": measure_example()}) as client:
        reader = Reader(client)
        assert "0 of 100" in reader.get("overview").text
        for _ in range(100):
            client.post("/v1/spending-risk", json=EIGHT_FIELDS)
        page = reader.get("overview").text
    assert "Shifted" in page and "stability index" in page and "test window of the training" in page
    assert "Not known yet" in page, "no drift report is known"
    assert "no transaction of these days has an outcome" in page and "no offer was asked for" in page


def test_the_overview_counts_what_lending_is_worth(reader: Reader) -> None:
    offer = reader.client.post("/v1/loan-offers", json={"customer_id": "123"}).json()
    reader.client.post("/v1/loan-default", json={"customer_id": "123", "loan_amount": 5000})
    worth = reader.client.get("/v1/activity/worth").json()
    assert worth["offers_amount"] == pytest.approx(offer["offer"]["expected_profit"] if offer["offer"] else 0.0)
    assert (worth["applications"], worth["offers"], worth["is_complete"]) == (1, 1, True)
    assert "profit of 1 offer with its acceptance" in reader.get("overview").text


def test_the_audit_is_searched_verified_and_one_decision_replayed(reader: Reader, queue: list[str]) -> None:
    page = reader.get("audit?action=alert.open").text
    assert page.count('data-label="Action">alert.open') == len(queue)
    assert "No record fits" in reader.get("audit?caller=key:none").text
    assert "none was changed, lost or moved" in reader.post("audit/verify").text
    assert "comes out as it was stored" in reader.post("audit/replay", decision_id=queue[0]).text
    assert reader.post("audit/replay", decision_id="0" * 32).status_code == 404
    assert reader.get("audit?since=yesterday").text.count('role="alert"') == 1
    assert reader.get("audit?format=csv").text.startswith("at,caller,action")


def test_a_changed_decision_and_a_broken_chain_are_shown(reader: Reader, queue: list[str], serve: Serving) -> None:
    with closing(sqlite3.connect(serve.home / "simulator" / "service" / "store.sqlite", isolation_level=None)) as file:
        for (trigger,) in file.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            file.execute(f"drop trigger {trigger}")
        file.execute("update decisions set probability = 0.123 where id = ?", (queue[0],))
        file.execute("update audit set action = 'nothing' where number = 2")
    assert "differs from what was stored" in reader.post("audit/replay", decision_id=queue[0]).text
    assert "Broken" in reader.post("audit/verify").text


def test_a_person_is_exported_and_erased_where_it_is_confirmed(reader: Reader) -> None:
    export = reader.post("audit/export", customer="123")
    assert json.loads(export.text)["customer_id"] == "123" and "123" not in export.headers["content-disposition"]
    assert reader.post("audit/erase", customer="123", confirmation="yes").status_code == 422
    assert reader.client.get("/v1/risk-scores/123").status_code == 200
    assert "The person is erased" in reader.post("audit/erase", customer="123", confirmation="erase").text
    assert reader.client.get("/v1/risk-scores/123").status_code == 404


def test_without_a_model_a_page_says_why(serve: Serving, console_bundles: dict[str, Path]) -> None:
    absent = {"cashflow": "it has no accounts"}
    with serve({"loan_default": console_bundles["loan_default"]}, absent=absent) as client:
        reader = Reader(client)
        assert "it has no accounts" in reader.get("models").text
        assert "carries no spending-risk model" in reader.post("person", customer="123").text
        assert "carries no loan-offers model" in reader.post("loan", customer_id="123", loan_amount="5000").text


def test_numbers_are_written_in_the_readers_language(reader: Reader) -> None:
    german = reader.get("models", headers={"Accept-Language": "de-AT,de;q=0.9"}).text
    assert "0,833" in german


def test_eight_fields_agree_with_the_api(reader: Reader) -> None:
    answer: Any = reader.client.post("/v1/spending-risk/what-if", json=EIGHT_FIELDS).json()
    decided = reader.client.post("/v1/spending-risk", json=EIGHT_FIELDS).json()
    assert answer["risk_probability"] == decided["risk_probability"] and answer["decision_id"] is None


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("n_missed_payments_6m", "number of missed payments (6 months)"),
        ("customer_n_1d", "customer transactions (1 day)"),
        ("customer_max_3d_to_mean_90d", "customer max (3 days) to mean (90 days)"),
        ("expense_to_mean_income_1m_ago", "expense to mean income 1 month ago"),
        ("amount_zscore_30d", "amount z-score (30 days)"),
        ("Expense_Income_Ratio", "Expense Income Ratio"),
    ],
)
def test_a_feature_has_a_name_in_words(name, label):
    assert label_feature(name) == label
