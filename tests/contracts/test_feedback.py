"""Tests of analysts' labels: the ledger reads them next to the source's labels, each from its date on."""

from datetime import datetime
from pathlib import Path

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finrisk_assets.ledger import contract
from finrisk_assets.ledger.landing import land_csv
from finrisk_assets.ledger.sources.feedback import LABEL, hide_later_labels, labels_file, with_feedback_labels
from finrisk_assets.ledger.sources.source_definition import RawTable, Source
from schemas.ledger import TRANSACTIONS

LANDED = """id,who,at,amount,fraud,known
t1,5,2024-05-01 10:00:00,12.5,0,2024-05-08
t2,5,2024-05-02 10:00:00,80,,
t3,7,2024-05-03 10:00:00,99,1,2024-06-20
t4,7,2024-05-04 10:00:00,1,perhaps,2024-05-08
"""
GIVEN = [
    ("t1", True, datetime(2024, 6, 1)),  # later than the source's own
    ("t2", True, datetime(2024, 6, 2)),  # the source has none
    ("t3", False, datetime(2024, 6, 3)),  # the source knew better, later
    ("t9", True, datetime(2024, 6, 4)),  # no such transaction here
]


def source_of(folder: Path) -> Source:
    file = folder / "movements.csv"
    file.write_text(LANDED)
    raw = RawTable(
        TRANSACTIONS,
        lambda out: land_csv(file, out),
        {
            "transaction_id": lambda raw: raw.id,
            "customer_id": lambda raw: raw.who,
            "occurred_at": lambda raw: raw["at"],
            "amount": lambda raw: raw.amount,
            "direction": lambda raw: ibis.literal("debit"),
            "is_fraud": lambda raw: raw.fraud,
            "label_known_at": lambda raw: raw.known,
        },
        lambda: (file,),
    )
    return Source("made", "Made for a test.", "EUR", {"transactions": raw}, "2024-05")


def give(folder: Path, rows=GIVEN) -> Path:
    file = labels_file(folder, "transactions")
    file.parent.mkdir(exist_ok=True)
    schema = pa.schema([("key", pa.string()), ("label", pa.bool_()), ("known_at", pa.timestamp("us"))])
    pq.write_table(pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema), file)
    return file


@pytest.fixture
def source(tmp_path):
    return with_feedback_labels(source_of(tmp_path), tmp_path)


def ledger(source: Source, folder: Path, by: datetime | None = None):
    """Return the landing's hash, the label and its date of each valid transaction, and the rules that the other rows broke."""
    brought, out = source.tables["transactions"], folder / "raw.parquet"
    landed = brought.land(out)
    raw = ibis.duckdb.connect().read_parquet(str(out))
    raw = hide_later_labels(raw, by) if by else raw
    split = contract.split(TRANSACTIONS, brought.columns, raw, {}, datetime(2030, 1, 1))
    valid = {row["transaction_id"]: (row["is_fraud"], row["label_known_at"]) for row in split.valid.to_pyarrow().to_pylist()}
    return landed.sha256, valid, contract.count_by_rule(split.quarantine)


def test_without_feedback_the_ledger_is_what_the_source_brings(source, tmp_path):
    plain = ledger(source_of(tmp_path), tmp_path)

    assert ledger(source, tmp_path) == plain


def test_the_label_that_became_known_last_stands_with_its_date(source, tmp_path):
    before, _, _ = ledger(source, tmp_path)
    give(tmp_path)

    sha256, valid, broken = ledger(source, tmp_path)

    assert valid == {
        "t1": (True, datetime(2024, 6, 1)),
        "t2": (True, datetime(2024, 6, 2)),
        "t3": (True, datetime(2024, 6, 20)),
    }
    assert broken == {"is_fraud is not true or false": 1}
    assert sha256 != before
    assert ledger(source, tmp_path)[0] == sha256


def test_a_label_is_not_there_before_its_date(source, tmp_path):
    give(tmp_path)

    _, valid, _ = ledger(source, tmp_path, by=datetime(2024, 6, 1, 12))

    assert valid["t1"] == (True, datetime(2024, 6, 1))
    assert valid["t2"] == (None, None)


def test_a_label_mends_what_the_source_wrote_wrongly(source, tmp_path):
    give(tmp_path, [("t4", False, datetime(2024, 7, 1))])

    _, valid, broken = ledger(source, tmp_path)

    assert valid["t4"] == (False, datetime(2024, 7, 1))
    assert broken == {}


def test_new_labels_are_new_files_whose_months_are_found(source, tmp_path):
    from finrisk_assets.graph.file_changes import FileState, detect_changes

    ledger(source, tmp_path)
    landing = tmp_path
    (tmp_path / "raw.parquet").rename(tmp_path / "raw_transactions.parquet")
    first = detect_changes(source, landing, FileState())
    assert first is not None

    give(tmp_path, [("t2", True, datetime(2024, 6, 2))])
    news = detect_changes(source, landing, first.state)

    assert news is not None
    assert news.months == {"2024-05"}


def test_a_source_without_labels_of_its_own_stays_without(tmp_path):
    own = source_of(tmp_path)
    columns = {name: column for name, column in own.tables["transactions"].columns.items() if name not in ("is_fraud", "label_known_at")}
    raw = RawTable(TRANSACTIONS, own.tables["transactions"].land, columns)
    source = with_feedback_labels(Source("made", "Made for a test.", "EUR", {"transactions": raw}, "2024-05"), tmp_path)
    give(tmp_path)

    source.tables["transactions"].land(tmp_path / "raw.parquet")

    assert LABEL not in pq.read_schema(tmp_path / "raw.parquet").names
