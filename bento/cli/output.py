"""Output of the commands: tables that read at 80 columns and in a pipe, and the same facts as JSON."""

import json
import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import click

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the same as JSON, for programs.")
"""The option of every command that prints facts."""

EMPTY = "–"
"""The cell of a table where there is nothing to show."""

_NUMBER = re.compile(r"[+−-]?[\d,]*\.?\d+( ?%)?")
_GAP = "  "


def print_json(value: Any) -> None:
    """Print a value as JSON; a type that JSON lacks is printed as its text."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", width: int | None = None) -> None:
    """Print rows as a table where it fits the width, else each row as lines of heading and value, so that no cell is cut.

    Parameters
    ----------
    headings, rows
        Text of the columns' headings and of the cells. A column that is empty in every row is left out.
    title
        The line above the table.
    width
        Columns of the page; by default those of the terminal, and 80 in a pipe.
    """
    click.echo("\n".join(format_table(headings, rows, title, width)))


def format_table(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str = "", width: int | None = None) -> Iterator[str]:
    """Yield the lines of `print_table`."""
    width = width or shutil.get_terminal_size().columns
    if title:
        yield title
    kept = [number for number in range(len(headings)) if not rows or any(row[number] not in ("", EMPTY) for row in rows)]
    names, cells = [headings[number] for number in kept], [[row[number] or EMPTY for number in kept] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(names, *cells, strict=True)]
    if sum(widths) + len(_GAP) * (len(widths) - 1) <= width:
        yield from _align(names, cells, widths)
        return
    for row in cells:
        yield ""
        for name, text in zip(names, row, strict=True):
            indent = " " * (max(map(len, names)) + len(_GAP))
            yield from textwrap.wrap(text, max(width, len(indent) + 20), initial_indent=name.ljust(len(indent)), subsequent_indent=indent)


def _align(names: Sequence[str], cells: Sequence[Sequence[str]], widths: Sequence[int]) -> Iterator[str]:
    """Yield aligned lines: columns of numbers to the right, others to the left."""
    columns = [[row[number] for row in cells] for number in range(len(names))]
    are_numbers = [all(text == EMPTY or _NUMBER.fullmatch(text) for text in column) and bool(column) for column in columns]
    for row in (names, *cells):
        padded = (
            text.rjust(width) if is_number else text.ljust(width) for text, width, is_number in zip(row, widths, are_numbers, strict=True)
        )
        yield _GAP.join(padded).rstrip()
