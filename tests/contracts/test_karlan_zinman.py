"""Tests of the Karlan–Zinman source on a small file: columns, refusals, and columns that no model reads."""

from datetime import datetime

import ibis
import pandas as pd
import pytest

from finrisk_assets.ledger.contract import count_by_rule, split
from finrisk_assets.ledger.landing import LandingError
from finrisk_assets.ledger.sources import karlan_zinman
from finrisk_assets.settings import Settings

CLIENT = {
    "wave": 2, "risk": "HIGH", "offer4": 8.0, "final4": 8.0, "yearlong": 1, "applied": 1, "tookup": 1, "loansize": 1000.0, "term": 4.0,
    "pstdue_average": 10.0, "normrate_less": 1, "normrate_more": 0, "grossinterest": 250.0, "grossincome": 3.5, "dependants": 2.0,
    "dormancy": 5, "trcount": 3.0, "itcscore": 600, "appscore": 30.0, "lastterm": 4, "lastamount": 800.0, "female": 1, "married": 0.0,
    "age": 40.0, "edhi": 0,
}  # fmt: skip
STRANGER = CLIENT | {
    "applied": 0, "tookup": 0, "loansize": 0.0, "term": 0.0, "pstdue_average": None, "grossincome": None, "itcscore": 0, "age": 0.0,
}  # fmt: skip


def ledger(folder, rows):
    path = folder / "karlan_zinman" / karlan_zinman.FILE
    path.parent.mkdir(exist_ok=True)
    pd.DataFrame(rows).to_stata(path, write_index=False)
    source = karlan_zinman.source(Settings(data_dir=folder))
    connection, valid = ibis.duckdb.connect(), {}
    for name, raw in source.tables.items():
        raw.land(folder / f"{name}.parquet")
        done = split(raw.table, raw.columns, connection.read_parquet(folder / f"{name}.parquet"), valid, datetime(2026, 1, 1))
        valid[name] = connection.create_table(name, done.valid)
        assert count_by_rule(connection.create_table(f"quarantine_{name}", done.quarantine)) == {}
    return {name: rows.order_by(f"{name[:-1]}_id").to_pyarrow().to_pylist() for name, rows in valid.items()}


def test_one_offer_and_one_loan_a_client(tmp_path):
    landed = ledger(tmp_path, [CLIENT, STRANGER])
    offer, unanswered = landed["offers"]
    assert (offer["offer_id"], offer["customer_id"], offer["annual_rate_pct"], offer["loan_amount"]) == ("1", "1", 96.0, 800.0)
    assert (offer["is_rate_random"], offer["is_accepted"], unanswered["is_accepted"]) == (True, True, False)
    assert (offer["stated_income_amount"], offer["risk_grade"], offer["mailing"]) == (3500.0, 3, 2)
    assert (unanswered["stated_income_amount"], unanswered["bureau_score"]) == (None, None)
    assert [loan["is_default"] for loan in landed["loans"]] == [False, None], "who did not borrow could not default"


def test_a_default_is_an_instalment_or_more_overdue_on_the_average(tmp_path):
    instalment = 1000 * 0.08 / (1 - 1.08**-4)
    rows = [CLIENT | {"pstdue_average": due} for due in (instalment - 1, instalment + 1)]
    assert [loan["is_default"] for loan in ledger(tmp_path, rows)["loans"]] == [False, True]


def test_no_protected_column_and_nothing_known_later_is_a_feature():
    source = karlan_zinman.source(Settings())
    for domain, table in (("loan_offers", "offers"), ("loan_default", "loans")):
        names = {feature.name for feature in source.features[domain]}
        contract = source.tables[table].table
        assert names <= set(contract.names)
        assert all(contract[name].personal != "protected" and contract[name].known == "always" for name in names)
    protected = {column.name for column in source.tables["customers"].table.columns if column.personal == "protected"}
    assert {"gender", "age_years", "is_married", "n_dependants", "education"} <= protected


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(LandingError, match=r"kz_demandelasts_aer08\.dta is missing; set FINRISK_DATA_DIR"):
        karlan_zinman.read(tmp_path / karlan_zinman.FILE)
    damaged = tmp_path / karlan_zinman.FILE
    damaged.write_bytes(b"<stata_dta> cut short")
    with pytest.raises(LandingError, match="cannot be read"):
        karlan_zinman.read(damaged)
    pd.DataFrame([{"offer4": 8.0}]).to_stata(damaged, write_index=False)
    with pytest.raises(LandingError, match="wave"):
        karlan_zinman.read(damaged)
