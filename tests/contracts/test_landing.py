"""Tests of landing: the stored file, and the error text of a file that cannot land."""

import hashlib
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from finrisk_assets.ledger.landing import Csv, LandingError, land_arrow, land_csv, land_joined, land_parquet


def read(path: Path) -> list[dict]:
    return pq.read_table(path).to_pylist()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out" / "raw.parquet"


@pytest.fixture
def file(tmp_path: Path):
    def write(content: bytes | str, name: str = "in.csv") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_text_lands_as_it_stands_with_row_numbers_and_the_files_hash(file, out):
    path = file('id,note\n007," two  spaces "\n008,\n')
    landed = land_csv(path, out)
    assert (landed.rows, landed.sha256) == (2, hashlib.sha256(path.read_bytes()).hexdigest())
    assert read(out) == [
        {"_row": 1, "id": "007", "note": " two  spaces ", "_defects": None, "_line": None},
        {"_row": 2, "id": "008", "note": "", "_defects": None, "_line": None},
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_any_line_end(file, out, end, last):
    assert land_csv(file(end.join(["a;b", "1;2", "3;4"]) + end * last), out, delimiter=";").rows == 2
    assert [row["b"] for row in read(out)] == ["2", "4"]


@pytest.mark.parametrize(
    "content",
    ['\ufeffa,b\n1,"x\ny"\n2,z\n', 'a,b\r\n1,"x\ny"\n2,z\r\n', 'a,b\n1,"x\ny"\n\n2,z'],
    ids=["byte order mark", "mixed line ends", "blank line"],
)
def test_no_row_is_lost_where_a_fast_reader_would_lose_one(file, out, content):
    assert land_csv(file(content), out).rows == 2
    assert [(row["a"], row["b"]) for row in read(out)] == [("1", "x\ny"), ("2", "z")]


def test_damaged_rows_land_with_their_line(file, out):
    path = file(b'a,b\n1,x\n2\n3,\xff\n4,y,more\n5,"open\n6,z\n')
    assert land_csv(path, out).rows == 6
    assert [(row["_row"], row["a"], row["_defects"], row["_line"]) for row in read(out)] == [
        (1, "1", None, None),
        (2, None, "malformed row", "2"),
        (3, "3", "broken encoding", "3,\ufffd"),
        (4, None, "malformed row", "4,y,more"),
        (5, None, "malformed row", '5,"open'),
        (6, "6", None, None),
    ]


def test_another_encoding_and_no_header_line(file, out):
    land_csv(file("1 Žižkov\n".encode("cp1250")), out, delimiter=" ", encoding="cp1250", header=["id", "place"], required=["place"])
    assert read(out)[0]["place"] == "Žižkov"


def test_the_same_content_gives_the_same_bytes(file, tmp_path):
    path = file("a,b\n" + "1,x\n" * 10_000)
    first, second = tmp_path / "1.parquet", tmp_path / "2.parquet"
    assert land_csv(path, first) == land_csv(path, second)
    assert first.read_bytes() == second.read_bytes()


FAILURES = {
    "empty file": (b"", "is empty"),
    "no rows": (b"id,amount\n", "has a header but no rows"),
    "missing column": (b"id,value\n1,2\n", "has no column 'amount'; it has id, value"),
    "no header line": (b"1,2\n3,4\n", "is the header line missing"),
    "wrong delimiter": (b"id;amount\n1;2\n", "or the delimiter another"),
    "a name twice": (b"id,amount,ID\n1,2,3\n", "more than once"),
    "UTF-16": ("id,amount\n1,2\n".encode("utf-16"), "cannot be read as utf-8"),
    "blank lines only": (b"\n\n", "nothing but blank lines"),
}


@pytest.mark.parametrize(("content", "message"), FAILURES.values(), ids=FAILURES.keys())
def test_a_file_that_cannot_land_says_which_and_why(file, out, content, message):
    path = file(content)
    with pytest.raises(LandingError, match=message) as raised:
        land_csv(path, out, required=["id", "amount"])
    assert str(path) in str(raised.value)


def test_a_message_about_a_missing_header_repeats_no_value_of_a_row(file, out):
    with pytest.raises(LandingError) as raised:
        land_csv(file("Alma Novak,12\nBoris,13\n"), out, required=["id"])
    assert "Alma" not in str(raised.value)


def test_missing_and_unreadable_files(tmp_path, file, out):
    with pytest.raises(LandingError, match=r"there is no file .*nowhere\.csv"):
        land_csv(tmp_path / "nowhere.csv", out)
    with pytest.raises(LandingError, match="cannot be read"):
        land_csv(tmp_path, out)
    with pytest.raises(LandingError, match="cannot be read as Parquet"):
        land_parquet(file("a,b\n1,2\n"), out)


def test_parquet_lands_with_naive_microsecond_timestamps(tmp_path, out):
    moments = pa.array([1_714_557_600_000_000_123], pa.timestamp("ns", "Europe/Prague"))
    pq.write_table(pa.table({"id": [1], "at": moments}), tmp_path / "in.parquet")
    assert land_parquet(tmp_path / "in.parquet", out, required=["id"]).rows == 1
    assert pq.read_schema(out).field("at").type == pa.timestamp("us")
    assert read(out)[0]["at"] == datetime(2024, 5, 1, 10)
    with pytest.raises(LandingError, match="has no column 'amount'"):
        land_parquet(tmp_path / "in.parquet", out, required=["id", "amount"])


def test_rows_made_in_memory_land_with_the_hash_of_their_content(out):
    table = pa.table({"id": ["a", "b"], "at": pa.array([0, 1], pa.timestamp("us"))})
    landed = land_arrow(table, out)
    assert landed.rows == 2
    assert landed == land_arrow(pa.concat_tables([table.slice(0, 1), table.slice(1)]), out)
    assert landed != land_arrow(table.slice(1), out)
    assert [row["_row"] for row in read(out)] == [1]


def test_a_look_up_adds_columns_and_never_rows(file, out):
    base = Csv((file("id,owner\n1,a\n2\n3,b\n", "base.csv"),))
    query = "SELECT base.*, people.name FROM base LEFT JOIN people ON people.id = base.owner"
    landed = land_joined(base, {"people": Csv((file("id,name\na,Alma\n", "people.csv"),))}, query, out)
    assert landed.rows == 3
    defects = [(row["_row"], row["name"], row["_defects"]) for row in read(out)]
    assert defects == [(1, "Alma", None), (2, None, "malformed row"), (3, None, None)]

    with pytest.raises(LandingError, match="came twice"):
        land_joined(base, {"people": Csv((file("id,name\na,Alma\na,Ada\n", "people.csv"),))}, query, out)
    with pytest.raises(LandingError, match=r"people\.csv, row 2: malformed row"):
        land_joined(base, {"people": Csv((file("id,name\na,Alma\nb\n", "people.csv"),))}, query, out)
