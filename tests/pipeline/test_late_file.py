"""Tests of a late file: exactly the months of ledger, features and scores that it touches are materialised again."""

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from finrisk_assets.graph import automation, build, partitions
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.ledger import landing
from finrisk_assets.settings import Settings
from tests.pipeline.shop import FEATURES, MAPPING, SCORES, Shop, day

pytestmark = pytest.mark.slow

REACH = 3
"""Months that the windows of this domain look back."""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """Yield the shop with its files landed, without a model: Dagster's events stand in for scores."""
    (tmp_path / "shop.yaml").write_text(MAPPING)
    settings = Settings(home=tmp_path / "home", source="mapped", mapping=tmp_path / "shop.yaml", as_of=datetime(2024, 11, 1))
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(tmp_path, settings, build.build_definitions(settings), instance)
        for month in range(1, 11):
            shop.file(f"2024-{month:02d}.csv", day(month, 12))
        shop.run(dg.RunRequest(job_name=automation.LATE))
        every = partitions.run_tags("2024-01", "2024-10")
        job = shop.definitions.resolve_job_def(automation.DAILY)
        wanted = [dg.AssetKey(FEATURES)]
        assert job.execute_in_process(instance=instance, asset_selection=wanted, tags=every).success
        for month in partitions.monthly_partitions("2024-01", "2024-10").get_partition_keys():
            instance.report_runless_asset_event(dg.AssetMaterialization(SCORES, partition=month))
        instance.report_runless_asset_event(dg.AssetMaterialization("champion_transaction_anomaly"))
        champion, contract = dg.AssetKey("champion_transaction_anomaly"), "champion_transaction_anomaly_contract"
        passed = dg.AssetCheckEvaluation(asset_key=champion, check_name=contract, passed=True, metadata={})
        instance.report_runless_asset_event(passed)
        yield shop


def test_a_late_file_touches_exactly_its_months(shop: Shop) -> None:
    first = shop.sensor(None)
    assert not first.run_requests  # existing files are landed already
    conditions = dg.evaluate_automation_conditions(shop.definitions, shop.instance)
    assert conditions.total_requested == 0

    before, before_features, mark = shop.table("validated_transactions"), shop.table(FEATURES), shop.last_event
    shop.file("late.csv", ["late-1,anna,2024-03-15T12:00:00,99,shop1", "late-2,ben,2024-04-02T12:00:00,5,shop2"])
    tick = shop.sensor(first.cursor)
    assert [(run.tags[partitions.RANGE_START], run.tags[partitions.RANGE_END]) for run in tick.run_requests] == [("2024-03", "2024-04")]
    for request in tick.run_requests:
        shop.run(request)
    assert shop.materialised("validated_transactions", mark) == ["2024-03", "2024-04"]
    after = shop.table("validated_transactions")
    assert after.keys() - before.keys() == {"late-1", "late-2"}
    assert {key: after[key] for key in before} == before
    assert not shop.sensor(tick.cursor).run_requests  # and no second time

    conditions = dg.evaluate_automation_conditions(shop.definitions, shop.instance, cursor=conditions.cursor)
    touched = [f"2024-{month:02d}" for month in range(3, 4 + REACH + 1)]
    assert sorted(conditions.get_requested_partitions(dg.AssetKey(FEATURES))) == touched
    assert sorted(conditions.get_requested_partitions(dg.AssetKey(SCORES))) == touched
    assert conditions.total_requested == 2 * len(touched)  # nothing else: no model, no snapshot
    job = shop.definitions.resolve_job_def(automation.DAILY)
    tags = partitions.run_tags(touched[0], touched[-1])
    assert job.execute_in_process(instance=shop.instance, asset_selection=[dg.AssetKey(FEATURES)], tags=tags).success
    features = shop.table(FEATURES)
    moved = {features[key]["occurred_at"].strftime("%Y-%m") for key in before_features if features[key] != before_features[key]}
    assert moved and moved <= set(touched)
    assert features.keys() == after.keys()

    for month in touched:
        shop.instance.report_runless_asset_event(dg.AssetMaterialization(SCORES, partition=month))
    conditions = dg.evaluate_automation_conditions(shop.definitions, shop.instance, cursor=conditions.cursor)
    assert conditions.total_requested == 0  # it does not feed itself


def test_the_sensor_says_whether_nothing_changed_or_nothing_has_landed(shop: Shop) -> None:
    cursor = shop.sensor(None).cursor
    assert shop.sensor(cursor).skip_message == "no file is new or changed"
    (shop.settings.root / "landing" / "raw_transactions.parquet").unlink()
    assert shop.sensor(None).skip_message == "nothing has landed yet: materialise everything once"


def test_a_run_that_dies_while_it_lands_leaves_what_had_landed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    landed = shop.settings.root / "landing" / "raw_transactions.parquet"
    before = landed.read_bytes()

    def die(file: Any, out: Path, **options: Any) -> None:
        out.write_bytes(b"half a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(landing, "_land_csv", die)
    with pytest.raises(KeyboardInterrupt):
        shop.run(dg.RunRequest(job_name=automation.LATE))
    assert landed.read_bytes() == before
    assert [file.name for file in landed.parent.iterdir()] == [landed.name]


LANDS = """
import sys
from pathlib import Path
from finrisk_assets.graph.runs.work_files import open_work_file
with open_work_file(Path(sys.argv[1])) as part:
    part.write_bytes(b"half a file")
    part.with_name(f".{part.name}.content.parquet").write_bytes(b"a file on the way to it")
    print("landing", flush=True)
    sys.stdin.read()
    sys.exit("ended without a whole file")
"""


def test_the_next_landing_removes_what_a_killed_one_left_and_leaves_a_live_one_alone(shop: Shop) -> None:
    folder = shop.settings.root / "landing"
    workers = []
    for _ in range(2):
        command = [sys.executable, "-c", LANDS, str(folder / "raw_transactions.parquet")]
        workers.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert workers[-1].stdout.readline() == b"landing\n"
    killed, live = workers
    killed.kill()
    killed.wait()
    elsewhere = [folder / f".raw_transactions.another.machine.{number}.1.part.parquet" for number in range(2)]
    for other in elsewhere:
        other.touch()
    os.utime(elsewhere[0], (0, 0))
    assert len(list(folder.iterdir())) == 7
    shop.run(dg.RunRequest(job_name=automation.LATE))
    left = {file.name for file in folder.iterdir()} - {"raw_transactions.parquet", elsewhere[1].name}
    assert len(left) == 2 and all(f".{live.pid}." in name for name in left)
    live.communicate(b"")
    assert {file.name for file in folder.iterdir()} == {"raw_transactions.parquet", elsewhere[1].name}


def test_far_apart_months_are_a_run_each_and_a_flood_is_one(shop: Shop) -> None:
    cursor = shop.sensor(None).cursor
    shop.file("late.csv", ["a,anna,2024-02-15T12:00:00,99,shop1", "b,anna,2024-07-15T12:00:00,99,shop1"])
    tick = shop.sensor(cursor)
    assert [run.tags[partitions.RANGE_START] for run in tick.run_requests] == ["2024-02", "2024-07"]
    mark = shop.last_event
    for request in tick.run_requests:
        shop.run(request)  # the first leaves July for the second, says so, and stops nothing
    assert shop.materialised("validated_transactions", mark) == ["2024-02", "2024-07"]
    assert {"a", "b"} <= shop.table("validated_transactions").keys()


def test_a_row_without_a_readable_date_is_seen_and_in_quarantine(shop: Shop) -> None:
    cursor = shop.sensor(None).cursor
    shop.file("late.csv", ["a,anna,the day before,99,shop1"])
    tick = shop.sensor(cursor)
    assert len(tick.run_requests) == 1
    shop.run(tick.run_requests[0])
    assert "a" not in shop.table("validated_transactions")
    refused = Warehouse(url=shop.settings.warehouse).table("quarantine_transactions").to_pyarrow().to_pylist()
    assert [row["broken_rules"] for row in refused] == ["occurred_at is not a timestamp"]


def test_a_changed_and_a_removed_file_touch_their_months_and_a_new_order_none(shop: Shop) -> None:
    cursor = shop.sensor(None).cursor
    shop.file("2024-05.csv", list(reversed(day(5, 12))))
    tick = shop.sensor(cursor)
    assert not tick.run_requests
    shop.file("2024-05.csv", [row.replace("10.5", "11.5") for row in day(5, 12)])
    (shop.folder / "in" / "2024-09.csv").unlink()
    tick = shop.sensor(tick.cursor)
    assert [run.tags[partitions.RANGE_START] for run in tick.run_requests] == ["2024-05", "2024-09"]


def test_nothing_follows_a_failed_contract(shop: Shop) -> None:
    """Not on this tick and not on a later one, until the contract is met."""
    cursor = dg.evaluate_automation_conditions(shop.definitions, shop.instance).cursor

    def checked(**passed: bool) -> None:
        for name, is_met in passed.items():
            check = {"asset_key": dg.AssetKey("validated_transactions"), "check_name": f"validated_transactions_{name}", "metadata": {}}
            shop.instance.report_runless_asset_event(dg.AssetCheckEvaluation(**check, passed=is_met))

    shop.instance.report_runless_asset_event(dg.AssetMaterialization("validated_transactions", partition="2024-06"))
    checked(complete=True, contract=False)
    for _ in range(2):
        tick = dg.evaluate_automation_conditions(shop.definitions, shop.instance, cursor=cursor)
        assert tick.total_requested == 0
        cursor = tick.cursor
    checked(contract=True)
    tick = dg.evaluate_automation_conditions(shop.definitions, shop.instance, cursor=cursor)
    assert sorted(tick.get_requested_partitions(dg.AssetKey(FEATURES))) == ["2024-06", "2024-07", "2024-08", "2024-09"]


def test_a_late_row_that_cannot_be_stored_fails_and_changes_nothing(shop: Shop) -> None:
    """More refused than allowed: the run stops before the ledger."""
    before = shop.table("validated_transactions")
    shop.file("late.csv", [f"x{n},anna,never,1,shop1" for n in range(30)])
    job = shop.definitions.resolve_job_def(automation.LATE)
    result = job.execute_in_process(instance=shop.instance, raise_on_error=False, tags=partitions.run_tags("2024-03", "2024-03"))
    assert not result.success
    assert shop.table("validated_transactions") == before
