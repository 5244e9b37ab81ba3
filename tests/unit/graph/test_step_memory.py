"""Tests that a step's memory is free before the next step begins, whatever cycles hold it."""

import gc
import weakref
from pathlib import Path

import dagster as dg

from finrisk_assets.graph.runs.executor import build_executor
from finrisk_assets.graph.runs.in_process import run_job


class Table:
    """Stands for a large table; weak references tell whether it is still there."""


def test_what_a_step_left_in_a_cycle_is_free_when_the_next_one_begins(tmp_path: Path) -> None:
    left: list[weakref.ref[Table]] = []

    @dg.asset
    def first() -> None:
        table = Table()
        left.append(weakref.ref(table))
        try:
            raise ImportError("as a library does that looks for another one")
        except ImportError as error:
            kept = error  # noqa: F841 -- the frame holds the error, whose traceback holds the frame and so the table

    @dg.asset(deps=[first])
    def second() -> dg.MaterializeResult[None]:
        return dg.MaterializeResult(metadata={"left": sum(table() is not None for table in left)})

    executor = build_executor(f"duckdb://{tmp_path / 'w.duckdb'}", 1, (), "champion_")
    definitions = dg.Definitions([first, second], executor=executor, jobs=[dg.define_asset_job("everything")])
    gc.disable()  # Python's own collection may come at any moment
    try:
        with dg.DagsterInstance.ephemeral() as instance:
            result = run_job(definitions.resolve_job_def("everything"), instance)
    finally:
        gc.enable()
    assert result.success
    (made,) = (event for event in result.get_asset_materialization_events() if event.asset_key == dg.AssetKey("second"))
    assert made.materialization.metadata["left"].value == 0
    assert gc.get_freeze_count() == 0
