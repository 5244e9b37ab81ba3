"""The layout of a text file that nothing is known of: encoding, delimiter, preamble and header."""

import codecs
import io
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from finrisk_assets.ledger.intake.cell_formats import is_value
from finrisk_assets.ledger.landing import LandingError, split_records

SAMPLE_BYTES = 4 << 20
"""Bytes at the beginning of a file that are looked at, and at its end, where later rows may be of another kind."""
SAMPLE_ROWS = 10_000
"""Rows that are looked at, of the beginning and of the end."""

_NO_TEXT = re.compile("[\x00-\x08\x0e-\x1f\x7f\ufffd]")
_HEAD = 10_000
"""Characters in which a file that is no text is seen by its control characters."""
_DELIMITERS = ("\t", ";", "|", ",", " ")
"""The delimiters that are tried; of two that fit equally the earlier is taken, because a comma also stands in numbers."""
_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True)
class TextLayout:
    """The layout of a text file and its first rows.

    Attributes
    ----------
    encoding, delimiter
        As `landing.Csv` has them.
    is_encoding_sure
        Whether the bytes are of no other encoding: UTF-8 and UTF-16 check themselves, code pages do not.
    skip
        Lines before the header.
    header
        Names of the columns; where the file has no header line, `column_1` and so on.
    has_header
        Whether the file has a header line.
    rows
        The first rows, each as wide as the header.
    """

    encoding: str
    is_encoding_sure: bool
    delimiter: str
    skip: int
    header: tuple[str, ...]
    has_header: bool
    rows: tuple[tuple[str, ...], ...]


def find_layout(path: Path) -> TextLayout:
    """Find the layout of a text file by its first `SAMPLE_BYTES`.

    Raises
    ------
    LandingError
        If the file cannot be read, or holds no table.
    """
    try:
        with path.open("rb") as file:
            data = file.read(SAMPLE_BYTES)
            size = file.seek(0, os.SEEK_END)
            is_whole = size <= SAMPLE_BYTES
            file.seek(max(SAMPLE_BYTES, size - SAMPLE_BYTES))
            end = file.read()
    except OSError as error:
        raise LandingError(f"{path} cannot be read: {error.strerror or error}; check the path") from None
    if not data.strip():
        raise LandingError(f"{path} is empty; was the export cut short?")
    encoding, is_sure = _find_encoding(data, is_whole=is_whole)
    text = data.decode(encoding, "replace").lstrip("\ufeff")
    if len(_NO_TEXT.findall(text[:_HEAD])) > 0.01 * len(text[:_HEAD]):
        raise LandingError(f"{path} is no text; export it as a CSV, or say its format by the ending of its name")
    lines = _split_lines(text)
    if not is_whole:
        del lines[-1]
    first = lines[0].strip().strip('"')
    stated = first[4] if first.lower().startswith("sep=") and len(first) == 5 else None
    delimiter = stated or max(_DELIMITERS, key=lambda mark: _fit(lines, mark))
    records = _records(lines, delimiter)
    width = _usual_width(records)
    wide = [place for place, (_, values) in enumerate(records) if len(values) == width]
    if width < 2 and len(records) < 2:
        raise LandingError(f"{path} holds no table: no two lines have the same number of values")
    # Lines above a table leave values blank that its header and its rows have.
    filled = median(_count_filled(records[place][1]) for place in wide[:100])
    start = next(place for place in wide if _count_filled(records[place][1]) >= filled - _is_index_header(records[place][1]))
    line, values = records[start]
    has_header = not any(is_value(value) for value in values) and any(value.strip() for value in values)
    header = tuple(values) if has_header else tuple(f"column_{number}" for number in range(1, width + 1))
    last = [] if encoding.startswith("utf-16") else _records(_split_lines(end.decode(encoding, "replace"))[1:], delimiter)
    rows = [
        tuple(values[:width]) for _, values in (*records[start + has_header :], *last) if len(values) == width or values[width:] == [""]
    ]
    if not rows:
        raise LandingError(f"{path} has a header but no rows; was the export cut short?")
    step = len(rows) // (2 * SAMPLE_ROWS) + 1
    return TextLayout(encoding, is_sure, delimiter, line, header, has_header, tuple(rows[::step]))


def _find_encoding(data: bytes, *, is_whole: bool) -> tuple[str, bool]:
    """Return the encoding of a file and whether it is sure."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return encoding, True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data, final=is_whole)
        return "utf-8", True
    except UnicodeDecodeError:
        pass
    from charset_normalizer import from_bytes

    best = from_bytes(
        data[: 256 << 10], cp_isolation=["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1257", "utf_16_le", "utf_16_be"]
    ).best()
    if best is None or data.decode(best.encoding, "replace") == data.decode("cp1252", "replace"):
        return "cp1252", False  # the code pages share ä, ö and ü
    return best.encoding, False


def _records(lines: Sequence[str], delimiter: str) -> list[tuple[int, list[str]]]:
    """Return the intact records of a text, each with the number of lines before it."""
    records = split_records(iter([(line, False) for line in lines]), '"', delimiter)
    return [(record.first_line, record.values) for record in records if not record.defects and any(v.strip() for v in record.values)]


def _split_lines(text: str) -> list[str]:
    """Return lines with their ends. Only line ends of files part them: `str.splitlines` knows more."""
    return io.StringIO(text, newline="").readlines()


def _usual_width(records: Sequence[tuple[int, list[str]]]) -> int:
    """Return the number of values that most records have."""
    widths = Counter(len(values) for _, values in records)
    # Lines above a table are many and narrow, a table of few rows is wide.
    return max(widths, key=lambda width: (widths[width] * width * (width > 1), width))


def _is_index_header(values: Sequence[str]) -> bool:
    """Return whether a record names every column but the first, as programs write the number of each row."""
    return not values[0].strip() and all(value.strip() and not is_value(value) for value in values[1:])


def _count_filled(values: Sequence[str]) -> int:
    return sum(bool(value.strip()) for value in values)


def _fit(lines: Sequence[str], delimiter: str) -> tuple[float, int]:
    """Return how well a delimiter parts the first lines: the share of records of the usual width, and that width."""
    records = _records(lines[:200], delimiter)
    if not records:
        return 0.0, 0
    width = _usual_width(records)
    if width == 1:
        return 0.0, 1
    share = sum(len(values) == width for _, values in records) / len(records)
    return round(share, 1), width
