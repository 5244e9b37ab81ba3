"""What a challenger must show before it may decide: alone, and beside the champion, on the frozen test window.

Pure of Dagster and MLflow. `evaluate` makes the figures, `faults` judges them; the stage `evaluation_<domain>` stores the ones, the
check `model_<domain>_gate` asks the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finrisk_assets.domains.base import Domain, Evaluation, Fault, Figure, TestWindow

if TYPE_CHECKING:
    import pandas as pd

    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.settings import Settings

DEMANDS: Mapping[str, str] = {
    "discrimination": "The ranking is no chance, and not worse than the champion's beyond the interval of the difference.",
    "calibration": "The probabilities follow the rates.",
    "profit": "What the decisions earned is not less than what the champion's did, beyond the interval of the difference.",
    "fairness": "No figure of a group of people lies beyond its bound with its whole interval.",
    "explanation": "Base and contributions add up to the score.",
    "standing": "The version was not rolled back.",
}
"""Demand -> what it asks. Two more are checks of their own: the bundle gives its golden rows (the contract of ``model_<domain>``), and
nothing leaks into the features (``…_leakage``)."""

EXPLANATION_GAP = 1e-4
"""By how much base and contributions may miss the score, in the score's unit: it is kept in 32 bits."""

FAIRNESS = "fairness"
ROLLED_BACK = "rolled_back"


def evaluate(
    domain: Domain,
    frame: "pd.DataFrame",
    protected: "pd.DataFrame | None",
    challenger: "Bundle",
    champion: "Bundle | None",
    settings: "Settings",
) -> Evaluation:
    """Return the domain's own figures of the challenger, those of profit, fairness and stability, and those beside the champion.

    Parameters
    ----------
    frame
        The feature table.
    protected
        ``customer_id`` and the protected columns of the ledger's customers; None where it has none.
    champion
        The one that decides now; None for the first.
    """
    own = domain.evaluate(frame, challenger, settings)
    window = domain.test(frame, challenger, settings)
    figures = [*own.figures, *_gains(domain, window, challenger), *_fairness(domain, window, challenger, protected, settings)]
    figures += _stability(domain, window)
    if champion is not None:
        figures += _beside(domain, frame, window, challenger, champion, settings)
    return replace(own, figures=figures)


def faults(domain: Domain, figures: Sequence[Figure]) -> list[Fault]:
    """Return the demands that a challenger with these figures does not meet; none if it may become champion."""
    named = {figure.metric: figure for figure in figures}
    found = list(domain.gate(named))
    worse = {"discrimination": "auc_beside_champion", "profit": "gain_beside_champion"}
    for demand, metric in worse.items():
        figure = named.get(metric)
        if figure is not None and figure.high is not None and figure.high < 0:
            found.append(Fault(demand, f"{figure.value:+.4f} [{figure.low:+.4f}, {figure.high:+.4f}]: {figure.meaning}"))
    found += [Fault("fairness", figure.meaning) for figure in figures if _is_unfair(domain, figure)]
    gap = named["explanation_gap"].value
    if not gap <= EXPLANATION_GAP:
        found.append(Fault("explanation", f"base and contributions miss the score by {gap:.2g}; {EXPLANATION_GAP:g} is allowed"))
    if ROLLED_BACK in named:
        found.append(Fault("standing", named[ROLLED_BACK].meaning))
    return found


def _is_unfair(domain: Domain, figure: Figure) -> bool:
    """Whether a figure of fairness lies beyond its bound: of calibration, or at a cutoff from which decisions go against the person."""
    from finrisk_assets.modelling.evaluation.fairness import AGAINST

    kind, *where = figure.metric.split("/")
    return kind == FAIRNESS and AGAINST in figure.meaning and (where[0] == "calibration_gap" or domain.cutoffs[where[1]])


def _gains(domain: Domain, window: TestWindow, bundle: "Bundle") -> list[Figure]:
    """What the decisions earned on the window, a mean per row."""
    from finrisk_assets.modelling.evaluation.metrics import clustered_mean

    if domain.gain is None or not len(window.labels):
        return []
    earned = clustered_mean(domain.gain(window, bundle), window.frame.customer_id)
    return [Figure("gain", earned.value, earned.low, earned.high, domain.gain_unit)]


def _stability(domain: Domain, window: TestWindow) -> list[Figure]:
    """The later half of the window beside the earlier: told, not judged, because a half tells little."""
    from finrisk_assets.modelling.monitoring import stability

    held = stability.halves(window.labels, window.probability, window.frame[domain.moment], window.frame.customer_id)
    return [Figure(name, *one, meaning=stability.MEANINGS[name]) for name, one in held.items()]


def _fairness(domain: Domain, window: TestWindow, bundle: "Bundle", protected: "pd.DataFrame | None", settings: "Settings") -> list[Figure]:
    """Each judged finding about a group of people: how often decisions go against it, and how its probability follows its rate."""
    from finrisk_assets.modelling.evaluation import fairness

    if protected is None or not len(window.labels):
        return []
    people = window.frame.customer_id
    of_rows = protected.set_index("customer_id").reindex(people).reset_index(drop=True)
    grouped = fairness.protected(of_rows, list(of_rows.columns), window.frame[domain.moment].to_numpy())
    cutoffs = {name: bundle.thresholds[name] for name in domain.cutoffs if name in bundle.thresholds}
    found: list[fairness.FairnessFinding] = []
    smallest = fairness.least(people)
    # A person who comes back month after month is one person: the newest row stands for them where rows are to be independent.
    newest = (~people[::-1].duplicated())[::-1].to_numpy()
    for column, group in grouped.items():
        asked: dict[str, Any] = {"column": column, "people": people.to_numpy(dtype=str), "smallest": smallest}
        for cutoff, at in cutoffs.items():
            drawn: dict[str, Any] = {**asked, "cutoff": cutoff, "seed": settings.seed, "draws": 400}
            found += fairness.adverse_impact(window.probability < at, group, **drawn)
            found += fairness.opportunity(window.probability < at, ~window.labels, group, **drawn)
        found += fairness.calibration(window.labels[newest], window.probability[newest], group[newest], column=column, smallest=smallest)
    return [_fairness_figure(one) for one in found if one.value is not None]


def _fairness_figure(finding: Any) -> Figure:
    where = "/".join(part for part in (FAIRNESS, finding.measure, finding.cutoff, f"{finding.column}={finding.group}") if part)
    return Figure(where, finding.value.value, finding.value.low, finding.value.high, str(finding))


def _beside(
    domain: Domain, frame: "pd.DataFrame", window: TestWindow, challenger: "Bundle", champion: "Bundle", settings: "Settings"
) -> list[Figure]:
    """The challenger less the champion on the same rows; none where the feature table has lost what the champion reads."""
    from finrisk_assets.modelling.evaluation.metrics import auc, clustered_mean, compare_auc

    if any(feature.name not in frame for feature in champion.features) or not len(window.labels):
        return []
    other, who = domain.test(frame, champion, settings), f"the champion {champion.version[:12]}"
    alone = auc(window.labels, other.probability)
    difference = compare_auc(window.labels, window.probability, other.probability).difference
    figures = [
        Figure("champion_auc", alone.value, alone.low, alone.high, f"of {who}, on the same rows"),
        Figure(
            "auc_beside_champion", difference.value, difference.low, difference.high, f"AUC less that of {who}, DeLong's paired interval"
        ),
    ]
    if domain.gain is not None:
        ours, theirs = domain.gain(window, challenger), domain.gain(other, champion)
        more = clustered_mean(ours - theirs, window.frame.customer_id)
        meaning = f"{domain.gain_unit}; less that of {who}, paired"
        figures += [
            Figure("champion_gain", float(theirs.mean()), meaning=f"of {who}, on the same rows"),
            Figure("gain_beside_champion", more.value, more.low, more.high, meaning),
        ]
    return figures
