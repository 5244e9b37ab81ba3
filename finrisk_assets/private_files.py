"""Files and folders that only their owner may read: everything that holds a person's data, and every secret."""

import os
import stat
from pathlib import Path

PRIVATE_UMASK = 0o077
"""Permission bits that no new file has: files get mode 0600, folders 0700."""
_OTHERS = stat.S_IROTH | stat.S_IWOTH | stat.S_IXOTH


def restrict_new_files() -> None:
    """Let this process and the processes that it starts create files of mode 0600 and folders of mode 0700 from now on.

    DuckDB, Parquet writers, MLflow and BentoML create files under many names, some of them later than the call that caused them: only the
    umask of the process reaches all of them.
    """
    os.umask(PRIVATE_UMASK)


def make_private_folder(folder: Path) -> Path:
    """Create a folder of mode 0700, with its parents, and return it; a folder that exists keeps its mode."""
    if not folder.is_dir():
        make_private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def close_folder(folder: Path) -> None:
    """Give a folder of this user the mode 0700, where it exists: an earlier version may have created it for everybody."""
    if folder.is_dir() and folder.stat().st_uid == os.geteuid() and folder.stat().st_mode & PRIVATE_UMASK:
        folder.chmod(0o700)


def is_open_to_others(file: Path) -> bool:
    """Return whether the modes of a file and of its folder let every user of the machine read or change the file.

    A file on a read-only file system does not count: an orchestrator mounts it there for one container, with a mode that the container
    cannot choose.

    Raises
    ------
    OSError
        If there is no such file.
    """
    is_open = file.stat().st_mode & _OTHERS and file.parent.stat().st_mode & stat.S_IXOTH
    return bool(is_open) and not os.statvfs(file).f_flag & os.ST_RDONLY
