"""The catalogue of reasons: every feature of every domain, its theme, and the sentences that are said of it.

It is read off the features that the domains declare, so it cannot differ from what the service says. How the reasons of one decision
are chosen stands in `modelling.reasons`, what they are worth in `modelling.flips`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from finrisk_assets.domains.registry import domains_of
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.scoring.reasons import code, factors, sentence
from finrisk_assets.settings import Settings

SOURCES = ("simulator", "handbook", "berka", "taiwan", "karlan_zinman")
"""The sources whose features the page lists; a mapped source brings its own."""

_WHEN = {1: "high", -1: "low", 0: "either"}


@dataclass(frozen=True)
class Entry:
    """One feature as a reason.

    Attributes
    ----------
    domain, title
        The domain's name, and how a person calls it.
    theme, code
        What the feature tells about, and the code of that reason.
    feature, description
        The feature and its meaning.
    when
        ``high`` or ``low``: the value that raises the score; ``either`` where that differs from model to model.
    raises, lowers
        What is said where it raised, and where it lowered, the score.
    """

    domain: str
    title: str
    theme: str
    code: str
    feature: str
    description: str
    when: str
    raises: str
    lowers: str


def entries(source: Source) -> list[Entry]:
    """Every feature of a source's domains, the features of one theme together."""
    found = []
    for domain in domains_of(source):
        features = domain.features(source)
        for columns in factors(features).values():
            for one in (features[column] for column in columns):
                said = sentence(one, "raises"), sentence(one, "lowers")
                name = one.theme or one.name
                found.append(Entry(domain.name, domain.title, name, code(one), one.name, one.description, _WHEN[one.monotone], *said))
    return found


def page() -> str:
    """The catalogue over all built-in sources as a page in Markdown."""
    merged = {(one.domain, one.feature): one for name in SOURCES for one in entries(sources.load(Settings(source=name)))}
    return "\n".join([*_HEAD, *_tables(merged.values())]) + "\n"


_HEAD = (
    "# Catalogue of reasons",
    "",
    "Written by `finrisk reasons --page`; [reasons.md](reasons.md) says how reasons are chosen. Features of one theme are one reason",
    "together. *When* is the value that raises the score; *either* where that differs from model to model.",
)


def _tables(found: Iterable[Entry]) -> list[str]:
    by_domain: dict[str, dict[str, list[Entry]]] = {}
    for one in found:
        by_domain.setdefault(one.title, {}).setdefault(one.theme, []).append(one)
    lines = []
    for title, themes in by_domain.items():
        lines += ["", f"## {title}", "", "| theme | feature | when | it raised the score | it lowered the score |", "|---|---|---|---|---|"]
        for theme, members in themes.items():
            lines += [f"| {theme} | `{one.feature}` | {one.when} | {one.raises} | {one.lowers} |" for one in members]
    return lines
