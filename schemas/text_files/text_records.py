"""The records of a delimited text, for landing and for a file that is not described yet."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

BROKEN_ENCODING = "broken encoding"
MALFORMED_ROW = "malformed row"

_MAX_LINES = 100
"""Lines that one quoted value may span. A quote that is still open after them counts as a plain character."""


@dataclass(frozen=True)
class TextRecord:
    """A record of a file: its values, its defects, its text, the number of lines before it, and how many lines it spans."""

    values: list[str]
    defects: list[str]
    line: str
    first_line: int
    n_lines: int


def split_records(source: Iterator[tuple[str, bool]], quote: str, delimiter: str, position: int = 0) -> Iterator[TextRecord]:
    """Yield each record of lines; leave blank lines out.

    A record may span lines inside quotes. Where a quote is never closed, only its line is malformed.

    Parameters
    ----------
    source
        Lines with their ends, and whether each holds bytes that are not of the encoding.
    quote, delimiter
        One character each; with an empty `quote`, quotes are plain characters.
    position
        The number of lines before the first.
    """
    waiting: list[tuple[str, bool]] = []
    while True:
        if not waiting:
            line = next(source, None)
            if line is None:
                return
            waiting.append(line)
        if not waiting[0][0].strip("\r\n"):
            waiting.pop(0)
            position += 1
            continue
        taken, values = 1, _parse(waiting[0][0], quote, delimiter)
        if values is None and quote and quote in waiting[0][0]:
            for taken in range(2, _MAX_LINES + 1):
                if len(waiting) < taken:
                    line = next(source, None)
                    if line is None:
                        break
                    waiting.append(line)
                values = _parse("".join(text for text, _ in waiting[:taken]), quote, delimiter)
                if values is not None:
                    break
            if values is None:
                taken = 1
        text = "".join(line for line, _ in waiting[:taken]).rstrip("\r\n")
        defects = [MALFORMED_ROW] if values is None else []
        if any(broken for _, broken in waiting[:taken]):
            defects.append(BROKEN_ENCODING)
        del waiting[:taken]
        yield TextRecord(values or [], defects, text, position, taken)
        position += taken


def _parse(text: str, quote: str, delimiter: str) -> list[str] | None:
    """Split one record into its values; None where a quote is not closed."""
    text = text.rstrip("\r\n")
    if not quote or quote not in text:
        return text.split(delimiter)
    try:
        return next(csv.reader([text], delimiter=delimiter, quotechar=quote, strict=True))
    except (csv.Error, StopIteration):
        return None


def fit_values(values: list[str], header: Sequence[str]) -> list[str] | None:
    """Return the values of a record as many as the header has names; None where they are not.

    One empty value too many, and one too few under a last column without a name, are a mark at the line's end.
    """
    surplus = len(values) - len(header)
    if surplus == 1 and values[-1] == "":
        return values[:-1]
    if surplus == -1 and not header[-1].strip():
        return [*values, ""]
    return None if surplus else values
