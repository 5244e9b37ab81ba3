"""Tests of tables on Spark: replaced as a whole and by month, found by another process, never torn."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlparse
from zipfile import ZipFile

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.errors import AnalysisException, NumberFormatException, PythonException

from finrisk_assets.engines.engine import EngineError
from finrisk_assets.engines.spark.spark_engine import KEPT_SNAPSHOTS, MAX_SNAPSHOTS, SparkEngine
from finrisk_assets.engines.spark.spark_url import SparkUrl
from tests.conftest import SPARK_SETTINGS

pytestmark = pytest.mark.slow

FEBRUARY = "\"at\" >= TIMESTAMP '2025-02-01 00:00:00' AND \"at\" < TIMESTAMP '2025-03-01 00:00:00'"
UNTIL_JANUARY = '("at" < TIMESTAMP \'2025-02-01 00:00:00\') OR "at" IS NULL'

TORN = """
import os, signal, sys
from finrisk_assets.engines.choice import open_engine
import ibis, pyarrow as pa
engine = open_engine(sys.argv[1])
engine.replace_table("analytics", "torn", ibis.memtable({"n": [1, 2]}))
driver = os.getpid()
def die(batch):
    os.kill(driver, signal.SIGKILL)
    return batch
rows = engine.map_batches(engine.table("analytics", "torn"), die, pa.schema([("n", pa.int64())]), key="n", file=None, threads=1)
engine.replace_table("analytics", "torn", rows)
"""

BAD_STARTS = """
import os, sys
import ibis, pyarrow as pa
from finrisk_assets.engines.choice import open_engine
from finrisk_assets.engines.engine import EngineError
url, java = sys.argv[1:]
def start(url):
    try:
        return open_engine(url)
    except EngineError as error:
        print(error)
os.environ["JAVA_HOME"] = java
start(url)
del os.environ["JAVA_HOME"]
os.environ["PYSPARK_PYTHON"] = "/nowhere/python"
engine = start(url)
try:
    rows = ibis.memtable({"n": [1]})
    engine.map_batches(rows, lambda batch: batch, pa.schema([("n", pa.int64())]), key="n", file=None, threads=1).to_pyarrow()
except EngineError as error:
    print(error)
engine.close()
start(url + "&spark.task.cpus=some")
"""


def stored(engine, name):
    return sorted(engine.table("analytics", name).to_pyarrow().to_pylist(), key=lambda row: row["id"])


def data_files(engine, name):
    return {row[0] for row in engine.session.sql(f"SELECT file_path FROM analytics.{name}.files").collect()}


def dated(*rows):
    return ibis.memtable(pa.table({"id": [id for id, _ in rows], "at": pa.array([at for _, at in rows], pa.timestamp("us"))}))


def test_months_are_replaced_and_the_others_stay(spark_engine):
    january, february, march = (datetime(2025, month, 1) for month in (1, 2, 3))
    spark_engine.replace_table("analytics", "dated", dated(("a", january), ("b", february), ("c", march), ("d", None)), "at")
    before = data_files(spark_engine, "dated")
    spark_engine.replace_rows("analytics", "dated", dated(("e", datetime(2025, 2, 28, 23, 59, 59, 999999))), FEBRUARY)
    assert [row["id"] for row in stored(spark_engine, "dated")] == ["a", "c", "d", "e"]
    assert len(before) == 4 and len(before - data_files(spark_engine, "dated")) == 1  # of February alone
    itself = spark_engine.table("analytics", "dated")
    spark_engine.replace_rows("analytics", "dated", itself.filter(itself["at"].isnull()).mutate(id=itself.id + "2"), UNTIL_JANUARY)
    assert stored(spark_engine, "dated") == [
        {"id": "c", "at": march},
        {"id": "d2", "at": None},
        {"id": "e", "at": datetime(2025, 2, 28, 23, 59, 59, 999999)},
    ]


def test_a_table_is_made_of_itself_and_old_states_are_removed(spark_engine):
    spark_engine.replace_table("analytics", "counted", ibis.memtable({"id": [0]}))
    for _ in range(MAX_SNAPSHOTS):
        counted = spark_engine.table("analytics", "counted")
        spark_engine.replace_table("analytics", "counted", counted.mutate(id=counted.id + 1))
    assert stored(spark_engine, "counted") == [{"id": MAX_SNAPSHOTS}]
    assert spark_engine.session.table("analytics.counted.snapshots").count() == KEPT_SNAPSHOTS
    (file,) = data_files(spark_engine, "counted")
    folder = Path(urlparse(file).path).parent
    assert folder.parts[-3:] == ("analytics", "counted", "data")
    assert len(list(folder.glob("*.parquet"))) == KEPT_SNAPSHOTS


def test_values_come_back_as_the_other_engines_return_them(spark_engine, tmp_path):
    file = tmp_path / "odd [name] {1,2}?*.parquet"
    moment = datetime(2025, 3, 30, 2, 30, 0, 123456)
    rows = pa.table(
        {
            "whole": pa.array([1, None], pa.int64()),
            "fraction": pa.array([float("nan"), None]),
            "is_so": pa.array([True, None]),
            "text": ["e\u0301", None],
            "instant": pa.array([moment, None], pa.timestamp("us", "UTC")),
            "at": pa.array([moment, None], pa.timestamp("us")),
        }
    )
    pq.write_table(rows, file)
    lazy = spark_engine.ingest_parquet(file)
    spark_engine.replace_table("staging", "values", lazy)
    (first, second) = spark_engine.table("staging", "values").to_pyarrow().to_pylist()
    first, second = (first, second) if second["whole"] is None else (second, first)
    assert first["fraction"] != first["fraction"]
    assert {name: value for name, value in first.items() if name != "fraction"} == {
        "whole": 1, "is_so": True, "text": "e\u0301", "instant": moment, "at": moment,
    }  # fmt: skip
    assert set(second.values()) == {None}
    here, there = ibis.duckdb.connect().read_parquet(file.with_name("odd*")), spark_engine.table("staging", "values")
    nulls = [{name: int(table[name].isnull().sum().to_pyarrow().as_py()) for name in rows.column_names} for table in (here, there)]
    assert nulls[0] == nulls[1]
    numbers = ibis.memtable(pa.table({"n": [0.1, -0.0, 1e7, 12345678.9, 1e15, 1e16, 1e-4, 1e-5, 1e300, float("inf"), float("nan"), None]}))
    texts = [
        sorted(map(str, to.to_pyarrow(numbers.n.cast("string")).to_pylist())) for to in (ibis.duckdb.connect(), spark_engine.connection)
    ]
    assert texts[0] == texts[1]
    words = ibis.memtable({"word": ["12", "twelve"]})
    assert sorted(spark_engine.connection.to_pyarrow(words.word.try_cast("int64")).to_pylist(), key=str) == [12, None]
    with pytest.raises(NumberFormatException, match="CAST_INVALID_INPUT"):
        spark_engine.connection.to_pyarrow(words.word.cast("int64"))
    out = tmp_path / "out.parquet"
    there.order_by("whole").to_parquet(out)
    assert pq.read_table(out)["at"].to_pylist() == [moment, None] or pq.read_table(out)["at"].to_pylist() == [None, moment]


def test_a_time_has_no_zone_and_counts_microseconds(spark_engine):
    moment = datetime(2025, 3, 30, 2, 30, 0, 123456)  # an hour that Central Europe does not have
    rows = ibis.memtable({"text": [str(moment)], "seconds": [int(moment.replace(tzinfo=UTC).timestamp())]})
    read, epoch = rows.text.cast("timestamp"), rows.seconds.as_timestamp("s")
    times = rows.select(
        literal=ibis.literal(moment), read=read, epoch=epoch, month=read.truncate("M"), day=read.truncate("D"),
        later=read + ibis.interval(days=1), is_same=read == ibis.literal(moment), is_after=read > epoch,
    )  # fmt: skip
    here, there = (connection.to_pyarrow(times) for connection in (ibis.duckdb.connect(), spark_engine.connection))
    assert here.to_pylist() == there.to_pylist() and there["literal"].to_pylist() == [moment]
    spark_engine.replace_table("analytics", "times", times)
    stored = spark_engine.table("analytics", "times").to_pyarrow()
    kinds = {field.type for table in (there, stored) for field in table.schema if pa.types.is_timestamp(field.type)}
    assert kinds == {pa.timestamp("us")} and stored.to_pylist() == there.to_pylist()


def test_a_table_of_another_process_is_found_and_a_dying_one_tears_nothing(spark_engine, spark_url, tmp_path):
    """The other process has Iceberg's jar from a folder, not from Maven Central."""
    for jar in spark_engine.session.sparkContext.getConf().get("spark.jars").split(","):
        shutil.copy(urlparse(jar).path, tmp_path)
    died = subprocess.run([sys.executable, "-c", TORN, f"{spark_url}&jars={tmp_path}"], capture_output=True, text=True)
    assert died.returncode == -9, died.stderr[-2000:]
    assert spark_engine.has("analytics", "torn") and not spark_engine.has("analytics", "unborn")
    assert sorted(spark_engine.table("analytics", "torn").to_pyarrow()["n"].to_pylist()) == [1, 2]
    spark_engine.replace_table("analytics", "torn", ibis.memtable({"n": [3]}))
    assert spark_engine.table("analytics", "torn").to_pyarrow()["n"].to_pylist() == [3]


def cut(file):
    """Leave the first half of a file, and no checksum of the whole."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    file.with_name(f".{file.name}.crc").unlink()


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_table_with_damaged_metadata_is_made_anew_as_a_whole_only(spark_engine, damage):
    name, rows = f"damaged_{damage.__name__}", dated(("a", datetime(2025, 2, 1)))
    spark_engine.replace_table("analytics", name, rows, "at")
    folder = spark_engine.address.folder / "analytics" / name
    (metadata,) = (folder / "metadata").glob("v*.metadata.json")
    damage(metadata)
    for use in (
        lambda: spark_engine.table("analytics", name),
        # Taken for no table, it would become one of the next run's months alone.
        lambda: spark_engine.has("analytics", name),
        lambda: spark_engine.replace_rows("analytics", name, rows, FEBRUARY),
    ):
        with pytest.raises(EngineError, match=f"remove the folder {folder} and make the table again, with all") as refused:
            use()
        assert str(refused.value).startswith(f"the table analytics.{name} cannot be read: ") and "\n" not in str(refused.value)
    spark_engine.replace_table("analytics", name, rows, "at")
    assert [row["id"] for row in stored(spark_engine, name)] == ["a"]


def test_a_lost_data_file_is_told_with_its_table_and_a_wrong_program_as_itself(spark_engine):
    spark_engine.replace_table("analytics", "lost", dated(("a", datetime(2025, 2, 1))))
    (file,) = data_files(spark_engine, "lost")
    Path(urlparse(file).path).unlink()
    rows = spark_engine.table("analytics", "lost")
    copy = partial(spark_engine.replace_table, "analytics", "lost", rows.mutate(at=rows.at))
    for use in (rows.to_pyarrow, lambda: list(rows.to_pyarrow_batches()), rows.id.execute, copy):
        with pytest.raises(
            EngineError, match=r"the table analytics.lost cannot be read: .*/analytics/lost/data/\S+ does not exist: run again"
        ):
            use()
    with pytest.raises(AnalysisException, match="UNRESOLVED_COLUMN"):
        spark_engine.connection.view(spark_engine.session.table("analytics.lost").select("nothing"))

    def fail(batch):
        raise KeyError("Permission denied: in a row")

    failing = spark_engine.map_batches(ibis.memtable({"n": [1]}), fail, pa.schema([("n", pa.int64())]), key="n", file=None, threads=1)
    with pytest.raises(PythonException, match="Permission denied: in a row"):
        failing.to_pyarrow()


def test_a_start_that_fails_is_told_in_a_sentence(spark_engine, spark_url, tmp_path):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\nexit 1\n")
    java.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", BAD_STARTS, spark_url, str(tmp_path)], capture_output=True, text=True)
    ended, python, option = done.stdout.splitlines()
    assert ended.startswith(f"Spark did not start: {java} ended, and its own message stands above: correct what it names")
    assert option.startswith("Spark did not start: spark.task.cpus should be int, but was some: correct what it names")
    assert python.startswith('Spark cannot go on: Cannot run program "/nowhere/python"') and python.endswith("in PYSPARK_PYTHON")
    assert "SparkContext: Error initializing" not in done.stderr


def test_a_process_has_one_master_with_the_settings_of_its_url(spark_engine, tmp_path):
    assert spark_engine.session.conf.get("spark.sql.shuffle.partitions") == SPARK_SETTINGS["spark.sql.shuffle.partitions"]
    with pytest.raises(EngineError, match="runs Spark on local"):
        SparkEngine.open(f"pyspark://local[7]?warehouse={tmp_path}")


def test_iceberg_is_one_jar_under_the_apache_licence(spark_engine):
    (jar,) = spark_engine.session.sparkContext.getConf().get("spark.jars").split(",")
    assert "iceberg-spark-runtime" in jar
    with ZipFile(urlparse(jar).path) as archive:
        assert archive.read("META-INF/LICENSE").decode().split()[:4] == ["Apache", "License", "Version", "2.0,"]


def test_batches_come_in_order_and_a_function_runs_where_the_rows_are(spark_engine, tmp_path):
    rows = ibis.range(0, 50_000).unnest().name("n").as_table()
    spark_engine.replace_table("analytics", "numbers", rows.mutate(n=rows.n.cast("int64")))
    stored = spark_engine.table("analytics", "numbers").mutate(**{"a.name with a dot": ibis.literal(1)})
    batches = list(stored.order_by(stored.n.desc()).to_pyarrow_batches(chunk_size=20_000))
    assert max(len(batch) for batch in batches) <= 20_000
    assert [n for batch in batches for n in batch["n"].to_pylist()] == list(range(49_999, -1, -1))

    driver = os.getpid()

    def double(batch):
        assert os.getpid() != driver
        assert batch.schema.names == ["n", "a.name with a dot"]
        return pa.RecordBatch.from_pydict({"n": [2 * n for n in batch["n"].to_pylist()]})

    folder = Path(tmp_path)
    doubled = spark_engine.map_batches(stored, double, pa.schema([("n", pa.int64())]), key="n", file=folder / "none.parquet", threads=1)
    assert doubled.n.sum().to_pyarrow().as_py() == 2 * sum(range(50_000)) and not list(folder.iterdir())


def test_a_folder_belongs_to_one_ledger(spark_engine: SparkEngine, tmp_path: Path) -> None:
    address = SparkUrl.parse(f"pyspark://local[2]?warehouse={tmp_path.as_uri()}")
    one, other = (SparkEngine(spark_engine.session.newSession(), address) for _ in range(2))
    one.open_ledger("one")
    one.replace_table("staging", "raw_loans", ibis.memtable({"key": ["a"]}))
    with pytest.raises(EngineError, match="holds the tables of the ledger one, and this is other: name another one"):
        other.open_ledger("other")
    other.open_ledger("one")
