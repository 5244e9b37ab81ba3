"""Unpacked copies of gzip files, for code that reads files."""

import gzip
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from finrisk_assets.ledger.landing import LandingError
from finrisk_assets.private_files import make_private_folder

GZIP = ".gz"


@contextmanager
def unpack_files(files: Sequence[Path], folder: Path) -> Iterator[list[Path]]:
    """Yield the files with an unpacked copy in the place of each that ends in `GZIP`, for as long as the block lasts.

    An error of the block that names a copy names its file instead.

    Parameters
    ----------
    folder
        Where the copies are made, as large as their content; created where it does not exist.

    Raises
    ------
    LandingError
        If a file is no gzip, is cut short or damaged, or cannot be read.
    """
    if not any(_is_packed(file) for file in files):
        yield list(files)
        return
    make_private_folder(folder)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".unpacked-") as scratch:
        copies = [_unpack(file, Path(scratch) / str(number)) if _is_packed(file) else file for number, file in enumerate(files)]
        try:
            yield copies
        except ValueError as error:
            message = str(error)
            for file, copy in zip(files, copies, strict=True):
                message = message.replace(str(copy), str(file))
            error.args = (message,)
            raise


def _is_packed(file: Path) -> bool:
    return file.suffix.lower() == GZIP


def _unpack(file: Path, folder: Path) -> Path:
    """Return the unpacked copy of a file in a new folder."""
    folder.mkdir()
    copy = folder / file.stem
    try:
        with gzip.open(file) as packed, copy.open("wb") as out:
            shutil.copyfileobj(packed, out, 1 << 20)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise LandingError(f"{file} is no whole gzip file: it is cut short or damaged; copy or export it again") from None
    except FileNotFoundError:
        raise LandingError(f"there is no file {file}; check the path, or the folder that FINRISK_DATA_DIR names") from None
    except OSError as error:
        raise LandingError(f"{file} cannot be read: {error.strerror or error}; check that it is a file and may be read") from None
    return copy
