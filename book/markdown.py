"""Markdown of the pages that are written from the code."""

import re
from collections.abc import Iterable

_HEAD = "Written by `python -m book.reference`; never edited by hand."


def format_cell(text: object) -> str:
    """Return a text as the cell of a table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def format_table(headings: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    """Return the lines of a table, with an empty line before and after; no lines without rows."""
    headings = list(headings)
    lines = [f"| {' | '.join(format_cell(cell) for cell in row)} |" for row in rows]
    return ["", f"| {' | '.join(headings)} |", "|" + "---|" * len(headings), *lines, ""] if lines else []


def format_page(title: str, *parts: str) -> str:
    """Return a page of lines below a title, with one empty line where there were more."""
    text = "\n".join([f"# {title}", "", _HEAD, *parts])
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
