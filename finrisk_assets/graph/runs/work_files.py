"""Files at which a process works, named by it: what a killed process left is removed by the next one at the same file."""

import glob
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from finrisk_assets.graph.runs.workers import RunWorker

KEEP_UNCHANGED_S = 86_400
"""Seconds without a change after which a file of another machine is removed, whose processes cannot be seen from here."""


@contextmanager
def open_work_file(file: Path) -> Iterator[Path]:
    """Yield the path beside a file at which this process writes it anew; at the end of the block it replaces the file, whole.

    What dead processes left of the same work is removed first: their files, and those that they named after them.

    Parameters
    ----------
    file
        Its folder is created where it does not exist.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    pattern = re.compile(rf"\.+{re.escape(file.stem)}\.(.+)\.(\d+)\.(\d+)\.part\..+")
    for left, named in ((path, pattern.fullmatch(path.name)) for path in file.parent.iterdir()):
        if named is not None:
            worker = RunWorker(named[1], int(named[2]), float(named[3]))
            with suppress(FileNotFoundError):  # its process has just ended
                if worker.has_ended or (not worker.is_here and left.stat().st_mtime < time.time() - KEEP_UNCHANGED_S):
                    left.unlink()
    process = RunWorker.this_process()
    # Readers go by the ending.
    part = file.with_name(f".{file.stem}.{process.host}.{process.pid}.{process.started:.0f}.part{file.suffix}")
    try:
        yield part
        part.replace(file)
    finally:
        # The file itself is there also where both are links to one file: neither replaces the other.
        for left in file.parent.glob(f"*{glob.escape(part.name)}*"):
            left.unlink(missing_ok=True)
