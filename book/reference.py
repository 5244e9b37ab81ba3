"""The reference pages that are written from the code: `python -m book.reference` writes them into `docs/reference/`.

The pages are never edited by hand; a test compares each with the code.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import click

from book.api_page import write_api
from book.command_page import write_commands
from book.metric_page import write_metrics
from book.table_pages import write_assets, write_tables

FOLDER = Path(__file__).parents[1] / "docs" / "reference"

PAGES: Mapping[str, Callable[[], str]] = {
    "commands.md": write_commands,
    "api.md": write_api,
    "tables.md": write_tables,
    "assets.md": write_assets,
    "metrics.md": write_metrics,
}
"""Name of a page in `docs/reference/` -> what writes it."""


@click.command()
def main() -> None:
    """Write the reference pages into docs/reference/."""
    FOLDER.mkdir(exist_ok=True)
    for name, write in PAGES.items():
        (FOLDER / name).write_text(write(), encoding="utf-8")
        print(f"docs/reference/{name}")


if __name__ == "__main__":
    main()
