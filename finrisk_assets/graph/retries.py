"""Retries of steps after transient faults."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg

from finrisk_assets.engines import transient_faults
from finrisk_assets.graph.runs import stop_signals


@contextmanager
def retry_step_on_transient_fault(attempts_before: int, drop_connection: Callable[[], None]) -> Iterator[None]:
    """Turn a transient fault of a step into Dagster's `RetryRequested`, and an interrupted query into an interrupt.

    Every other error is raised unchanged.

    Parameters
    ----------
    attempts_before
        Number of earlier retries of this step.
    drop_connection
        Called before the retry, so that the next attempt opens a new connection.

    Raises
    ------
    dagster.RetryRequested
        For a transient fault while attempts remain.
    dagster.DagsterExecutionInterruptedError
        For a query that a signal interrupted.
    """
    try:
        yield
    except Exception as error:
        if stop_signals.is_interrupted_query(error):
            raise dg.DagsterExecutionInterruptedError("a query was interrupted") from error
        if isinstance(error, dg.RetryRequested) or not transient_faults.is_transient(error):
            raise
        drop_connection()
        raise dg.RetryRequested(transient_faults.ATTEMPTS - 1, transient_faults.backoff_s(attempts_before + 1)) from error
