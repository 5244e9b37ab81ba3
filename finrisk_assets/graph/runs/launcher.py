"""The run launcher of a home, named in its ``dagster.yaml``: Dagster's own, which can also tell whether a run's worker lives.

With it the daemon's run monitoring fails the runs that a crash left, at the daemon's start and from then on.
"""

import time

import dagster as dg
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus

from finrisk_assets.graph.runs import dead_runs
from finrisk_assets.graph.runs.workers import RunWorker


class MonitoredRunLauncher(DefaultRunLauncher):
    """A launcher whose runs' workers can be looked for, and stopped without the code server that started them."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether the daemon may ask for a worker's health: yes."""
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Return whether the worker of a started run lives; a worker on another machine counts as running."""
        record = self._instance.get_run_record_by_id(run.run_id)
        reason = None if record is None else dead_runs.explain_death(self._instance, record, time.time())
        if reason is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        dead_runs.allow_retries(self._instance, run)
        return CheckRunHealthResult(WorkerStatus.NOT_FOUND, reason)

    def get_run_worker_debug_info(self, run: dg.DagsterRun, include_container_logs: bool | None = True) -> None:
        """Let a run that never started be started again: Dagster asks for more to say right before it fails such a run."""
        dead_runs.allow_retries(self._instance, run)

    def terminate(self, run_id: str) -> bool:
        """Stop a run: through its code server, else by a signal to its worker; a run without a live worker is canceled at once."""
        try:
            if super().terminate(run_id):
                return True
        except DagsterUserCodeUnreachableError:
            pass
        run = self._instance.get_run_by_id(run_id)
        worker = None if run is None else RunWorker.of_run(run)
        if run is None or run.is_finished or worker is None or not worker.is_here:
            return False
        if not worker.interrupt():
            self._instance.report_run_canceled(run, message=f"Canceled: its worker, {worker}, has ended.")
        return True
