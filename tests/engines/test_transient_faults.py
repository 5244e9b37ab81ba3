"""Tests of transient faults: which they are, how long the waits are, and that no other fault is tried again."""

from collections.abc import Callable

import pytest

from finrisk_assets.engines import transient_faults

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
