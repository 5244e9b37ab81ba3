"""Tests of partitions, automation conditions and schedules of every source."""

from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from finrisk_assets.graph import automation, build, partitions
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.sources import BUILT_IN
from finrisk_assets.settings import Settings


def definitions(source: str, home: Path, **settings: Any) -> dg.Definitions:
    return build.build_definitions(Settings(home=home, source=source, **settings))


def evaluate_schedule(defs: dg.Definitions, schedule: str, moment: datetime) -> dg.RunRequest:
    """Return the run that a schedule requests at a tick."""
    repository = defs.get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(instance, scheduled_execution_time=moment, repository_def=repository)
        (request,) = repository.get_schedule_def(schedule).evaluate_tick(context).run_requests
        return request


def range_of(request: dg.RunRequest) -> tuple[str, str]:
    return request.tags[partitions.RANGE_START], request.tags[partitions.RANGE_END]


@pytest.mark.parametrize("source", BUILT_IN)
def test_what_is_dated_is_kept_by_month_and_only_totals_features_and_scores_follow(source: str, tmp_path: Path) -> None:
    """Models never: they have a schedule and a gate."""
    graph = definitions(source, tmp_path).resolve_asset_graph()
    following = ("totals_", "features_", "scores_")
    for key in graph.get_all_asset_keys():
        name, node = key.to_user_string(), graph.get(key)
        assert (node.partitions_def is not None) == name.startswith(("validated_transactions", *following)), name
        assert (node.automation_condition is not None) == name.startswith(following), name
        if node.partitions_def is not None:
            assert node.backfill_policy == dg.BackfillPolicy.single_run(), name
            assert isinstance(node.metadata[partitions.PARTITION_COLUMN], str), name


@pytest.mark.parametrize("source", BUILT_IN)
def test_a_source_says_its_months(source: str, tmp_path: Path) -> None:
    loaded = sources.load(Settings(home=tmp_path, source=source))
    keys = partitions.monthly_partitions(loaded.begins, loaded.ends).get_partition_keys()
    assert (keys[0], keys[-1]) == (loaded.begins, loaded.ends)


def test_the_jobs_have_the_stages_that_they_are_for(tmp_path: Path) -> None:
    defs = definitions("simulator", tmp_path)
    every = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}

    def stages(job: str) -> set[str]:
        chosen = defs.resolve_job_def(job).asset_layer.executable_asset_keys
        return {key.to_user_string().split("_")[0] for key in chosen}

    assert stages(automation.LATE) == {"raw", "quarantine", "validated", "totals"}
    assert stages(automation.DAILY) >= {"raw", "quarantine", "validated", "totals", "features", "scores"}
    assert not stages(automation.DAILY) & {"model", "evaluation", "champion", "bento", "truth"}
    assert stages(automation.MONTHLY) >= {"features", "model", "evaluation", "champion", "bento"}
    assert not stages(automation.MONTHLY) & {"raw", "validated", "totals", "scores"}
    assert stages(automation.EVERYTHING) == {name.split("_")[0] for name in every}


def test_totals_follow_a_month_of_the_ledger_and_features_the_totals(tmp_path: Path) -> None:
    """Nobody asks for features before the totals that they read are made again."""
    defs, totals, features = definitions("simulator", tmp_path), "totals_accounts", "features_spending_risk"
    graph = defs.resolve_asset_graph()
    settled = {
        key.to_user_string(): key for name in (totals, features) for key in [dg.AssetKey(name), *graph.get(dg.AssetKey(name)).parent_keys]
    }
    with dg.DagsterInstance.ephemeral() as instance:

        def materialise(name: str, month: str | None = None) -> None:
            instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=month))

        for name, key in settled.items():
            months = graph.get(key).partitions_def
            for month in months.get_partition_keys() if months else [None]:
                materialise(name, month)
            for check in graph.asset_check_keys:
                if check.asset_key == key:
                    instance.report_runless_asset_event(
                        dg.AssetCheckEvaluation(asset_key=key, check_name=check.name, passed=True, metadata={})
                    )
        target = dg.AssetSelection.assets(totals, features)

        def evaluate(cursor: Any = None) -> Any:
            return dg.evaluate_automation_conditions(defs, instance, asset_selection=target, cursor=cursor)

        ticks = [evaluate()]
        materialise("validated_transactions", "2024-03")
        ticks.append(evaluate(ticks[-1].cursor))
        assert ticks[-1].get_requested_partitions(dg.AssetKey(totals)) == {"2024-03"}
        assert not ticks[-1].get_requested_partitions(dg.AssetKey(features))
        materialise(totals, "2024-03")
        ticks.append(evaluate(ticks[-1].cursor))
        wanted = {partitions.add_months("2024-03", n) for n in range(-3, 5)}
        assert ticks[-1].get_requested_partitions(dg.AssetKey(features)) == wanted
        for month in wanted:
            materialise(features, month)
        assert evaluate(ticks[-1].cursor).total_requested == 0


def test_all_that_acts_by_itself_is_stopped_until_a_person_starts_it(tmp_path: Path) -> None:
    for source in ("simulator", "berka"):
        repository = definitions(source, tmp_path).get_repository_def()
        for one in (*repository.schedule_defs, *repository.sensor_defs):
            assert one.default_status.value == "STOPPED", one.name


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2024, 6, 1, 3), ("2024-03", "2024-06")),
        (datetime(2024, 6, 30, 3), ("2024-03", "2024-06")),
        (datetime(2024, 7, 1, 3), ("2024-04", "2024-07")),
        (datetime(2026, 2, 1, 3), ("2024-04", "2024-07")),  # the ledger has ended
    ],
)
def test_a_day_takes_its_month_and_those_that_settle(moment: datetime, expected: tuple[str, str], tmp_path: Path) -> None:
    request = evaluate_schedule(definitions("simulator", tmp_path), automation.DAILY, moment)
    assert range_of(request) == expected
    assert request.run_config["resources"]["clock"]["config"]["moment"] == moment.isoformat()


def test_a_clock_that_stands_still_stands_for_every_tick(tmp_path: Path) -> None:
    defs = definitions("simulator", tmp_path, as_of=datetime(2024, 5, 5))
    request = evaluate_schedule(defs, automation.DAILY, datetime(2026, 1, 1, 3))
    assert request.run_config["resources"]["clock"]["config"]["moment"] == "2024-05-05T00:00:00"
    assert range_of(request) == ("2024-02", "2024-05")


def test_the_month_retrains_on_all_months(tmp_path: Path) -> None:
    loaded = sources.load(Settings(home=tmp_path))
    request = evaluate_schedule(definitions("simulator", tmp_path), automation.MONTHLY, datetime(2024, 6, 2, 4))
    assert range_of(request) == (loaded.begins, loaded.ends)
    assert automation.CARRIES in request.tags


def test_every_job_can_be_launched_without_saying_which_months(tmp_path: Path) -> None:
    defs = definitions("simulator", tmp_path)
    for name in (automation.EVERYTHING, automation.DAILY, automation.MONTHLY, automation.LATE):
        assert {partitions.RANGE_START, partitions.RANGE_END} <= defs.resolve_job_def(name).run_tags.keys(), name


@pytest.mark.parametrize(("source", "has"), [("simulator", True), ("handbook", False)])
def test_what_people_consume_has_a_freshness_policy_where_the_ledger_lives(source: str, has: bool, tmp_path: Path) -> None:
    graph = definitions(source, tmp_path).resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        if key.to_user_string().startswith(("scores_", "bento")):
            assert (graph.get(key).freshness_policy_or_from_metadata is not None) == has, key
