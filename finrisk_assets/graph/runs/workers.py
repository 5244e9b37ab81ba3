"""The worker of a run: the process that carries the run out, recorded in a tag of the run, so that others can tell whether it lives.

A process is named by its host, its number and the time of its start: after a crash the number may belong to another process.
"""

import json
import os
import signal
import socket
from dataclasses import asdict, dataclass

import dagster as dg
import psutil  # type: ignore[import-untyped]

WORKER_TAG = "finrisk/worker"

START_TOLERANCE_S = 2.0
"""Seconds by which two readings of a process's start may differ: the system's clock is set while processes run."""


@dataclass(frozen=True)
class RunWorker:
    """A process that carries out a run.

    Attributes
    ----------
    host, pid
        Name of its machine, and its number there.
    started
        Time of its start, seconds since 1970.
    """

    host: str
    pid: int
    started: float

    @classmethod
    def this_process(cls) -> "RunWorker":
        """Return the record of the calling process."""
        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time())

    @classmethod
    def of_run(cls, run: dg.DagsterRun) -> "RunWorker | None":
        """Return the recorded worker of a run; None where no process has taken the run yet."""
        return cls.read(run.tags.get(WORKER_TAG, ""))

    @classmethod
    def read(cls, text: str) -> "RunWorker | None":
        """Return the worker that a text of `write` names; None for any other text."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError):
            return None

    def write(self) -> str:
        """Return the worker as text, for a tag or a file."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_here(self) -> bool:
        """Whether the worker's machine is this one: only then can anyone tell whether it lives."""
        return self.host == socket.gethostname()

    @property
    def has_ended(self) -> bool:
        """Whether the process is known to have ended. A process of another machine is not known to have."""
        return self.is_here and self._process() is None

    def interrupt(self) -> bool:
        """Send the worker SIGINT; return False where it has ended or runs on another machine."""
        process = self._process() if self.is_here else None
        if process is None:
            return False
        process.send_signal(signal.SIGINT)
        return True

    def _process(self) -> "psutil.Process | None":
        """Return the live process with this number and this start."""
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.started) <= START_TOLERANCE_S
            # A zombie does nothing any more: it waits for a parent that asks for its exit status.
            return process if is_same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


def take_run(instance: dg.DagsterInstance, run_id: str) -> None:
    """Record the calling process as the worker of a run."""
    instance.add_run_tags(run_id, {WORKER_TAG: RunWorker.this_process().write()})
