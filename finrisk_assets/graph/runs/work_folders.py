"""Folders in which a process works, named by it: what a killed process left is removed by the next one at the same work."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from finrisk_assets.graph.runs.workers import RunWorker
from finrisk_assets.private_files import make_private_folder

KEEP_UNCHANGED_S = 86_400
"""Seconds without a change after which a folder of another machine is removed, whose processes cannot be seen from here."""


@contextmanager
def open_work_folder(parent: Path, name: str) -> Iterator[Path]:
    """Yield an empty folder of this process, which goes with the block; remove those of the same name that dead processes left.

    Parameters
    ----------
    parent
        The folder in which it is made; created where it does not exist.
    name
        Of the work, without a dot.
    """
    process = RunWorker.this_process()
    for left in parent.glob(f".{name}.*.part"):
        host, pid, started = left.name.removeprefix(f".{name}.").removesuffix(".part").rsplit(".", 2)
        worker = RunWorker(host, int(pid), float(started))
        with suppress(FileNotFoundError):  # its process has just ended
            if worker.has_ended or (not worker.is_here and _last_change(left) < time.time() - KEEP_UNCHANGED_S):
                shutil.rmtree(left, ignore_errors=True)
    folder = make_private_folder(parent / f".{name}.{process.host}.{process.pid}.{process.started:.0f}.part")
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _last_change(folder: Path) -> float:
    return max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
