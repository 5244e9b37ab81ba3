"""Faults of Spark's surroundings in one sentence: a damaged table, a full disk, a folder without rights, another Python on the workers.

All else, such as a missing column or a function that fails on the workers, is a fault of the program and stays as it is.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from finrisk_assets.engines.engine import SCHEMAS, EngineError

_CAUSE = re.compile(r"(?:^(?:Caused by: |: |\()?|\): )((?:[a-z]\w*\.)+[\w$]*(?:Exception|Error))(?:: |\) )([^\n]+)", re.MULTILINE)
"""A class with its message, as Java, Spark Connect and Python write them."""
_TABLE = re.compile(rf"(/[^\n]*?/({'|'.join(SCHEMAS)})/([^/\s]+))/(?:data|metadata)\b")
_DAMAGE = re.compile(
    r"Metadata file for version \d+ is missing|iceberg\.exceptions\.NotFoundException|FileNotFoundException: .* does not exist"
    r"|Json\w*Exception|MismatchedInputException|ChecksumException|is not a Parquet file|ParquetDecodingException|Not an Avro data file"
)
_ADVICE = {
    r"No space left on device|Disk quota exceeded": "make room, and run again",
    r"Permission denied|AccessControlException|AccessDeniedException|Read-only file system|ParentNotDirectoryException|Mkdirs failed": (
        "make the folder of the tables, or Spark's scratch folder, one that this user may write"
    ),
    r"PYTHON_VERSION_MISMATCH|Cannot run program": "name the Python of this environment in PYSPARK_PYTHON",
    r"CommitFailedException|CommitStateUnknownException|Table UUID does not match": (
        "run again, for another process may have changed the table at the same time"
    ),
}
"""Words of a fault -> what to do."""
LONGEST_CAUSE = 300
"""Characters of a cause, which may name a file."""


class DamagedTableError(EngineError):
    """A table whose files cannot be read."""


@contextmanager
def faults_as_engine_errors() -> Iterator[None]:
    """Raise a fault of Spark's surroundings as an `EngineError`: a use as a decorator covers a function."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith(("pyspark.", "py4j.")) or (fault := _find_fault(error)) is None:
            raise
        raise fault from None


def find_cause(error: Exception) -> str:
    """Return the first line of the innermost cause of an error of Spark."""
    causes = _CAUSE.findall(_read_trace(error))
    return (causes[-1][1] if causes else str(error).strip().partition("\n")[0])[:LONGEST_CAUSE].rstrip(" .")


def _find_fault(error: Exception) -> EngineError | None:
    trace = _read_trace(error)
    causes = [(f"{kind}: {message}", message[:LONGEST_CAUSE].rstrip(" .")) for kind, message in reversed(_CAUSE.findall(trace))]
    # First, for a file that may not be opened is said to be missing, too.
    for words, advice in _ADVICE.items():
        for cause, message in causes:
            if re.search(words, cause):
                return EngineError(f"Spark cannot go on: {message}: {advice}")
    told = next((message for cause, message in causes if _TABLE.search(cause)), None)
    table = _TABLE.search(trace)
    if told is None or table is None or not any(_DAMAGE.search(cause) for cause, _ in causes):
        return None
    folder, schema, name = table.groups()
    return DamagedTableError(
        f"the table {schema}.{name} cannot be read: {told}: run again; where that says the same, remove the folder {folder} "
        "and make the table again, with all of its months"
    )


def _read_trace(error: Exception) -> str:
    """Return the message of an error and its trace in Java, which names the causes."""
    return f"{error}\n{getattr(error, '_stackTrace', None) or getattr(error, '_stacktrace', None) or ''}"
