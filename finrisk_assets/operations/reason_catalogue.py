"""The catalogue of reasons: every feature of every domain, its theme, and the sentences that are said of it.

It is read off the features that the domains declare, so it cannot differ from what the service says. How the reasons of one decision
are chosen stands in `scoring.reasons`, their fidelity in `benchmarks.reason_fidelity`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from finrisk_assets.domains.registry import domains_of
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.scoring.reasons import factor_code, group_by_factor
from finrisk_assets.settings import Settings
from schemas.features import Feature

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
    low, high, other
        The sentences of a low value, of a high value, and of 0, 1, a missing value or any value.
    """

    domain: str
    title: str
    theme: str
    code: str
    feature: str
    description: str
    when: str
    low: str
    high: str
    other: str


def entries(source: Source) -> list[Entry]:
    """Return every feature of a source's domains, the features of one theme together."""
    catalogue = []
    for domain in domains_of(source):
        features = domain.select_features(source)
        for columns in group_by_factor(features).values():
            for feature in (features[column] for column in columns):
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
                        _sentence(feature.low),
                        _sentence(feature.high),
                        _list_other(feature),
                    )
                )
    return catalogue


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _list_other(feature: Feature) -> str:
    """Return the sentences that are not of a low or a high value, each after what it is said of."""
    named = {"0": feature.zero, "1": feature.one, "missing": feature.missing, "any": feature.fact}
    texts = [f"{name}: {_sentence(text)}" for name, text in named.items() if text]
    return "; ".join([*texts, f"see {feature.spoken_by}"] if feature.spoken_by else texts)


def page() -> str:
    """Return the catalogue of all built-in sources as a page in Markdown."""
    merged = {(entry.domain, entry.feature): entry for name in sources.BUILT_IN for entry in entries(sources.load(Settings(source=name)))}
    return "\n".join([*_HEAD, *_tables(merged.values())]) + "\n"


_HEAD = (
    "# Catalogue of reasons",
    "",
    "Written by `finrisk reasons --page`; [reasons.md](reasons.md) says how reasons are chosen. Features of one theme are one reason",
    "together. *When* is the value that raises the score; *either* where that differs from model to model. A sentence is said only of a",
    "value that it holds of, with the value; where no sentence holds, the description and the value are said.",
)


def _tables(catalogue: Iterable[Entry]) -> list[str]:
    by_domain: dict[str, dict[str, list[Entry]]] = {}
    for entry in catalogue:
        by_domain.setdefault(entry.title, {}).setdefault(entry.theme, []).append(entry)
    lines = []
    for title, themes in by_domain.items():
        lines += ["", f"## {title}", "", "| theme | feature | when | low | high | other |", "|---|---|---|---|---|---|"]
        for theme, members in themes.items():
            lines += [f"| {theme} | `{entry.feature}` | {entry.when} | {entry.low} | {entry.high} | {entry.other} |" for entry in members]
    return lines
