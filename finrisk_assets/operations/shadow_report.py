"""The report on shadow scoring: champion and challenger side by side over the requests that the service answered.

The report reads the service's store, and outcomes from the feature tables. It shows counts and differences, never a person.
"""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bento.store.database import location
from bento.store.records import ShadowScore
from bento.store.session import open_store
from finrisk_assets.domains.base import Domain
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    from finrisk_assets.modelling.evaluation.metrics import Interval

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
HEADINGS = ("asked", "failed", "agree", "mean |apart|", "apart at 5 25 50 75 95 %", "known", "AUC champion", "AUC challenger")
FEWEST_OUTCOMES = 10
"""Records of the rarer outcome from which the AUC is shown."""


@dataclass(frozen=True)
class ShadowComparison:
    """One challenger compared with one champion, over the requests that both scored.

    Attributes
    ----------
    domain, champion, challenger
        The domain, and the versions of both bundles.
    n, failures
        How many requests there were, and on how many of them the challenger failed.
    agreement
        The share of equal decisions, among those that did not fail.
    mean_absolute_difference, quantiles
        Of the probabilities, challenger less champion: the mean without its sign, and `QUANTILES` with it.
    n_outcomes, champion_auc, challenger_auc
        How many of the requests have a known outcome by now, and how each model ranked those; None while there are too few.
    """

    domain: str
    champion: str
    challenger: str
    n: int
    failures: int
    agreement: float | None
    mean_absolute_difference: float | None
    quantiles: tuple[float, ...]
    n_outcomes: int = 0
    champion_auc: "Interval | None" = None
    challenger_auc: "Interval | None" = None

    def cells(self) -> tuple[str, ...]:
        """Return the figures as text, in the order of `HEADINGS`."""

        def number(value: float | None, form: str) -> str:
            return "–" if value is None else format(value, form)

        def interval(auc: "Interval | None") -> str:
            return "–" if auc is None else f"{auc.value:.3f} [{auc.low:.3f}, {auc.high:.3f}]"

        differences = " ".join(f"{value:+.3f}" for value in self.quantiles) or "–"
        figures = (number(self.agreement, ".1%"), number(self.mean_absolute_difference, ".4f"), differences)
        return (str(self.n), str(self.failures), *figures, str(self.n_outcomes), interval(self.champion_auc), interval(self.challenger_auc))


def report(settings: Settings) -> list[ShadowComparison]:
    """Return a comparison for each recorded pair of bundles, in the order of the domains, with outcomes from the warehouse."""
    from finrisk_assets.domains.registry import domains_of
    from finrisk_assets.ledger import sources

    source, warehouse = sources.load(settings), Warehouse.of(settings)
    settings_of_service = replace(settings, source=source.name)
    place, comparisons = location(settings_of_service), list[ShadowComparison]()
    if isinstance(place, Path) and not place.exists():
        return []
    with closing(open_store(settings_of_service)) as store:
        for domain in domains_of(source):
            rows = store.list_shadow_scores(domain.name)
            for pair in dict.fromkeys((row.champion_version, row.challenger_version) for row in rows):
                scores = [row for row in rows if (row.champion_version, row.challenger_version) == pair]
                comparisons.append(add_ranking(compare(scores), scores, outcomes(domain, warehouse, settings, scores)))
    return comparisons


def compare(rows: Sequence[ShadowScore]) -> ShadowComparison:
    """Return the comparison of one pair of bundles from at least one record."""
    import numpy as np

    both = [row for row in rows if row.challenger_probability is not None]
    differences = np.array([(row.challenger_probability or 0.0) - row.champion_probability for row in both])
    same = [row.challenger_decision == row.champion_decision for row in both]
    return ShadowComparison(
        domain=rows[0].domain,
        champion=rows[0].champion_version,
        challenger=rows[0].challenger_version,
        n=len(rows),
        failures=len(rows) - len(both),
        agreement=sum(same) / len(same) if same else None,
        mean_absolute_difference=float(np.abs(differences).mean()) if both else None,
        quantiles=tuple(np.quantile(differences, QUANTILES).tolist()) if both else (),
    )


def outcomes(domain: Domain, warehouse: Warehouse, settings: Settings, rows: Sequence[ShadowScore]) -> dict[str, bool]:
    """Return subject -> outcome, of the subjects whose outcome the feature table knows by now."""
    import ibis

    table, key = f"features_{domain.group}", domain.keys[0].name
    subjects = sorted({row.subject for row in rows if row.subject is not None})
    if not subjects or not warehouse.has(table):
        return {}
    stored, subject_table = warehouse.table(table), ibis.memtable({"subject": subjects})
    labelled = domain.labelled_rows(
        stored.semi_join(subject_table, stored[key] == subject_table.subject).to_pyarrow().to_pandas(), settings
    )
    return dict(zip(labelled[key].tolist(), labelled[domain.label].astype(bool).tolist(), strict=True))


def add_ranking(comparison: ShadowComparison, rows: Sequence[ShadowScore], outcomes: dict[str, bool]) -> ShadowComparison:
    """Return the comparison with both models' AUC on the subjects with a known outcome; the newest record of a subject counts."""
    import numpy as np

    from finrisk_assets.modelling.evaluation import metrics

    newest = {row.subject: row for row in rows if row.subject in outcomes and row.challenger_probability is not None}
    labels = np.array([outcomes[str(subject)] for subject in newest], dtype=bool)
    if min(labels.sum(), (~labels).sum()) < FEWEST_OUTCOMES:
        return replace(comparison, n_outcomes=len(labels))
    probabilities = [(row.champion_probability, row.challenger_probability) for row in newest.values()]
    champion, challenger = np.array(probabilities, dtype=float).T
    return replace(
        comparison,
        n_outcomes=len(labels),
        champion_auc=metrics.auc(labels, champion),
        challenger_auc=metrics.auc(labels, challenger),
    )
