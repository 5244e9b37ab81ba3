"""Runs whose worker died without a word (a power cut, `kill -9`): found, failed, and so taken out of the pools that they held."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.storage.dagster_run import RunRecord

from finrisk_assets.graph.runs.workers import RunWorker

ACTIVE = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
"""States in which a run holds its pools."""

UNTAKEN_S = 120.0
"""Seconds after which a run that no worker has taken counts as dead: starting a worker takes a few seconds."""

AUTOMATIC_TAGS = ("dagster/schedule_name", "dagster/sensor_name", "dagster/from_automation_condition")
"""Tags of a run that a schedule or a sensor asked for: nobody is there who would start it again."""

RETRIES = {"dagster/max_retries": "3", "dagster/retry_strategy": "ALL_STEPS"}
"""Tags with which Dagster's daemon starts a failed run again, from its first step, three times at most."""


class RunError(ValueError):
    """A run that cannot be cleared; the message names the run, the reason and what to do."""


@dataclass(frozen=True)
class DeadRun:
    """An active run without a live worker, and what became of that worker."""

    run: dg.DagsterRun
    reason: str


def find_dead_runs(instance: dg.DagsterInstance, now: float | None = None) -> Iterator[DeadRun]:
    """Yield the active runs whose worker is known to have ended, or that no worker has taken in time.

    Parameters
    ----------
    now
        Seconds since 1970; the present by default.
    """
    for record in instance.get_run_records(dg.RunsFilter(statuses=ACTIVE)):
        reason = explain_death(instance, record, time.time() if now is None else now)
        if reason is not None:
            yield DeadRun(record.dagster_run, reason)


def explain_death(instance: dg.DagsterInstance, record: RunRecord, now: float) -> str | None:
    """Return why an active run counts as dead; None where its worker lives, may still come, or runs on another machine."""
    worker = RunWorker.of_run(record.dagster_run)
    if worker is not None:
        return f"its worker, {worker}, has ended" if worker.has_ended else None
    began = record.start_time or instance.get_run_stats(record.dagster_run.run_id).launch_time or record.create_timestamp.timestamp()
    return f"no worker took it within {UNTAKEN_S:.0f} s" if now - began > UNTAKEN_S else None


def clear_dead_runs(instance: dg.DagsterInstance) -> list[str]:
    """Fail every dead run, which frees its pools; return one line for each.

    A run that a schedule or a sensor asked for is started again by Dagster's daemon.
    """
    return [clear_run(instance, dead.run, dead.reason) for dead in find_dead_runs(instance)]


def clear_run(instance: dg.DagsterInstance, run: dg.DagsterRun, reason: str) -> str:
    """Fail an active run, or call it canceled where it was being canceled, and free its pools; return what was done, as a line."""
    allow_retries(instance, run)
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, message=f"Canceled: {reason}.")
    else:
        instance.report_run_failed(run, message=f"Failed: {reason}.")
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return f"{name_run(run)} is {'canceled' if run.status == dg.DagsterRunStatus.CANCELING else 'failed'}: {reason}"


def allow_retries(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Let the daemon start a run again that fails through no fault of its own, where a schedule or a sensor asked for it."""
    if any(tag in run.tags for tag in AUTOMATIC_TAGS):
        instance.add_run_tags(run.run_id, RETRIES)


def find_run(instance: dg.DagsterInstance, begin: str) -> dg.DagsterRun:
    """Return the unfinished run whose id begins with the given characters.

    Raises
    ------
    RunError
        If none or more than one does.
    """
    found = [
        run for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED, *ACTIVE])) if run.run_id.startswith(begin)
    ]
    if len(found) != 1:
        amount = f"{len(found)} unfinished runs begin" if found else "no unfinished run begins"
        raise RunError(f"{amount} with {begin!r}: see `finrisk runs` for the ids")
    return found[0]


def clear_by_hand(instance: dg.DagsterInstance, begin: str) -> str:
    """Clear the unfinished run whose id begins with the given characters; return what was done, as a line.

    Raises
    ------
    RunError
        If no run or more than one begins so, or its worker lives: that one is to be stopped, not cleared.
    """
    run = find_run(instance, begin)
    worker = RunWorker.of_run(run)
    if run.status == dg.DagsterRunStatus.QUEUED:
        instance.report_run_canceled(run, message="Taken out of the queue by hand.")
        return f"{name_run(run)} is taken out of the queue"
    if worker is not None and worker.is_here and not worker.has_ended:
        raise RunError(f"{name_run(run)} is alive, {worker}: stop it first, with `kill -INT {worker.pid}` or in the Dagster UI")
    return clear_run(instance, run, "it was cleared by hand")


@dataclass(frozen=True)
class RunLine:
    """An unfinished run as `finrisk runs` shows it: its id, job and state, who carries it out, and what it waits for."""

    run_id: str
    job: str
    state: str
    worker: str
    waits_for: str


def list_runs(instance: dg.DagsterInstance, holder: str | None, now: float | None = None) -> list[RunLine]:
    """Return the unfinished runs, the oldest first.

    Parameters
    ----------
    holder
        Name of the process or run that holds the warehouse; None where nobody does.
    now
        Seconds since 1970; the present by default.
    """
    records = instance.get_run_records(dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED, *ACTIVE]), ascending=True)
    active = [record.dagster_run for record in records if record.dagster_run.status in ACTIVE]
    lines = []
    for record in records:
        run = record.dagster_run
        worker = RunWorker.of_run(run)
        if run.status == dg.DagsterRunStatus.QUEUED:
            waits_for = _pool_holders(run, active) or "the daemon: `finrisk dev` starts it"
        else:
            death = explain_death(instance, record, time.time() if now is None else now)
            is_waiting = worker is not None and holder is not None and name_run(run) not in holder
            waits_for = f"nothing, it is dead: {death}" if death else f"the warehouse, held by {holder}" if is_waiting else "–"
        lines.append(RunLine(run.run_id[:8], run.job_name, run.status.value.lower(), str(worker) if worker else "–", waits_for))
    return lines


def name_run(run: dg.DagsterRun) -> str:
    """Return a run's name for a reader: ``run 1a2b3c4d of daily``."""
    return f"run {run.run_id[:8]} of {run.job_name}"


def _pool_holders(run: dg.DagsterRun, active: Sequence[dg.DagsterRun]) -> str:
    """Return the pools of a queued run that active runs hold, and those runs, as text."""
    wanted = _pools(run)
    held = {name_run(other): sorted(wanted & _pools(other)) for other in active}
    return "; ".join(f"the pool {' and '.join(pools)}, held by {name}" for name, pools in held.items() if pools)


def _pools(run: dg.DagsterRun) -> set[str]:
    return set(run.run_op_concurrency.all_pools or ()) if run.run_op_concurrency else set()
