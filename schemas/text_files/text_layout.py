"""The layout of a text file that nothing is known of: encoding, delimiter, preamble and header."""

import codecs
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from schemas.text_files.cell_formats import is_value
from schemas.text_files.text_records import TextRecord, fit_values, split_records

SAMPLE_ROWS = 10_000
"""Rows that are looked at, of the beginning and of the end."""

_NO_TEXT = re.compile("[\x00-\x08\x0e-\x1f\x7f\ufffd]")
_HEAD = 10_000
"""Characters in which a file that is no text is seen by its control characters."""
_DELIMITERS = ("\t", ";", "|", ",", " ")
"""The delimiters that are tried; of two that fit equally the earlier is taken, because a comma also stands in numbers."""
_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_CODE_PAGES = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1257", "utf_16_le", "utf_16_be"]


class LayoutError(ValueError):
    """An error for a file that is no table of text; its message follows the name of the file and says what to do."""


@dataclass(frozen=True)
class TextLayout:
    """The layout of a text file and its first rows.

    Attributes
    ----------
    encoding, delimiter
        Python's name of the encoding, and one character.
    is_encoding_sure
        Whether the bytes are of no other encoding: UTF-8 and UTF-16 check themselves, code pages do not.
    skip
        Lines before the header.
    header
        Names of the columns; where the file has no header line, `column_1` and so on.
    n_header_lines
        Lines of the header; 0 where the file has none.
    rows
        Rows of the beginning and of the end, each as wide as the header.
    """

    encoding: str
    is_encoding_sure: bool
    delimiter: str
    skip: int
    header: tuple[str, ...]
    n_header_lines: int
    rows: tuple[tuple[str, ...], ...]

    @property
    def has_header(self) -> bool:
        """Whether the file has a header line."""
        return self.n_header_lines > 0


def find_layout(data: bytes, end: bytes = b"") -> TextLayout:
    """Find the layout of a text file.

    Parameters
    ----------
    data
        The file, or its beginning.
    end
        The end of a file of which `data` is the beginning alone; later rows may be of another kind.

    Raises
    ------
    LayoutError
        If the file holds no table.
    """
    encoding, is_sure = find_encoding(data, is_whole=not end)
    text = data.decode(encoding, "replace").lstrip("\ufeff")
    if not text.strip():
        raise LayoutError("is empty; was the export cut short?")
    if len(_NO_TEXT.findall(text[:_HEAD])) > 0.01 * len(text[:_HEAD]):
        raise LayoutError("is no text; export it as a CSV")
    if re.match(r"\s*!(Type|Account|Option):", text, re.IGNORECASE):
        raise LayoutError("is a QIF file, which does not say how it writes days and amounts; export it as CSV or OFX")
    lines = _split_lines(text)
    if end:
        del lines[-1]
    first = lines[0].strip().strip('"')
    stated = first[4] if first.lower().startswith("sep=") and len(first) == 5 else None
    delimiter = stated or max(_DELIMITERS, key=lambda mark: _fit(lines, mark))
    records = _intact_records(lines, delimiter)
    if not records:
        raise LayoutError("holds no value; was the export cut short?")
    width = _usual_width(records)
    wide = [place for place, record in enumerate(records) if len(record.values) == width]
    if wide[0] and len(records[wide[0] - 1].values) == width - 1 > 1 and all(records[place].values[-1] == "" for place in wide):
        width, wide = width - 1, [wide[0] - 1, *wide]  # every row ends with a mark, the header does not
    if width < 2 and len(records) < 2:
        raise LayoutError("has no columns: no two lines have the same number of values; export it as a CSV")
    # Lines above a table leave values blank that its header and its rows have.
    filled = median(_count_filled(records[place].values) for place in wide[:100])
    start = next(place for place in wide if _is_filled(records[place].values, filled))
    top = records[start]
    has_header = not any(map(is_value, top.values)) and any(value.strip() for value in top.values)
    header = tuple(top.values) if has_header else tuple(f"column_{number}" for number in range(1, width + 1))
    last = [] if encoding.startswith("utf-16") else _intact_records(_split_lines(end.decode(encoding, "replace"))[1:], delimiter)
    rows = [tuple(values) for record in (*records[start + has_header :], *last) if (values := fit_values(record.values, header))]
    if not rows:
        raise LayoutError("has a header but no rows; was the export cut short?")
    step = len(rows) // (2 * SAMPLE_ROWS) + 1
    return TextLayout(encoding, is_sure, delimiter, top.first_line, header, has_header * top.n_lines, tuple(rows[::step]))


def find_encoding(data: bytes, *, is_whole: bool = True) -> tuple[str, bool]:
    """Return the encoding of a text, or of its beginning, and whether it is sure."""
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return encoding, True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(data, final=is_whole)
        return "utf-8", True
    except UnicodeDecodeError:
        pass
    from charset_normalizer import from_bytes

    best = from_bytes(data[: 256 << 10], cp_isolation=_CODE_PAGES).best()
    if best is None or data.decode(best.encoding, "replace") == data.decode("cp1252", "replace"):
        return "cp1252", False  # the code pages share ä, ö and ü
    return best.encoding, False


def read_rows(data: bytes, layout: TextLayout) -> Iterator[tuple[int, list[str] | None]]:
    """Yield each row of a whole file with the number of its line, from 1; None for the values of a row that landing would refuse."""
    lines = _split_lines(data.decode(layout.encoding, "replace").lstrip("\ufeff"))
    marked = ((line, "\ufffd" in line) for line in lines)
    for record in split_records(marked, '"', layout.delimiter):
        if record.first_line >= layout.skip + layout.n_header_lines:
            yield record.first_line + 1, None if record.defects else fit_values(record.values, layout.header)


def _intact_records(lines: Sequence[str], delimiter: str) -> list[TextRecord]:
    """Return the intact records of lines that have a value."""
    records = split_records(iter([(line, False) for line in lines]), '"', delimiter)
    return [record for record in records if not record.defects and _count_filled(record.values)]


def _split_lines(text: str) -> list[str]:
    """Return lines with their ends. Only line ends of files part them: `str.splitlines` knows more."""
    return io.StringIO(text, newline="").readlines()


def _usual_width(records: Sequence[TextRecord]) -> int:
    """Return the number of values that most records have."""
    widths = Counter(len(record.values) for record in records)
    # Lines above a table are many and narrow, a table of few rows is wide.
    return max(widths, key=lambda width: (widths[width] * width * (width > 1), width))


def _is_index_header(values: Sequence[str]) -> bool:
    """Return whether a record names every column but the first, as programs write the number of each row."""
    return not values[0].strip() and all(value.strip() and not is_value(value) for value in values[1:])


def _is_filled(values: Sequence[str], filled: float) -> bool:
    """Return whether a record leaves no more values blank than the others, or the header one more."""
    return _count_filled(values) >= filled - _is_index_header(values)


def _count_filled(values: Sequence[str]) -> int:
    return sum(bool(value.strip()) for value in values)


def _fit(lines: Sequence[str], delimiter: str) -> tuple[float, int]:
    """Return how well a delimiter parts the first lines: the share of records of the usual width, and that width."""
    records = _intact_records(lines[:200], delimiter)
    if not records:
        return 0.0, 0
    width = _usual_width(records)
    if width == 1 or (delimiter == " " and len(records) == 1):
        return 0.0, 1
    share = sum(len(record.values) == width for record in records) / len(records)
    return round(share, 1), width
