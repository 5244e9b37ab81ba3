"""Tests of sources whose files are in a bucket: they land as files of this machine do, and changes are seen without a download."""

import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from finrisk_assets.cli.main import cli
from finrisk_assets.graph import automation, build
from finrisk_assets.graph.file_changes import FileState, detect_changes
from finrisk_assets.ledger.landing import LandingError
from finrisk_assets.ledger.sources import SourceError, load
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.objects.file_sets import list_sets
from finrisk_assets.objects.object_store import remove_object, upload, write_object
from finrisk_assets.operations.check_mapping import check_mapping
from finrisk_assets.settings import Settings
from tests.objects.object_servers import LOST, ObjectServer
from tests.pipeline.shop import HEADER, MAPPING, Shop, day

DOCS = Path(__file__).parents[2] / "docs"


def content(month: int, n: int = 12) -> bytes:
    return "\n".join((HEADER, *day(month, n))).encode() + b"\n"


def shop_settings(folder: Path, files: str, **settings: str) -> Settings:
    """Return the settings of the shop whose payments are in `files`."""
    folder.mkdir(exist_ok=True)
    (folder / "shop.yaml").write_text(MAPPING.replace("in/*.csv", f"'{files}'"), "utf-8")
    return Settings(home=folder / "home", source="mapped", mapping=folder / "shop.yaml", as_of=datetime(2024, 11, 1), **settings)


def test_objects_land_as_files_do(bucket: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for month in (1, 2):
        (tmp_path / "in" / f"pay #{month}.csv").write_bytes(content(month))
        upload(tmp_path / "in" / f"pay #{month}.csv", f"{bucket}/in/pay #{month}.csv")
    landed = []
    for number, files in enumerate((f"{tmp_path}/in/*.csv", f"{bucket}/in/*.csv")):
        raw = load(shop_settings(tmp_path / str(number), files)).tables["transactions"]
        raw.check_columns()
        result = raw.land(tmp_path / f"{number}.parquet")
        landed.append((result, (tmp_path / f"{number}.parquet").read_bytes()))
    assert landed[0] == landed[1] and landed[0][0].rows == 24


def test_an_error_of_an_object_names_its_address(s3_bucket: str, tmp_path: Path) -> None:
    write_object(b"id,who,at,sum,shop\n1,a,b,c,d\n", f"{s3_bucket}/in/x.csv")
    raw = load(shop_settings(tmp_path, f"{s3_bucket}/in/x.csv")).tables["transactions"]
    with pytest.raises(LandingError, match=rf"^{s3_bucket}/in/x.csv has no column 'amount'"):
        raw.land(tmp_path / "out.parquet")


def test_parquet_test_files_and_a_data_folder_in_a_bucket(s3_bucket: str, tmp_path: Path) -> None:
    for name, labels in {"train.parquet": [0, 1, 0], "holdout.parquet": [1, 0]}.items():
        rows = {"id": [f"{name}{n}" for n in range(len(labels))], "amount": [1.0] * len(labels), "bad": labels}
        pq.write_table(pa.table(rows), tmp_path / name)
        upload(tmp_path / name, f"{s3_bucket}/data/{name}")
    (tmp_path / "own.yaml").write_text(
        "name: own\ncurrency: EUR\ntables:\n  loans:\n    file: ${FINRISK_DATA_DIR}/train.parquet\n"
        "    test_files: ${FINRISK_DATA_DIR}/hold*.parquet\n    columns: {loan_id: id, customer_id: id, "
        "loan_amount: amount, is_default: bad}\n"
    )
    settings = Settings(home=tmp_path / "home", data_dir=Path(f"{s3_bucket}/data"))
    report = check_mapping(settings, tmp_path / "own.yaml", n_rows=5)
    assert [row["is_test"] for row in report.tables["loans"].valid_rows or ()] == [False, False, False, True, True]


def test_the_sensor_sees_what_changed_and_reads_nothing_when_nothing_did(s3: ObjectServer, s3_bucket: str, tmp_path: Path) -> None:
    for month in (1, 2, 3):
        write_object(content(month), f"{s3_bucket}/in/{month}.csv")
    settings = shop_settings(tmp_path, f"{s3_bucket}/in/*.csv")
    source, landing = load(settings), settings.root / "landing"
    s3.proxy.requests.clear()
    source.tables["transactions"].land(landing / "raw_transactions.parquet")
    assert {method for method, _ in s3.proxy.requests} == {"GET", "HEAD"}, "reading takes no other right"
    assert sorted(file.name for file in (landing / "objects").rglob("*.csv")) == ["1.csv", "2.csv", "3.csv"]

    def look(before: FileState) -> tuple[FileState, set[str]]:
        changes = detect_changes(source, landing, before)
        return (before, set()) if changes is None else (FileState.read(changes.state.write()), set(changes.months))

    state, months = look(FileState())
    assert months == set()
    s3.proxy.requests.clear()
    assert detect_changes(source, landing, state) is None
    assert [path for _, path in s3.proxy.requests if "list-type" not in path] == []
    write_object(content(2, 13), f"{s3_bucket}/in/2.csv")
    write_object(content(4), f"{s3_bucket}/in/4.csv")
    remove_object(f"{s3_bucket}/in/3.csv")
    state, months = look(state)
    assert months == {"2024-02", "2024-03", "2024-04"}
    assert look(state) == (state, set())


def test_a_run_whose_bucket_is_lost_says_so_changes_nothing_and_succeeds_when_it_is_back(
    s3: ObjectServer, s3_bucket: str, tmp_path: Path
) -> None:
    for month in range(1, 4):
        write_object(content(month), f"{s3_bucket}/in/{month}.csv")
    settings = shop_settings(tmp_path, f"{s3_bucket}/in/*.csv", objects=f"{s3_bucket}/finrisk")
    landed = settings.root / "landing" / "raw_transactions.parquet"
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(tmp_path, settings, build.build_definitions(settings), instance)
        raw = [dg.AssetKey("raw_transactions")]
        job = shop.definitions.resolve_job_def(automation.LATE)
        assert job.execute_in_process(instance=instance, asset_selection=raw).success
        before = landed.read_bytes()
        (snapshot,) = (file.stem for file in (settings.root / "snapshots").glob("*.parquet"))
        assert list_sets(f"{s3_bucket}/finrisk/shop") == [f"snapshots/{snapshot}"]

        write_object(content(3, 20), f"{s3_bucket}/in/3.csv")
        with s3.proxy.watched(lambda method, path: LOST if method == "GET" and "/in/3.csv" in path else None):
            lost = job.execute_in_process(instance=instance, asset_selection=raw, raise_on_error=False)
        (failure,) = lost.get_step_failure_events()
        cause = failure.step_failure_data.error.cause
        assert cause.message.strip().count("\n") == 0 and f"{s3_bucket}/in/3.csv cannot be read" in cause.message
        assert landed.read_bytes() == before
        assert job.execute_in_process(instance=instance, asset_selection=raw).success
        assert pq.read_metadata(landed).num_rows == 12 + 12 + 20

        # The mirror is lost: what has landed stays, and the next run copies it.
        write_object(content(3, 21), f"{s3_bucket}/in/3.csv")
        before = list_sets(f"{s3_bucket}/finrisk/shop")
        with s3.proxy.watched(lambda method, path: LOST if method == "PUT" and "/finrisk/shop/" in path else None):
            lost = job.execute_in_process(instance=instance, asset_selection=raw, raise_on_error=False)
        (failure,) = lost.get_step_failure_events()
        assert re.fullmatch(r"\S*ObjectError: s3://\S+ cannot be written: [^\n]+", failure.step_failure_data.error.cause.message.strip())
        assert pq.read_metadata(landed).num_rows == 12 + 12 + 21 and list_sets(f"{s3_bucket}/finrisk/shop") == before
        assert job.execute_in_process(instance=instance, asset_selection=raw).success
        assert len(list_sets(f"{s3_bucket}/finrisk/shop")) == len(before) + 1


@pytest.fixture
def monthly_features() -> bytes:
    """Return the features of four accounts over a year, drawn without chance."""
    lines = [
        "account_id,customer_id,as_of,total_income,total_expenses,net_cashflow,savings_rate,expense_volatility,n_transactions,"
        "next_month_surplus,next_month_cashflow,outcome_known_at"
    ]
    for account in range(4):
        for month in range(1, 13):
            income, spent, following = 2000 + 100 * account, 1800 + 57 * ((month * 7 + account) % 9), 300 - 57 * ((month * 5 + account) % 9)
            features = f"{income},{spent},{income - spent},{1 - spent / income:.3f},{0.1 + 0.01 * month:.2f},{20 + month}"
            outcome = f"{int(following > 0)},{following},2023-{month + 1:02d}-01" if month < 12 else ",,"
            lines.append(f"a{account},c{account},2023-{month:02d}-01,{features},{outcome}")
    return "\n".join(lines).encode() + b"\n"


def test_processed_features_in_cloud_storage_are_a_panel_of_cashflow(gs_bucket: str, monthly_features: bytes, tmp_path: Path) -> None:
    write_object(monthly_features, f"{gs_bucket}/processed/monthly_cashflow_features.csv")
    settings = Settings(home=tmp_path, data_dir=Path(f"{gs_bucket}/processed"))
    report = check_mapping(settings, DOCS / "monthly-cashflow.yaml", n_rows=1)
    assert (report.tables["accounts"].valid, report.tables["accounts"].quarantined) == (48, 0)
    assert report.domains["cashflow"].runs
    source: Source = load(replace(settings, source="mapped", mapping=DOCS / "monthly-cashflow.yaml"))
    assert [feature.name for feature in source.features["cashflow"]] == [
        "total_income", "total_expenses", "net_cashflow", "savings_rate", "expense_volatility", "n_transactions",
    ]  # fmt: skip


def test_import_and_check_take_addresses(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINRISK_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FINRISK_AS_OF", "2024-11-01T00:00:00")
    for month in (1, 2):
        write_object(content(month), f"{s3_bucket}/in/pay #{month}.csv")
    out = tmp_path / "own.yaml"
    imported = CliRunner().invoke(cli, ["import", f"{s3_bucket}/in/*.csv", "-o", str(out)])
    assert imported.exit_code == 0, imported.output
    assert f"'{s3_bucket}/in/pay #1.csv'" in out.read_text("utf-8")
    write_object(out.read_bytes(), f"{s3_bucket}/own.yaml")
    for mapping in (str(out), f"{s3_bucket}/own.yaml"):
        checked = CliRunner().invoke(cli, ["check", mapping])
        assert checked.exit_code == 0, checked.output
        assert "transactions: 24 rows, 24 valid" in checked.output
    missing = CliRunner().invoke(cli, ["import", f"{s3_bucket}/in/none.csv"])
    assert (missing.exit_code, missing.stderr) == (2, f"Error: there is no object {s3_bucket}/in/none.csv; check the name and the bucket\n")


@pytest.mark.parametrize("source", ["handbook", "berka", "taiwan", "karlan_zinman"])
def test_a_built_in_source_reads_no_bucket(source: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="only a mapped source reads files in a bucket"):
        load(Settings(home=tmp_path, source=source, data_dir=Path("s3://bucket/data")))
