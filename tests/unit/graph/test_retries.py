"""Tests of retries: which faults are transient, how long the waits are, and that no other fault is retried."""

from collections.abc import Callable

import dagster as dg
import ibis
import pytest

from finrisk_assets.engines import transient_faults
from finrisk_assets.graph.resources import Clock
from finrisk_assets.graph.warehouse import Tables, Warehouse

LOCKED = OSError("IO Error: Could not set lock on file warehouse.duckdb: Conflicting lock is held")


def failing(*errors: Exception) -> tuple[Callable[[], str], list[int]]:
    """Return an action that raises these errors, one per call, and then succeeds; and a list of its calls."""
    calls: list[int] = []

    def action() -> str:
        calls.append(len(calls))
        if len(calls) <= len(errors):
            raise errors[len(calls) - 1]
        return "done"

    return action, calls


@pytest.mark.parametrize(
    "error", [LOCKED, RuntimeError("(sqlite3.OperationalError) database is locked"), ConnectionResetError(104, "reset by peer")]
)
def test_a_transient_fault_is_waited_out(error: Exception) -> None:
    action, calls = failing(error, error)
    waits: list[float] = []
    assert transient_faults.with_retries(action, sleep=waits.append) == "done"
    assert len(calls) == 3
    assert 0.5 <= waits[0] <= 1 <= waits[1] <= 2


def test_a_fault_that_stays_is_told_after_the_last_attempt() -> None:
    action, calls = failing(*[LOCKED] * 9)
    with pytest.raises(OSError, match="Conflicting lock"):
        transient_faults.with_retries(action, sleep=lambda _: None)
    assert len(calls) == transient_faults.ATTEMPTS


@pytest.mark.parametrize("error", [ValueError("amount is below 0"), KeyError("a column"), RuntimeError("the disk is full")])
def test_nothing_else_is_tried_twice(error: Exception) -> None:
    action, calls = failing(error)
    with pytest.raises(type(error)):
        transient_faults.with_retries(action, sleep=lambda _: pytest.fail("it waited"))
    assert len(calls) == 1


def test_waits_grow_to_a_limit_and_differ() -> None:
    assert [transient_faults.backoff_s(attempt, lambda: 0.0) for attempt in (1, 2, 3, 9)] == [1, 2, 4, transient_faults.LONGEST_WAIT_S]
    assert transient_faults.backoff_s(3, lambda: 1.0) == 2


@pytest.mark.parametrize(("error", "attempts"), [(LOCKED, 2), (ValueError("a column is missing"), 1)])
def test_a_step_is_run_again_only_for_a_transient_fault(error: Exception, attempts: int, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(transient_faults, "backoff_s", lambda *_: 0.0)
    stored: list[str] = []
    store = Warehouse.store

    def unlucky(self: Warehouse, asset: str, rows: ibis.Table) -> ibis.Table:
        stored.append(asset)
        if len(stored) == 1:
            raise error
        return store(self, asset, rows)

    monkeypatch.setattr(Warehouse, "store", unlucky)

    @dg.asset(io_manager_key="tables")
    def raw_letters() -> ibis.Table:
        return ibis.memtable({"letter": ["a", "b"]})

    warehouse = Warehouse(url=f"duckdb://{tmp_path / 'warehouse.duckdb'}")
    resources = {"tables": Tables(warehouse=warehouse), "warehouse": warehouse}
    result = dg.materialize([raw_letters], resources=resources, raise_on_error=False)
    assert len(stored) == attempts
    assert result.success == (attempts > 1)


def test_a_run_may_have_a_clock_of_its_own() -> None:
    read: list[str] = []

    @dg.asset
    def reading(clock: Clock) -> None:
        read.append(clock.now().isoformat())

    resources = {"clock": Clock.configure_at_launch(moment="2024-01-01T00:00:00")}
    dg.materialize([reading], resources=resources)
    own = {"resources": {"clock": {"config": {"moment": "2024-06-01T03:00:00"}}}}
    dg.materialize([reading], resources=resources, run_config=own)
    assert read == ["2024-01-01T00:00:00", "2024-06-01T03:00:00"]
