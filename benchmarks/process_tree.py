"""Processor time and memory of a process with all the processes that it starts."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

SAMPLE_S = 0.25
"""Seconds between two looks at the memory: a shorter peak can be missed."""


@dataclass
class Usage:
    """Time, processor and memory that a block used.

    Attributes
    ----------
    wall_s, cpu_s
        Seconds; the latter of this process and all below it.
    python_s
        Seconds of the processor of those processes that run Python.
    peak_mib
        Largest memory of all these processes in MiB; what several share is counted once (PSS).
    own_mib
        Peak resident memory of this process alone, since it began, in MiB.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    python_s: float = 0.0
    peak_mib: float = 0.0
    own_mib: float = 0.0


@contextmanager
def measure_tree() -> Iterator[Usage]:
    """Measure a block in this process and in those that it starts; the figures are there when the block has ended."""
    usage, has_ended = Usage(), threading.Event()

    def sample() -> None:
        while not has_ended.wait(SAMPLE_S):
            usage.peak_mib = max(usage.peak_mib, read_memory_mib())

    sampling = threading.Thread(target=sample, daemon=True)
    sampling.start()
    began, (cpu, python) = time.perf_counter(), read_cpu_s()
    try:
        yield usage
    finally:
        usage.wall_s, (cpu_now, python_now) = time.perf_counter() - began, read_cpu_s()
        usage.cpu_s, usage.python_s = cpu_now - cpu, python_now - python
        usage.peak_mib = max(usage.peak_mib, read_memory_mib())
        usage.own_mib = read_peak_mib()
        has_ended.set()
        sampling.join()


def read_cpu_s() -> tuple[float, float]:
    """Return the seconds of the processor of this process and all below it, ended ones included, and those of Python alone."""
    total, python = 0.0, 0.0
    for process in _list_processes():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            used = times.user + times.system + times.children_user + times.children_system
            total += used
            python += used if process.name().startswith("python") else 0.0
    return total, python


def read_memory_mib() -> float:
    """Return the memory of this process and all below it in MiB, each page shared out among those that have it."""
    total = 0
    for process in _list_processes():
        with suppress(OSError):
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
            total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total / 1024


def read_peak_mib() -> float:
    """Return the peak resident memory of this process in MiB; not `ru_maxrss`, which a child takes over from its parent."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def _list_processes() -> list[psutil.Process]:
    this = psutil.Process()
    return [this, *this.children(recursive=True)]
