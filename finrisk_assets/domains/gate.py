"""The gate: what a challenger must show on the frozen test window, alone and beside the champion, before it may decide.

Pure of Dagster and MLflow. The stage `evaluation_<domain>` stores the figures of `evaluate`; the check `model_<domain>_gate` calls
`find_faults` on them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finrisk_assets.domains.base import Domain, Evaluation, Fault, Figure, ScoredWindow

if TYPE_CHECKING:
    import pandas as pd

    from finrisk_assets.policy.document import Policy
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.settings import Settings

DEMANDS: Mapping[str, str] = {
    "rows": "The test window has enough rows of either outcome to judge the rest.",
    "discrimination": "The ranking is no chance, and not worse than the champion's beyond the interval of the difference.",
    "calibration": "The probabilities follow the rates.",
    "profit": "What the decisions earned is not less than what the champion's did, beyond the interval of the difference.",
    "fairness": "No figure of a group of people lies beyond its bound with its whole interval, widened for the number of figures, and no "
    "feature is a protected attribute; or a named person accepts it, with a reason.",
    "explanation": "Base and contributions add up to the score.",
    "standing": "The version was not rolled back.",
}
"""Demand -> its meaning. Two more demands are checks of their own: the bundle gives its golden rows (the contract of
``model_<domain>``), and nothing leaks into the features (``…_leakage``)."""

MAX_EXPLANATION_GAP = 1e-4
"""Unit of the score: by how much base and contributions may miss the score, which is stored in 32 bits."""

FAIRNESS, ACCEPTED = "fairness", "fairness_accepted"
"""First part of the names of the figures of fairness, and of those that record who accepts one of them."""
PROTECTED_FEATURE = "protected_feature"
ROLLED_BACK = "rolled_back"
ROWS = "rows"
"""The demand that a small test window does not meet."""


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
    window = domain.score_test_window(frame, challenger, settings)
    figures = [
        *own.figures,
        *utility_figures(domain, window, challenger),
        *fairness_figures(domain, window, challenger, protected, settings),
    ]
    figures += accepted_figures(domain, figures, challenger.policy)
    figures += stability_figures(domain, window)
    if champion is not None:
        figures += champion_figures(domain, frame, window, challenger, champion, settings)
    return replace(own, figures=figures)


def find_faults(domain: Domain, figures: Sequence[Figure]) -> list[Fault]:
    """Return the demands that a challenger with these figures does not meet; none if it may become champion."""
    named = {figure.metric: figure for figure in figures}
    faults = list(domain.find_faults(named))
    if is_unjudged(faults):
        return faults
    worse = {"discrimination": "auc_beside_champion", "profit": "gain_beside_champion"}
    for demand, metric in worse.items():
        figure = named.get(metric)
        if figure is not None and figure.high is not None and figure.high < 0:
            faults.append(Fault(demand, f"{figure.value:+.4f} [{figure.low:+.4f}, {figure.high:+.4f}]: {figure.meaning}"))
    faults += [
        Fault("fairness", f"{figure.meaning}; {_fairness_advice(domain, figure)}")
        for figure in figures
        if _is_unfair(figure) and f"{ACCEPTED}/{_figure_name(figure)}" not in named
    ]
    gap = named["explanation_gap"].value
    if not gap <= MAX_EXPLANATION_GAP:
        faults.append(Fault("explanation", f"base and contributions miss the score by {gap:.2g}; {MAX_EXPLANATION_GAP:g} is allowed"))
    if ROLLED_BACK in named:
        faults.append(Fault("standing", named[ROLLED_BACK].meaning))
    return faults


_EVIDENCE = {
    "rows": ("n_test", "n_rarer", "n_people"),
    "discrimination": ("auc", "auc_beside_champion"),
    "calibration": ("calibration_in_the_large", "calibration_slope", "expected_calibration_error", "approved_gap"),
    "profit": ("gain", "gain_beside_champion"),
    "explanation": ("explanation_gap",),
}
"""Demand -> the figures that it is judged by, as far as a domain has them."""


def find_evidence(figures: Sequence[Figure]) -> dict[str, str]:
    """Return demand -> what was seen of it, in figures, whether it is met or not."""
    named = {figure.metric: figure for figure in figures}
    seen = {
        demand: "; ".join(_format_figure(named[metric]) for metric in metrics if metric in named) for demand, metrics in _EVIDENCE.items()
    }
    of_groups = [figure for figure in figures if figure.metric.startswith(f"{FAIRNESS}/")]
    n_unfair = sum(_is_unfair(figure) for figure in of_groups)
    n_accepted = sum(figure.metric.startswith(f"{ACCEPTED}/") for figure in figures)
    accepted = f", {n_accepted} accepted in the policy" if n_accepted else ""
    seen["fairness"] = (
        f"{n_unfair} of {len(of_groups)} figures of groups beyond their bound{accepted}" if of_groups else "no protected column"
    )
    seen["standing"] = "rolled back" if ROLLED_BACK in named else "not rolled back"
    return {demand: seen[demand] or "no figure" for demand in DEMANDS}


def _format_figure(figure: Figure) -> str:
    """Return a figure as text, three significant digits and its interval: ``auc 0.816 [0.803, 0.83]``."""
    interval = "" if figure.low is None or figure.high is None else f" [{figure.low:.3g}, {figure.high:.3g}]"
    value = f"{figure.value:,.0f}" if figure.metric.startswith("n_") else f"{figure.value:.3g}"
    return f"{figure.metric} {value}{interval}"


def is_unjudged(faults: Sequence[Fault]) -> bool:
    """Return whether there are too few rows to judge a model: its domain is left out, which is no fault of the model."""
    return any(fault.demand == ROWS for fault in faults)


def _is_unfair(figure: Figure) -> bool:
    """Return whether a fairness figure breaks its bound, of calibration or at any cutoff: a referral delays and deters people too."""
    from finrisk_assets.modelling.evaluation.fairness import AGAINST

    return figure.metric.startswith(f"{FAIRNESS}/") and AGAINST in figure.meaning


def _figure_name(figure: Figure) -> str:
    return figure.metric.removeprefix(f"{FAIRNESS}/")


def _fairness_advice(domain: Domain, figure: Figure) -> str:
    """Return what can be done about a figure of fairness, as an imperative."""
    name = _figure_name(figure)
    kind = name.partition("/")[0]
    remedy = {
        PROTECTED_FEATURE: "leave the feature out",
        "calibration_gap": "give the model what tells the group's risk apart, or more rows of it",
    }.get(kind, "move the cutoff, or leave out a feature that stands for the group and that no business reason needs")
    entry = f"{{domain: {domain.name}, figure: '{name}', who: <who>, why: <why>}}"
    return f"{remedy}, or record who accepts it and why as {entry} in fairness.accepted of the policy, and evaluate it again"


def accepted_figures(domain: Domain, figures: Sequence[Figure], policy: "Policy") -> list[Figure]:
    """Return a figure for each unfair figure that the policy accepts, whose meaning says who accepts it and why; the pack keeps it."""
    accepted = {entry.figure: entry for entry in policy.fairness.accepted if entry.domain == domain.name}
    names = [_figure_name(figure) for figure in figures if _is_unfair(figure)]
    return [
        Figure(f"{ACCEPTED}/{name}", 1.0, meaning=f"accepted by {accepted[name].who}: {accepted[name].why}")
        for name in names
        if name in accepted
    ]


def utility_figures(domain: Domain, window: ScoredWindow, bundle: "Bundle") -> list[Figure]:
    """Return the mean utility per row of the window."""
    from finrisk_assets.modelling.evaluation.metrics import clustered_mean

    if not len(window.labels):
        return []
    earned = clustered_mean(domain.utility(window, bundle), window.frame.customer_id)
    return [Figure("gain", earned.value, earned.low, earned.high, domain.utility_unit)]


def stability_figures(domain: Domain, window: ScoredWindow) -> list[Figure]:
    """Return the later half of the window beside the earlier: shown but not a demand, because a half is a small sample."""
    from finrisk_assets.modelling.monitoring import stability

    halves = stability.compare_halves(window.labels, window.probability, window.frame[domain.decision_time], window.frame.customer_id)
    return [Figure(name, *interval, meaning=stability.MEANINGS[name]) for name, interval in halves.items()]


def fairness_figures(
    domain: Domain, window: ScoredWindow, bundle: "Bundle", protected: "pd.DataFrame | None", settings: "Settings"
) -> list[Figure]:
    """Return a figure per group of people and measure: how often decisions go against it, and how its probability follows its rate."""
    from finrisk_assets.modelling.evaluation import fairness

    if not len(window.labels):
        return []
    people = window.frame.customer_id
    if protected is None:
        return protected_feature_figures(window, bundle, window.frame[[]])
    of_rows = protected.set_index("customer_id").reindex(people).reset_index(drop=True)
    grouped = fairness.group_protected(of_rows, list(of_rows.columns), window.frame[domain.decision_time].to_numpy())
    favourable, bounds = domain.find_favourable(window, bundle), bundle.policy.fairness
    findings: list[fairness.FairnessFinding] = []
    smallest = fairness.min_group_size(people)
    # A person who comes back month after month is one person: the newest row stands for them where rows are to be independent.
    newest = (~people[::-1].duplicated())[::-1].to_numpy()
    for column, group in grouped.items():
        shared: dict[str, Any] = {"column": column, "people": people.to_numpy(dtype=str), "smallest": smallest}
        for cutoff, selected in favourable.items():
            at_cutoff: dict[str, Any] = {**shared, "cutoff": cutoff, "seed": settings.seed, "draws": 400}
            findings += fairness.compare_selection(selected, group, bound=bounds.impact_ratio, **at_cutoff)
            findings += fairness.compare_opportunity(selected, ~window.labels, group, bound=bounds.opportunity_gap, **at_cutoff)
        findings += fairness.compare_calibration(
            window.labels[newest],
            window.probability[newest],
            group[newest],
            column=column,
            bound=bounds.calibration_gap,
            smallest=smallest,
        )
    figures = [fairness_figure(finding) for finding in fairness.judge_together(findings) if finding.value is not None]
    return [*protected_feature_figures(window, bundle, of_rows), *figures]


def protected_feature_figures(window: ScoredWindow, bundle: "Bundle", protected: "pd.DataFrame") -> list[Figure]:
    """Return a figure for each feature that is a protected attribute; `protected` holds the protected columns of the window's rows."""
    from finrisk_assets.modelling.evaluation import fairness

    shown = fairness.find_protected_features(window.frame, [feature.name for feature in bundle.features], protected)
    meaning = f"the feature {{}} {fairness.AGAINST} the model: it is a protected attribute, {{}}"
    return [Figure(f"{FAIRNESS}/{PROTECTED_FEATURE}/{name}", 1.0, meaning=meaning.format(name, why)) for name, why in shown.items()]


def fairness_figure(finding: Any) -> Figure:
    metric = "/".join(part for part in (FAIRNESS, finding.measure, finding.cutoff, f"{finding.column}={finding.group}") if part)
    return Figure(metric, finding.value.value, finding.value.low, finding.value.high, str(finding))


def champion_figures(
    domain: Domain, frame: "pd.DataFrame", window: ScoredWindow, challenger: "Bundle", champion: "Bundle", settings: "Settings"
) -> list[Figure]:
    """Return the challenger less the champion on the same rows; nothing where the feature table lacks what the champion reads."""
    from finrisk_assets.modelling.evaluation.metrics import auc, clustered_mean, compare_auc

    if any(feature.name not in frame for feature in champion.features) or not len(window.labels):
        return []
    champion_window, name = domain.score_test_window(frame, champion, settings), f"the champion {champion.version[:12]}"
    champion_auc = auc(window.labels, champion_window.probability)
    difference = compare_auc(window.labels, window.probability, champion_window.probability).difference
    ours, theirs = domain.utility(window, challenger), domain.utility(champion_window, champion)
    difference_in_utility = clustered_mean(ours - theirs, window.frame.customer_id)
    meaning = f"{domain.utility_unit}; less that of {name}, paired"
    return [
        Figure("champion_auc", champion_auc.value, champion_auc.low, champion_auc.high, f"of {name}, on the same rows"),
        Figure(
            "auc_beside_champion", difference.value, difference.low, difference.high, f"AUC less that of {name}, DeLong's paired interval"
        ),
        Figure("champion_gain", float(theirs.mean()), meaning=f"of {name}, on the same rows"),
        Figure("gain_beside_champion", difference_in_utility.value, difference_in_utility.low, difference_in_utility.high, meaning),
    ]
