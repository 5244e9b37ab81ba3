"""A validation pack as two pages to read: the model card and the pack itself, each one file without scripts or anything from elsewhere.

Only showing belongs here; what is shown is in `pack`. The templates are in ``pages/``. The same pack gives the same bytes.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from finrisk_assets.modelling.packs.pack import CARD_PAGE, GROUPS, PACK_PAGE, Pack, PackFigure

TEMPLATES = Path(__file__).with_name("pages")

HEADLINES = (
    "auc", "auc_beside_champion", "calibration_in_the_large", "expected_calibration_error", "gain", "gain_beside_champion",
    "average_precision", "interval_coverage", "share_anomalous", "emp", "explanation_gap",
)  # fmt: skip
"""The figures on top of both pages, those of them that there are."""
MOST_HEADLINES = 6


def pages(pack: Pack, pictures: Mapping[str, bytes]) -> dict[str, str]:
    """Both pages by file name.

    Parameters
    ----------
    pictures
        Artifact's name -> PNG bytes, of every picture of the pack.
    """
    encoded = {name: base64.b64encode(png).decode() for name, png in pictures.items()}
    shared: dict[str, Any] = {
        "pack": pack,
        "groups": GROUPS,
        "headlines": headlines(pack),
        "pictures": encoded,
        "candidates": candidates(pack),
    }
    return {name: _environment().get_template(f"{name}.j2").render(shared) for name in (CARD_PAGE, PACK_PAGE)}


def headlines(pack: Pack) -> list[PackFigure]:
    """The figures that come first."""
    found = [pack.by_key.get(f"evaluation/{metric}") for metric in HEADLINES]
    return [figure for figure in found if figure is not None][:MOST_HEADLINES]


def candidates(pack: Pack) -> dict[str, list[PackFigure]]:
    """The candidates' figures by candidate, in the order of their ranks."""
    found: dict[str, list[PackFigure]] = {}
    for figure in pack.of("candidates"):
        found.setdefault(figure.label, []).append(figure)
    return found


def sections(text: str) -> dict[str, str]:
    """The sections of a README, heading to Markdown.

    A section begins at a heading (``## Limits``) or at a paragraph that begins with a bold sentence (``**Limits.**``), and ends where
    the next one begins. What stands in brackets after a heading is left out of it.
    """
    found: dict[str, list[str]] = {}
    at = ""
    fresh = True  # whether a paragraph may begin here
    for line in text.splitlines():
        heading = re.match(r"##+ (.+)$", line) or (re.match(r"\*\*([^*]+)\*\*[.,]? ?(.*)$", line) if fresh else None)
        if line.startswith("# "):
            at = ""
        elif heading:
            at = re.sub(r" *\(.*\)", "", heading[1]).strip().rstrip(".")
            found.setdefault(at, []).extend(heading.groups()[1:])
        elif at:
            found[at].append(line)
        fresh = not line.strip()
    return {name: "\n".join(lines).strip() for name, lines in found.items()}


def pick(found: Mapping[str, str], *names: str) -> str:
    """The first section of these names that there is; empty where there is none."""
    return next((found[name] for name in names if name in found), "")


def figures_table(figures: Sequence[PackFigure]) -> str:
    """Figures as a Markdown table, for where no page is at hand."""
    lines = ["| figure | value | 95 % interval | from |", "|---|---:|---|---|"]
    for one in figures:
        interval = f"{one.shown('low')} to {one.shown('high')}" if one.low is not None else ""
        lines.append(f"| {one.label} | {one.shown('value')} | {interval} | {one.artifact} |")
    return "\n".join(lines)


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    # What people wrote in Markdown is text: HTML in it is shown, not obeyed.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["markdown"] = lambda text: Markup(markdown.render(text))
    environment.filters["full"] = lambda value: "" if value is None else repr(value)
    return environment
