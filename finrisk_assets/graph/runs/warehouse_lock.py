"""The lock beside a DuckDB warehouse: one process at a time works in it, and whoever comes second waits and says for whom.

DuckDB itself lets one process open a file and refuses the others at once. The lock is a file beside the warehouse that the operating
system frees when its holder ends, however it ends; a second file names the holder. Other warehouses serve several processes and have none.
"""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from finrisk_assets.engines.warehouse_url import file_of
from finrisk_assets.graph.runs.workers import RunWorker

POLL_S = 0.5
"""Seconds between two tries to get the lock."""

_logger = logging.getLogger("finrisk.warehouse")
_held: dict[Path, FileLock] = {}
"""The locks of this process, which are its own until it ends: an open DuckDB file cannot be shared."""


class WarehouseBusyError(RuntimeError):
    """A warehouse that another process held for the whole time that was waited."""


def read_holder(url: str) -> str | None:
    """Return the name of the process or run that holds a warehouse; None where nobody does."""
    file = file_of(url)
    if file is None or not _lock_file(file).exists():
        return None
    if file not in _held:
        try:
            with FileLock(_lock_file(file)).acquire(timeout=0):
                return None
        except Timeout:
            pass
    with contextlib.suppress(OSError):
        return _holder_file(file).read_text(encoding="utf-8") or None
    return "a process that has not named itself yet"


def acquire(url: str, wait_minutes: float, name: str = "", check: Callable[[], None] = lambda: None) -> None:
    """Hold the lock of a warehouse until this process ends, and log for whom it waits.

    See `waiting_lines` for the parameters.
    """
    for line in waiting_lines(url, wait_minutes, name, check):
        _logger.warning(line)


def waiting_lines(url: str, wait_minutes: float, name: str = "", check: Callable[[], None] = lambda: None) -> Iterator[str]:
    """Hold the lock of a warehouse until this process ends; yield a line for each holder that has to be waited for.

    Parameters
    ----------
    wait_minutes
        How long to wait, minutes.
    name
        Of the holder, as others will read it; by default this process and its program. A process that holds the lock takes the name.
    check
        Called between two tries; what it raises ends the waiting.

    Raises
    ------
    WarehouseBusyError
        If the lock is not free in time.
    """
    file = file_of(url)
    if file is None:
        return
    if file not in _held:
        file.parent.mkdir(parents=True, exist_ok=True)
        lock, deadline, told = FileLock(_lock_file(file), thread_local=False), time.monotonic() + wait_minutes * 60, None
        while not _try(lock):
            check()
            holder = read_holder(url) or told
            if holder and holder != told:
                yield f"waiting for the warehouse, which is in use by {holder}"
                told = holder
            if time.monotonic() >= deadline:
                raise WarehouseBusyError(busy_message(file, told, wait_minutes))
            time.sleep(POLL_S)
        _held[file] = lock
    elif not name:
        return
    name_holder(url, name)


def name_holder(url: str, name: str = "") -> None:
    """Write the name under which this process holds the lock of a warehouse; by default that of its program."""
    file = file_of(url)
    if file not in _held or file is None:
        return
    program = Path(sys.argv[0]).name
    command = " ".join(("finrisk", *sys.argv[1:2])) if program in ("main.py", "finrisk") else program
    part = _holder_file(file).with_suffix(f".{os.getpid()}")
    part.write_text(f"{name or command}, {RunWorker.this_process()}", encoding="utf-8")
    part.replace(_holder_file(file))


def busy_message(file: Path, holder: str | None, wait_minutes: float) -> str:
    """Return the error text about a warehouse that stayed busy."""
    return (
        f"the warehouse {file} is still in use by {holder or 'another process'} after {wait_minutes:g} minutes: wait for its end, "
        "set a longer FINRISK_WAREHOUSE_WAIT_MINUTES, or name a shared warehouse with FINRISK_WAREHOUSE_URL=postgres://…"
    )


def _try(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True


def _lock_file(file: Path) -> Path:
    return file.with_name(f"{file.name}.lock")


def _holder_file(file: Path) -> Path:
    # Not the lock file: whoever tries to lock that one empties it.
    return file.with_name(f"{file.name}.holder")
