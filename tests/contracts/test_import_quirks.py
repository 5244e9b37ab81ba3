"""Tests of `finrisk import` on ten files as teams bring them: type, format and role of 95 % of the columns, and all rows land."""

import random
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from finrisk_assets.cli.main import cli

N = 400
LEAST_SHARE = 0.95
Rows = Iterator[dict[str, Any]]
FEATURE, PROTECTED, NO_FEATURE, LEFT_OUT = "feature", "protected", "no feature", "left out"
"""The fate of a column that is none of the ledger's."""


def german(number: float) -> str:
    return f"{number:,.2f}".translate(str.maketrans(",.", ".,"))


def moments(step: timedelta = timedelta(hours=31)) -> Iterator[datetime]:
    moment = datetime(2024, 1, 3, 8, 15)
    while True:
        yield moment
        moment += step


def giro(draw: random.Random) -> Rows:
    for _, at in zip(range(N), moments(), strict=False):
        yield {"Buchungstag": f"{at:%d.%m.%Y}", "Wertstellung": f"{at:%d.%m.%y}", "Empfänger": draw.choice(["REWE", "Müller", "Shell"]),
               "Verwendungszweck": f"Zahlung {draw.randint(1, 10**9)}", "Betrag": german(draw.uniform(-900, 2500)), "Währung": "EUR",
               "Kontostand": german(draw.uniform(0, 9000))}  # fmt: skip


def two_columns(draw: random.Random) -> Rows:
    for _, at in zip(range(N), moments(), strict=False):
        amount, is_out = f"{draw.uniform(1, 2000):,.2f}", draw.random() < 0.7
        yield {"Date": f"{at:%m/%d/%Y}", "Description": f"POS {draw.randint(1, 9999)}", "Debit": amount if is_out else "",
               "Credit": "" if is_out else amount, "Balance": f"{draw.uniform(10, 9000):,.2f}"}  # fmt: skip


def cards(draw: random.Random) -> Rows:
    for number, at in zip(range(N), moments(timedelta(minutes=97)), strict=False):
        yield {"transaction_id": f"T{number:06d}", "cc_num": draw.randint(10**15, 10**15 + 40),
               "trans_date_trans_time": f"{at:%Y-%m-%d %H:%M:%S}", "amt": f"{draw.expovariate(0.02):.2f}",
               "merchant": draw.choice(["M1", "M2", "M3"]), "country": draw.choice(["US", "CA"]),
               "distance_km": f"{draw.uniform(0, 50):.1f}", "is_fraud": int(draw.random() < 0.05)}  # fmt: skip


def epochs(draw: random.Random) -> Rows:
    for number, at in zip(range(N), moments(), strict=False):
        yield {"id": number, "client_id": draw.randint(1, 9), "timestamp": int(at.timestamp() * 1000),
               "amount": f"{draw.uniform(1, 90):.2f}", "type": draw.choice(["DEBIT", "CREDIT"])}  # fmt: skip


def accountant(draw: random.Random) -> Rows:
    for _, at in zip(range(N), moments(), strict=False):
        amount = draw.uniform(-9000, 9000)
        yield {"Posting date": f"{at:%Y%m%d}", "Amount (USD)": f"({-amount:,.2f})" if amount < 0 else f"{amount:,.2f}", "Payee": "Shop"}


def delinquency(draw: random.Random) -> Rows:
    for number in range(N):
        late = draw.choice([0, 0, 0, 1, 2, 98])
        yield {"": number + 1, "SeriousDlqin2yrs": int(draw.random() < 0.2), "RevolvingUtilizationOfUnsecuredLines": f"{draw.random():.6f}",
               "age": draw.randint(21, 90), "NumberOfTimes90DaysLate": late, "DebtRatio": f"{draw.random():.5f}",
               "MonthlyIncome": draw.choice(["NA", draw.randint(1000, 9000)]), "NumberOfDependents": draw.randint(0, 4)}  # fmt: skip


def heloc(draw: random.Random) -> Rows:
    for _ in range(N):
        yield {"RiskPerformance": draw.choice(["Bad", "Good"]), "ExternalRiskEstimate": draw.choice([-9, draw.randint(40, 95)]),
               "MSinceOldestTradeOpen": draw.choice([-8, -9, draw.randint(1, 700)]), "NumSatisfactoryTrades": draw.randint(0, 60),
               "PercentTradesNeverDelq": draw.randint(20, 100)}  # fmt: skip


def shop_credit(draw: random.Random) -> Rows:
    for number in range(N):
        yield {"ID_CLIENT": number, "SEX": draw.choice("MF"), "MARITAL_STATUS": draw.choice("SMDWO"), "AGE": draw.randint(18, 80),
               "ID_SHOP": draw.randint(1, 50), "PAYMENT_DAY": draw.choice([5, 10, 15]), "OWNS_HOUSE": draw.choice("YN"),
               "RESIDENCE_TYPE": draw.choice(["owned", "rented", "parents"]), "PERSONAL_NET_INCOME": draw.randint(200, 4000),
               "TARGET_LABEL_BAD=1": int(draw.random() < 0.2)}  # fmt: skip


def platform(draw: random.Random) -> Rows:
    for number, at in zip(range(N), moments(), strict=False):
        yield {"loan_id": f"L{number}", "member_id": f"M{number % 300}", "issue_date": f"{at:%Y-%m-%d}",
               "loan_amnt": draw.randint(10, 350) * 100, "term": draw.choice([36, 60]), "int_rate": f"{draw.uniform(5, 25):.2f}",
               "installment": f"{draw.uniform(30, 900):.2f}",
               "purpose": draw.choice(["car", "house", "debt"]), "recoveries": draw.choice(["", "12.5"]),
               "loan_status": draw.choice(["Fully Paid", "Charged Off"])}  # fmt: skip


def kredit(draw: random.Random) -> Rows:
    for number in range(N):
        yield {"Kreditnummer": f"K{number}", "Kundennummer": f"C{number}",
               "Antragsdatum": f"{draw.randint(1, 28)}.{draw.randint(1, 12)}.2023",
               "Kreditbetrag": german(draw.uniform(500, 50000)), "Laufzeit": draw.choice([12, 24, 36]),
               "Zinssatz": german(draw.uniform(2, 12)), "Schufa_Punkte": draw.randint(1, 99), "Geschlecht": draw.choice(["m", "w"]),
               "Ausfall": draw.choice(["ja", "nein"])}  # fmt: skip


Case = tuple[Callable[[random.Random], Rows], dict[str, Any], dict[str, Any]]
CASES: Mapping[str, Case] = {
    "giro": (giro, {"delimiter": ";", "encoding": "cp1252", "above": 'Konto;"DE00";;;;;\n\n'}, {
        "Buchungstag": ("occurred_at", {"format": "%d.%m.%Y"}), "Wertstellung": LEFT_OUT, "Empfänger": ("merchant", {}),
        "Verwendungszweck": LEFT_OUT, "Betrag": ("amount", {"decimal": ",", "thousands": ".", "absolute": True}),
        "Währung": "currency", "Kontostand": ("balance_amount", {"decimal": ",", "thousands": "."})}),
    "two_columns": (two_columns, {}, {
        "Date": ("occurred_at", {"format": "%m/%d/%Y"}), "Description": LEFT_OUT, "Debit": ("amount", {"thousands": ","}),
        "Credit": ("amount", {"thousands": ","}), "Balance": ("balance_amount", {"thousands": ","})}),
    "cards": (cards, {"delimiter": "|"}, {
        "transaction_id": ("transaction_id", {}), "cc_num": ("customer_id", {}), "trans_date_trans_time": ("occurred_at", {}),
        "amt": ("amount", {}), "merchant": ("merchant", {}), "country": ("country", {}), "distance_km": FEATURE,
        "is_fraud": ("is_fraud", {})}),
    "epochs": (epochs, {"delimiter": "\t"}, {
        "id": ("transaction_id", {}), "client_id": ("customer_id", {}), "timestamp": ("occurred_at", {"format": "epoch_ms"}),
        "amount": ("amount", {}), "type": ("direction", {"values": {"DEBIT": "debit", "CREDIT": "credit"}})}),
    "accountant": (accountant, {"quoted": True}, {
        "Posting date": ("occurred_at", {"format": "%Y%m%d"}), "Amount (USD)": ("amount", {"thousands": ",", "absolute": True}),
        "Payee": ("merchant", {})}),
    "delinquency": (delinquency, {}, {
        "SeriousDlqin2yrs": ("is_default", {}), "RevolvingUtilizationOfUnsecuredLines": FEATURE, "age": PROTECTED,
        "NumberOfTimes90DaysLate": (FEATURE, {"missing": ["98"]}), "DebtRatio": FEATURE, "MonthlyIncome": (FEATURE, {"missing": ["NA"]}),
        "NumberOfDependents": PROTECTED}),
    "heloc": (heloc, {}, {
        "RiskPerformance": ("is_default", {"values": {"Bad": True, "Good": False}}),
        "ExternalRiskEstimate": (FEATURE, {"missing": ["-9"]}),
        "MSinceOldestTradeOpen": (FEATURE, {"missing": ["-9", "-8"]}), "NumSatisfactoryTrades": FEATURE,
        "PercentTradesNeverDelq": FEATURE}),
    "shop_credit": (shop_credit, {"delimiter": "\t", "encoding": "utf-16"}, {
        "ID_CLIENT": ("customer_id", {}), "SEX": PROTECTED, "MARITAL_STATUS": PROTECTED, "AGE": PROTECTED, "PAYMENT_DAY": FEATURE,
        "ID_SHOP": FEATURE, "OWNS_HOUSE": FEATURE, "RESIDENCE_TYPE": FEATURE, "PERSONAL_NET_INCOME": FEATURE,
        "TARGET_LABEL_BAD=1": ("is_default", {})}),
    "platform": (platform, {"above": "sep=,\n"}, {
        "loan_id": ("loan_id", {}), "member_id": ("customer_id", {}), "issue_date": ("applied_at", {}), "loan_amnt": ("loan_amount", {}),
        "term": ("term_months", {}), "int_rate": ("annual_rate_pct", {}), "installment": ("instalment_amount", {}), "purpose": FEATURE,
        "recoveries": NO_FEATURE, "loan_status": ("is_default", {"values": {"Fully Paid": False, "Charged Off": True}})}),
    "kredit": (kredit, {"delimiter": ";", "encoding": "utf-8-sig"}, {
        "Kreditnummer": ("loan_id", {}), "Kundennummer": ("customer_id", {}), "Antragsdatum": ("applied_at", {"format": "%d.%m.%Y"}),
        "Kreditbetrag": ("loan_amount", {"decimal": ",", "thousands": "."}), "Laufzeit": ("term_months", {}),
        "Zinssatz": ("annual_rate_pct", {"decimal": ","}), "Schufa_Punkte": FEATURE, "Geschlecht": PROTECTED,
        "Ausfall": ("is_default", {"values": {"ja": True, "nein": False}})}),
}  # fmt: skip


def write(path: Path, rows: Rows, *, delimiter: str = ",", encoding: str = "utf-8", above: str = "", quoted: bool = False) -> None:
    """Write rows as a text file, values in quotes where they need or are said to have them."""

    def cell(value: Any) -> str:
        text = str(value)
        return f'"{text}"' if quoted or delimiter in text else text

    table = list(rows)
    lines = [delimiter.join(cell(name) for name in table[0]), *(delimiter.join(map(cell, row.values())) for row in table)]
    path.write_bytes((above + "\n".join(lines) + "\n").encode(encoding))


def find_proposals(mapping: Mapping[str, Any], keys: tuple[str, ...] = ()) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Return for each column of the file the ledger columns that read it, or what becomes of it, each with its format."""
    ((_, table),) = mapping["tables"].items()
    found: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for role, how in table["columns"].items():
        how = {"from": how} if isinstance(how, str) else how
        rest = {key: value for key, value in how.items() if key not in ("from", "debit", "credit", "sign_of")}
        for key in ("from", "debit", "credit"):
            if key in how:
                found.setdefault(how[key], []).append((role, rest))
    for how in table.get("extra", ()):
        fate = FEATURE if "feature" in how else PROTECTED if how.get("personal") == "protected" else NO_FEATURE
        kept = ("missing", "format", "decimal", "thousands", *keys)
        found.setdefault(how["from"], []).append((fate, {key: value for key, value in how.items() if key in kept}))
    if "currency" in table:
        found.setdefault(table["currency"], []).append(("currency", {}))
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_file_is_proposed_as_it_is_meant(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINRISK_AS_OF", "2026-06-01T12:00:00")
    rows, layout, columns = CASES[name]
    write(tmp_path / "data.csv", rows(random.Random(5)), **layout)
    result = CliRunner().invoke(cli, ["import", str(tmp_path / "data.csv"), "-o", str(tmp_path / "own.yaml")])
    assert result.exit_code == 0, result.output
    assert f"{N} rows, {N} valid, 0 in quarantine" in result.output
    proposals = find_proposals(yaml.safe_load((tmp_path / "own.yaml").read_text("utf-8")))
    right = {}
    for column, expected in columns.items():
        role, how = expected if isinstance(expected, tuple) else (expected, {})
        given = proposals.get(column, [(LEFT_OUT, {})])
        right[column] = any(fate == role and {key: form.get(key) for key in how} == how for fate, form in given)
    wrong = [column for column, is_right in right.items() if not is_right]
    assert len(wrong) <= (1 - LEAST_SHARE) * len(right), {column: proposals.get(column) for column in wrong}
