"""The two pages of a validation pack: the model card and the pack itself, each one file without scripts or external content.

Rendering belongs here; the content is in `pack`. The templates are in ``pages/``. The same pack gives the same bytes.
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
    "average_precision", "review_gain", "interval_coverage", "share_anomalous", "emp", "explanation_gap",
)  # fmt: skip
"""Figures at the top of both pages, as far as the pack has them."""
MAX_HEADLINES = 6
"""Figures at the top of both pages, at most."""


def render_pages(pack: Pack, pictures: Mapping[str, bytes]) -> dict[str, str]:
    """Return both pages by file name.

    Parameters
    ----------
    pictures
        Artifact's name -> PNG bytes, of every picture of the pack.
    """
    encoded = {name: base64.b64encode(png).decode() for name, png in pictures.items()}
    shared: dict[str, Any] = {
        "pack": pack,
        "groups": GROUPS,
        "headlines": select_headlines(pack),
        "pictures": encoded,
        "candidates": group_candidates(pack),
    }
    return {name: _environment().get_template(f"{name}.j2").render(shared) for name in (CARD_PAGE, PACK_PAGE)}


def select_headlines(pack: Pack) -> list[PackFigure]:
    """Return the figures at the top of the pages."""
    figures = [pack.by_key.get(f"evaluation/{metric}") for metric in HEADLINES]
    return [figure for figure in figures if figure is not None][:MAX_HEADLINES]


def group_candidates(pack: Pack) -> dict[str, list[PackFigure]]:
    """Return the candidates' figures by candidate, in the order of their ranks."""
    by_candidate: dict[str, list[PackFigure]] = {}
    for figure in pack.figures_of("candidates"):
        by_candidate.setdefault(figure.label, []).append(figure)
    return by_candidate


def parse_sections(text: str) -> dict[str, str]:
    """Return the sections of a README, heading -> Markdown.

    A section begins at a heading (``## Limits``) or at a paragraph that begins with a bold sentence (``**Limits.**``), and ends where
    the next section begins. Text in brackets after a heading is dropped.
    """
    sections: dict[str, list[str]] = {}
    current = ""
    is_paragraph_start = True
    for line in text.splitlines():
        heading = re.match(r"##+ (.+)$", line) or (re.match(r"\*\*([^*]+)\*\*[.,]? ?(.*)$", line) if is_paragraph_start else None)
        if line.startswith("# "):
            current = ""
        elif heading:
            current = re.sub(r" *\(.*\)", "", heading[1]).strip().rstrip(".")
            sections.setdefault(current, []).extend(heading.groups()[1:])
        elif current:
            sections[current].append(line)
        is_paragraph_start = not line.strip()
    return {name: "\n".join(lines).strip() for name, lines in sections.items()}


def pick_section(sections: Mapping[str, str], *names: str) -> str:
    """Return the first of these sections that exists; empty where none does."""
    return next((sections[name] for name in names if name in sections), "")


def figures_to_markdown(figures: Sequence[PackFigure]) -> str:
    """Return figures as a Markdown table, for readers without the pages."""
    lines = ["| figure | value | 95 % interval | from |", "|---|---:|---|---|"]
    for figure in figures:
        interval = f"{figure.format_bound('low')} to {figure.format_bound('high')}" if figure.low is not None else ""
        lines.append(f"| {figure.label} | {figure.format_bound('value')} | {interval} | {figure.artifact} |")
    return "\n".join(lines)


@cache
def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    # HTML in people's Markdown is shown as text, not rendered.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters["markdown"] = lambda text: Markup(markdown.render(text))
    environment.filters["full"] = lambda value: "" if value is None else repr(value)
    return environment
