"""The catalogue of reasons: every feature of every domain, its theme, and the sentences that are said of it.

It is read off the features that the domains declare, so it cannot differ from what the service says. How the reasons of one decision
are chosen stands in `scoring.reasons`, their fidelity in `benchmarks.reason_fidelity`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from finrisk_assets.domains.registry import domains_of
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.scoring.reasons import build_sentence, factor_code, group_by_factor
from finrisk_assets.settings import Settings

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
    """Return every feature of a source's domains, the features of one theme together."""
    catalogue = []
    for domain in domains_of(source):
        features = domain.select_features(source)
        for columns in group_by_factor(features).values():
            for feature in (features[column] for column in columns):
                sentences = build_sentence(feature, "raises"), build_sentence(feature, "lowers")
                name = feature.theme or feature.name
                catalogue.append(
                    Entry(
                        domain.name,
                        domain.title,
                        name,
                        factor_code(feature),
                        feature.name,
                        feature.description,
                        _WHEN[feature.monotone],
                        *sentences,
                    )
                )
    return catalogue


def page() -> str:
    """Return the catalogue of all built-in sources as a page in Markdown."""
    merged = {(entry.domain, entry.feature): entry for name in sources.BUILT_IN for entry in entries(sources.load(Settings(source=name)))}
    return "\n".join([*_HEAD, *_tables(merged.values())]) + "\n"


_HEAD = (
    "# Catalogue of reasons",
    "",
    "Written by `finrisk reasons --page`; [reasons.md](reasons.md) says how reasons are chosen. Features of one theme are one reason",
    "together. *When* is the value that raises the score; *either* where that differs from model to model.",
)


def _tables(catalogue: Iterable[Entry]) -> list[str]:
    by_domain: dict[str, dict[str, list[Entry]]] = {}
    for entry in catalogue:
        by_domain.setdefault(entry.title, {}).setdefault(entry.theme, []).append(entry)
    lines = []
    for title, themes in by_domain.items():
        lines += ["", f"## {title}", "", "| theme | feature | when | it raised the score | it lowered the score |", "|---|---|---|---|---|"]
        for theme, members in themes.items():
            lines += [f"| {theme} | `{entry.feature}` | {entry.when} | {entry.raises} | {entry.lowers} |" for entry in members]
    return lines
