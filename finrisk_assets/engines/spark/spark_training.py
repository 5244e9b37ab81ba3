"""The fit of boosted models by the workers of a Spark: a folder of rows and a task in, a folder of models out.

All workers of a fit are needed at the same time (a barrier stage). Spark waits for a lost one without end, so the bounds are here: an
attempt that fails or makes no progress is ended, and the next one takes the workers that are left, from the last checkpoint on.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from finrisk_assets.engines.spark.spark_engine import start_session
from finrisk_assets.engines.spark.spark_url import check_spark
from finrisk_assets.engines.spark.spark_workers import BoostingTask, boost

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

TASK, ROWS = "task.json", "rows"
"""Names in the folder of a training: what to fit, and the folder of Parquet files with ``key``, ``label`` and ``features``."""
MAX_ATTEMPTS = 3
"""Attempts at a model. More outlast more losses, and repeat a failure of another kind more often."""
MIN_WORKER_ROWS = 1_000
"""Rows of a worker, below which fewer workers fit: they talk to each other after each level of a tree."""
SETTLE_S = 2.0
"""Seconds in which the number of slots must not change: workers register one after the other."""
POLL_S = 0.5
"""Seconds between two looks at the progress."""

BARRIER = {
    # A group that lost a worker ends, and the next one has the size of what is left: Spark itself would wait for the worker.
    "spark.stage.maxConsecutiveAttempts": "1",
    # The slots have just been counted: a group that does not fit is counted again.
    "spark.scheduler.barrier.maxConcurrentTasksCheck.interval": "1s",
    "spark.scheduler.barrier.maxConcurrentTasksCheck.maxFailures": "3",
}
"""Settings of the session, which go before those of the URL."""


class TrainingError(RuntimeError):
    """A training that ended without its models: the message says why."""


@dataclass(frozen=True)
class TrainingReport:
    """The cost of a training: rows, the workers of the last attempts, attempts, and seconds from its beginning."""

    rows: int
    workers: int
    attempts: int
    seconds: float


def write_task(folder: Path, url: str, models: Mapping[str, Any], wait_s: float) -> None:
    """Write what to fit into the folder of a training.

    Parameters
    ----------
    url
        Of the warehouse, whose Spark fits.
    models
        Unfitted or fitted XGBClassifiers by name, which is also the name of their file.
    wait_s
        Longest time in which nothing gets on, seconds, before an attempt is ended.
    """
    fits = {name: {"parameters": _parameters(model), "rounds": model.get_num_boosting_rounds()} for name, model in models.items()}
    (folder / TASK).write_text(json.dumps({"url": url, "wait_s": wait_s, "models": fits}))


def _parameters(model: Any) -> dict[str, Any]:
    """Return the parameters of a model that hold for every worker, as JSON has them."""
    given = {name: value for name, value in model.get_xgb_params().items() if value is not None and name not in ("n_jobs", "device")}
    # XGBoost reads a tuple of constraints, or its text, but no list.
    return {name: str(value) if isinstance(value, tuple) else value for name, value in given.items()}


def fit_models(folder: Path, log: Callable[[str], None]) -> TrainingReport:
    """Fit the models of a task; each is then a file ``<name>.ubj`` in the folder, in XGBoost's own format.

    Parameters
    ----------
    folder
        Of the training, which all workers reach under this path.
    log
        Takes a line for people.

    Raises
    ------
    TrainingError
        If there are no slots, or no attempt ended with a model.
    finrisk_assets.engines.engine.EngineError
        If Spark cannot run here.
    """
    began, task = time.monotonic(), json.loads((folder / TASK).read_text())
    session = start_session(check_spark(f"{task['url']}&{urlencode(BARRIER)}"), has_tables=False)
    try:
        training = _Training(session, folder, task["wait_s"], log)
        for name, fit in task["models"].items():
            (folder / f"{name}.ubj").write_bytes(training.fit(name, fit["parameters"], fit["rounds"]))
        return TrainingReport(training.n_rows, training.n_workers, training.n_attempts, time.monotonic() - began)
    finally:
        session.stop()


class _Training:
    """The fits of one session."""

    def __init__(self, session: "SparkSession", folder: Path, wait_s: float, log: Callable[[str], None]) -> None:
        from finrisk_assets.engines.spark.spark_backend import escape_pattern

        self.folder, self.wait_s, self.log = folder, wait_s, log
        self.context: Any = session.sparkContext
        # Each job is interrupted when it is cancelled, and when its group lost a worker.
        self.context.setJobGroup("training", "XGBoost", interruptOnCancel=True)
        # A plan that changes as it runs could change the number of partitions, which is that of the group.
        session.conf.set("spark.sql.adaptive.enabled", "false")
        # Spark would look for the columns in a job, which waits for a slot without end.
        self.rows = session.read.schema("key string, label float, features array<float>").parquet(escape_pattern(folder / ROWS))
        self.n_rows = self.n_workers = self.n_attempts = 0

    def fit(self, name: str, parameters: Mapping[str, Any], rounds: int) -> bytes:
        """Return a fitted model, in XGBoost's own format."""
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException

        checkpoint = self.folder / f"{name}.checkpoint"
        for _ in range(MAX_ATTEMPTS):
            slots = self._wait_for_slots()
            self.n_attempts += 1
            try:
                return self._attempt(slots, parameters, rounds, checkpoint)
            except (Py4JError, PySparkException) as error:
                self.log(f"{name}: an attempt on {self.n_workers} of {slots} slots ended without a model: {_first_line(error)}")
        raise TrainingError(f"{name} was not fitted in {MAX_ATTEMPTS} attempts")

    def _attempt(self, slots: int, parameters: Mapping[str, Any], rounds: int, checkpoint: Path) -> bytes:
        from xgboost.core import XGBoostError
        from xgboost.tracker import RabitTracker

        progress = self.folder / "progress"
        progress.touch()
        with self._bound(progress):
            self.n_rows = self.n_rows or self.rows.count()
            self.n_workers = max(1, min(slots, self.n_rows // MIN_WORKER_ROWS))
            host = socket.gethostbyname(self.context.getConf().get("spark.driver.host"))
            tracker = RabitTracker(self.n_workers, host, sortby="task", timeout=int(self.wait_s) + 1)
            tracker.start()
            group = {**tracker.worker_args(), "dmlc_communicator": "rabit", "dmlc_timeout": int(self.wait_s) + 1}
            begun = checkpoint.read_bytes() if checkpoint.is_file() else None
            task = BoostingTask(parameters, rounds, group, begun, checkpoint, progress)
            # The same rows on as many workers are the same parts in the same order, and the same model.
            parts = self.rows.repartition(self.n_workers, "key").sortWithinPartitions("key").select("label", "features")
            try:
                made = parts.mapInArrow(partial(boost, task), "rows bigint, model binary", barrier=True).collect()
            finally:
                with suppress(XGBoostError):  # of a group that did not end well, which Spark has told
                    tracker.free()
        return next(bytes(row.model) for row in made if row.model is not None)

    def _wait_for_slots(self) -> int:
        """Return the number of tasks that can run at the same time, as soon as it is above 0 and does not change."""
        deadline, settled, since = time.monotonic() + self.wait_s, 0, time.monotonic()
        while True:
            slots, now = self._count_slots(), time.monotonic()
            if slots != settled:
                settled, since = slots, now
            elif slots and now - since >= SETTLE_S:
                return slots
            elif now >= deadline and not slots:
                raise TrainingError(f"Spark had no free slot within {self.wait_s / 60:g} minutes")
            time.sleep(POLL_S)

    def _count_slots(self) -> int:
        spark = self.context._jsc.sc()
        # What Spark itself checks the size of a barrier stage against; PySpark has no call for it.
        return int(spark.maxNumConcurrentTasks(spark.resourceProfileManager().defaultResourceProfile()))

    @contextmanager
    def _bound(self, progress: Path) -> Iterator[None]:
        """Cancel the jobs of the block when nothing gets on for too long."""
        ended, tracker = threading.Event(), self.context.statusTracker()

        def look() -> tuple[int, ...]:
            stages = [tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds()]
            return (progress.stat().st_mtime_ns, *(stage.numCompletedTasks for stage in stages if stage is not None))

        def watch() -> None:
            seen, since = look(), time.monotonic()
            while not ended.wait(POLL_S):
                now = look()
                if now != seen:
                    seen, since = now, time.monotonic()
                elif time.monotonic() - since > self.wait_s:
                    self.context.cancelAllJobs()

        watching = threading.Thread(target=watch, name="finrisk-training-bound", daemon=True)
        watching.start()
        try:
            yield
        finally:
            ended.set()
            watching.join()


def _first_line(error: BaseException) -> str:
    """Return what Spark says of a failed job, without the traces of its workers."""
    java = getattr(error, "java_exception", None)
    text = str(error if java is None else java.getMessage()).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__
