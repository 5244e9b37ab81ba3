"""Tests of docs/sources.md: its table has every source."""

import re
from pathlib import Path

from finrisk_assets.ledger.sources import SOURCES

PAGE = (Path(__file__).parents[2] / "docs" / "sources.md").read_text(encoding="utf-8")


def test_the_table_has_every_source() -> None:
    table = PAGE.split("|---|", maxsplit=1)[1].split("\n\n", maxsplit=1)[0]
    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == list(SOURCES)
