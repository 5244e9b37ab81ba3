"""Monitoring of a champion: drift of its inputs and score since training, and its performance before and after labels are known.

Arrays in, findings out. This module chooses the months to compare, so that the same rule holds in every domain. The tests are in `drift`
and `performance`, the words and charts for a reader in `report`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.evaluation.metrics import Interval
from finrisk_assets.modelling.monitoring import drift, performance

WINDOW_MONTHS = (1, 2, 3, 6, 12)
"""Months that a window may span."""
ENOUGH_CUSTOMERS = 500
"""Customers that make a window large enough; a smaller window shows only large shifts (docs/drift.md has the table)."""
MIN_GROWTH = 1.2
"""Factor; a longer window must bring this many times the customers, because a panel repeats its customers every month."""
MIN_CUSTOMERS = 30
"""Customers; a window with fewer is not compared."""
N_PARTIAL_MONTHS = 3
"""First months of training that are no reference if others exist: features that look back over months are incomplete in them."""
MAX_FOLLOWED_MONTHS = 12
"""Months since training that are followed, the newest of them."""
MIN_OUTCOMES = 20
"""Customers with the outcome, and without, that are needed to compare outcomes with estimates."""
RECONCILE_LEVEL = 0.99
"""Confidence level at which outcomes contradict a model; a lower level asks for training more often by chance."""
MIN_REPORTED_MOVE = 0.02
"""Share of rows; a smaller move is not described."""
DRAWS = 200
"""Draws of an estimate's interval."""

Floats = NDArray[np.float64]
Month = np.datetime64
"""A calendar month, ``datetime64[M]``."""


@dataclass(frozen=True)
class ComparedWindows:
    """The months that are compared.

    Attributes
    ----------
    reference, current
        Months of the champion's training window, and the newest full months; both empty where nothing can be compared.
    since
        Full months after training, the newest `MAX_FOLLOWED_MONTHS`.
    reason
        Why these months were chosen, or why there are none.
    """

    reference: tuple[Month, ...] = ()
    current: tuple[Month, ...] = ()
    since: tuple[Month, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class MonitoredRows:
    """The rows of the monitored months.

    Attributes
    ----------
    month : ndarray of datetime64[M], shape (n,)
        NaT where the source has no times.
    customer, decision : ndarray of str, shape (n,)
    features : ndarray, shape (n, k)
        NaN where missing.
    score, probability : ndarray, shape (n,)
        The margin that decides, and the calibrated probability of the outcome.
    outcome : ndarray, shape (n,)
        1 or 0, NaN where the outcome is not known yet.
    """

    month: NDArray[np.datetime64]
    customer: NDArray[np.str_]
    decision: NDArray[np.str_]
    features: Floats
    score: Floats
    probability: Floats
    outcome: Floats


@dataclass(frozen=True)
class DecisionShare:
    """The share of one decision in one window (a month, or ``all``), with its interval."""

    window: str
    decision: str
    share: Interval


@dataclass(frozen=True)
class MonthPerformance:
    """Estimated and realised figures of one month since training; None where a realised figure is not known."""

    window: str
    n: int
    rate: Interval
    auc: Interval
    realised_rate: float | None
    realised_auc: float | None


@dataclass(frozen=True)
class MonitoringFindings:
    """The findings of one run.

    Attributes
    ----------
    windows
        The months compared.
    features, score
        Their drift, each family of tests at its own false-alarm rate; None where nothing can be compared.
    medians
        Feature (or ``score``) -> its median before and now.
    shares
        The share of each decision, by month.
    estimated, estimated_on, n_estimated
        Figures of the newest rows from their probabilities alone, the window's name, and the number of rows.
    is_before_labels
        Whether those rows have no outcome yet.
    reconciled, reconciled_on
        Estimated and realised figures, and their window.
    months
        The months since training.
    tested_auc
        The champion's AUC on its frozen test window, from its evaluation.
    notes
        What could not be computed, and why.
    """

    windows: ComparedWindows
    features: drift.Drift | None
    score: drift.Drift | None
    medians: Mapping[str, tuple[float, float]]
    shares: tuple[DecisionShare, ...]
    estimated: Mapping[str, Interval]
    estimated_on: str
    n_estimated: int
    is_before_labels: bool
    reconciled: tuple[performance.Reconciliation, ...]
    reconciled_on: str
    months: tuple[MonthPerformance, ...]
    tested_auc: Interval | None
    notes: tuple[str, ...] = field(default=())

    @property
    def window(self) -> str:
        """The name of the current window."""
        return format_months(self.windows.current) or "all"

    @property
    def confirmed(self) -> tuple[str, ...]:
        """The reasons to train a new model; empty where drift is not confirmed.

        Moved features alone confirm nothing: in real windows some nearly always move. Drift is confirmed where the score moved and outcomes
        contradict the probabilities, or where the whole interval of the estimated AUC lies below that of the evaluation.
        """
        reasons = []
        contradictions = [figure for figure in self.reconciled if not figure.agrees]
        if self.score is not None and self.score.drifted and contradictions:
            differences = ", ".join(
                f"{describe_figure(figure.figure)} {figure.realised:.3f} where {figure.estimated:.3f} was promised"
                for figure in contradictions
            )
            reasons.append(f"the score has moved, and the outcomes of {self.reconciled_on} contradict the model: {differences}")
        auc = self.estimated.get("auc")
        if auc is not None and self.tested_auc is not None and auc.high < self.tested_auc.low:
            reasons.append(
                f"the AUC estimated for {self.estimated_on} is {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}), wholly below the "
                f"{self.tested_auc.low:.3f} to {self.tested_auc.high:.3f} of the evaluation"
            )
        return tuple(reasons)

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        if self.confirmed:
            return "Drift is confirmed: a new model is to be trained."
        if self.features is None or self.score is None:
            return "There is nothing to compare."
        n_moved, n_features = len(self.features.drifted), len(self.features.columns)
        inputs = f"{n_moved} of {n_features} features moved" if n_moved else f"None of {n_features} features moved"
        if self.score.drifted:
            outcome = "and outcomes agree with what was promised" if self.reconciled and self._agrees else "and no outcomes contradict it"
            return f"The score has moved, {outcome}; {inputs[0].lower()}{inputs[1:]}."
        return f"{inputs}; the score did not."

    @property
    def _agrees(self) -> bool:
        return all(reconciliation.agrees for reconciliation in self.reconciled)


# Months ------------------------------------------------------------------------------------------------------------------------


def choose_windows(
    months: Sequence[Month], training: tuple[str, str] | None, customers: Callable[[Sequence[Month]], int]
) -> ComparedWindows:
    """Choose the months to compare.

    Parameters
    ----------
    months
        Full months that have rows, ascending.
    training
        First and last day (ISO) of the training rows; None where they have no time. A row of midnight on the first of a month
        belongs to the month before.
    customers
        Counts the customers of some months.

    Returns
    -------
    ComparedWindows
        The current window is the fewest newest months that hold `ENOUGH_CUSTOMERS`, unless a longer window hardly brings new customers. The
        reference has as many months of the training window: the same months of an earlier year where training holds them, because
        the test would report a season as drift, otherwise its last months.
    """
    if training is None or not len(months):
        return ComparedWindows(reason="All rows have the same time, so there is no earlier window to compare with.")
    first, last = (month_of(np.datetime64(day)) for day in training)
    training_months = [
        month for month in months if month >= first and _month_end(month) <= np.datetime64(training[1]) + np.timedelta64(1, "D")
    ]
    later = [month for month in months if month > last]
    since = tuple(later[-MAX_FOLLOWED_MONTHS:])
    if not training_months or not later:
        return ComparedWindows(
            since=since, reason=f"There is no full month {'since' if training_months else 'within'} training ({' to '.join(training)})."
        )
    training_months = training_months[N_PARTIAL_MONTHS:] or training_months
    length = _choose_length(min(len(training_months), len(later)), lambda k: customers(later[-k:]))
    current = tuple(later[-length:])
    for years in range(1, 11):
        reference = tuple(month - np.timedelta64(12 * years, "M") for month in current)
        if set(reference) <= set(training_months):
            reason = "the same months of an earlier year, so that a season is not taken for drift"
            break
    else:
        reference = tuple(training_months[-length:])
        reason = (
            "the last months of training; training does not hold the same months of an earlier year, so that a season may show as drift"
        )
    for window, window_name in ((reference, "reference"), (current, "current window")):
        n = customers(window)
        if n < MIN_CUSTOMERS:
            return ComparedWindows(
                since=since, reason=f"The {window_name}, {format_months(window)}, has {n} customers: {MIN_CUSTOMERS} are needed to compare."
            )
    return ComparedWindows(reference, current, since, f"{format_months(current)} is compared with {format_months(reference)}: {reason}.")


def month_of(time: np.datetime64) -> Month:
    """Return the month of a time; midnight on the first belongs to the month before."""
    return (time.astype("datetime64[us]") - np.timedelta64(1, "us")).astype("datetime64[M]")


def format_months(months: Sequence[Month]) -> str:
    """Return months in words: ``2024-06``, ``2024-05 to 2024-06``; empty for none."""
    return "" if not len(months) else str(months[0]) if len(months) == 1 else f"{months[0]} to {months[-1]}"


def _month_end(month: Month) -> np.datetime64:
    return (month + np.timedelta64(1, "M")).astype("datetime64[D]")


def _choose_length(max_months: int, customers: Callable[[int], int]) -> int:
    """Return the number of months of a window, by the rule of `choose_windows`."""
    counts = [(k, customers(k)) for k in WINDOW_MONTHS[:1]]
    for k in WINDOW_MONTHS[1:]:
        if counts[-1][1] >= ENOUGH_CUSTOMERS or k > max_months:
            break
        counts.append((k, customers(k)))
    for (k, n), (_, n_longer) in pairwise(counts):
        if n_longer < MIN_GROWTH * n:
            return k
    return counts[-1][0]


# Findings ----------------------------------------------------------------------------------------------------------------------


def collect_findings(
    names: Sequence[str],
    rows: MonitoredRows,
    windows: ComparedWindows,
    *,
    thresholds: Sequence[float] = (),
    tested_auc: Interval | None = None,
    is_probability: bool = True,
    seed: int,
) -> MonitoringFindings:
    """Compare the windows, estimate the figures of the newest window, and compare estimates with outcomes.

    Parameters
    ----------
    names
        Names of the columns of ``rows.features``.
    rows
        Rows of all months of `windows`; without months, of the only time there is.
    thresholds
        Probabilities at which the decision changes.
    tested_auc
        The champion's AUC on its frozen test window, with the interval of its evaluation.
    is_probability
        False for a score that only ranks: then nothing can be estimated.
    seed
        Seed of all draws.
    """
    notes = [] if windows.current else [windows.reason]
    is_current = np.isin(rows.month, windows.current) if windows.current else np.ones(len(rows.month), dtype=bool)
    is_reference = np.isin(rows.month, windows.reference)
    features = score = None
    medians: dict[str, tuple[float, float]] = {}
    if windows.current:
        customers = rows.customer[is_reference], rows.customer[is_current]
        if names:
            features = _compare_columns(names, rows.features[is_reference], rows.features[is_current], customers, seed)
        score = _compare_columns(["score"], rows.score[is_reference, None], rows.score[is_current, None], customers, seed)
        medians = {name: (_median(rows.features[is_reference, k]), _median(rows.features[is_current, k])) for k, name in enumerate(names)}
        medians["score"] = (_median(rows.score[is_reference]), _median(rows.score[is_current]))
    is_unlabelled = is_current & np.isnan(rows.outcome)
    is_estimated = is_unlabelled if is_unlabelled.any() else is_current
    estimated: dict[str, Interval] = {}
    reconciled: list[performance.Reconciliation] = []
    mature_months: tuple[Month, ...] = ()
    month_performances: list[MonthPerformance] = []
    if is_probability:
        estimated = _estimate_figures(rows, is_estimated, thresholds, seed)
        if not estimated:
            notes.append("Too few outcomes are expected in the newest window to estimate anything.")
        mature_months = _months_to_reconcile(rows, windows.since)
        if mature_months:
            is_reconciled = np.isin(rows.month, mature_months) & ~np.isnan(rows.outcome)
            reconciled = performance.reconcile(
                rows.probability[is_reconciled],
                rows.outcome[is_reconciled],
                thresholds=thresholds,
                customers=rows.customer[is_reconciled],
                level=RECONCILE_LEVEL,
                seed=seed,
            )
        elif windows.current:
            notes.append("No month since training has enough outcomes yet to compare the estimates with.")
        month_performances = [item for item in (_month_performance(rows, month, seed) for month in windows.since) if item is not None]
    else:
        notes.append("The score ranks and is no probability: how well it does cannot be estimated before labels are known.")
    return MonitoringFindings(
        windows=windows,
        features=features,
        score=score,
        medians=medians,
        shares=tuple(_decision_shares(rows, windows)),
        estimated=estimated,
        estimated_on=format_months(windows.current) or "all rows",
        n_estimated=int(is_estimated.sum()),
        is_before_labels=bool(is_unlabelled.any()),
        reconciled=tuple(reconciled),
        reconciled_on=format_months(mature_months),
        months=tuple(month_performances),
        tested_auc=tested_auc,
        notes=tuple(notes),
    )


def clustered_share(hits: NDArray[np.bool_], customers: NDArray[np.str_]) -> Interval:
    """Return a share of rows with its 95 % interval, rows of a customer as one draw: Wilson's interval at the effective number of rows.

    That is the number of independent rows with the variance that customers show (Kish, *Survey Sampling*, 1965, on design effects).
    """
    n, value = len(hits), float(hits.mean())
    customer_number = np.unique(customers, return_inverse=True)[1]
    sums = np.bincount(customer_number, hits - value)
    variance = float((sums**2).sum()) / n**2 * len(sums) / max(len(sums) - 1, 1)
    effective_rows = min(value * (1 - value) / variance, n) if variance > 0 else len(sums)
    interval = metrics.wilson_interval(value * effective_rows, effective_rows)  # type: ignore[arg-type]
    return Interval(value, max(interval.low, 0.0), min(interval.high, 1.0))


def to_table_rows(findings: MonitoringFindings) -> list[dict[str, Any]]:
    """Return the findings as rows with ``window``, ``metric``, ``value``, ``low``, ``high``, ``meaning``; a window has a metric once."""
    rows: list[dict[str, Any]] = []

    def add(window: str, metric: str, value: float, low: float | None = None, high: float | None = None, meaning: str = "") -> None:
        rows.append({"window": window, "metric": metric, "value": float(value), "low": low, "high": high, "meaning": meaning})

    add(findings.window, "confirmed_drift", len(findings.confirmed), meaning="; ".join(findings.confirmed) or findings.verdict)
    for result in (findings.score, findings.features):
        for column in () if result is None else result.columns:
            meaning_of_psi = "population stability index; high: what it stays below in 95 % of windows without drift"
            add(findings.window, f"psi_{column.name}", column.psi, high=column.psi_limit, meaning=meaning_of_psi)
            movement = describe_movement(column, findings.medians.get(column.name))
            add(findings.window, f"p_value_{column.name}", column.adjusted_p_value, meaning=f"{movement}; adjusted for all that was tested")
    for share in findings.shares:
        add(share.window, f"share_{share.decision}", share.share.value, share.share.low, share.share.high, "share of the decision")
    for name, value in findings.estimated.items():
        add(
            findings.window,
            f"estimated_{name}",
            value.value,
            value.low,
            value.high,
            f"from the probabilities of {findings.n_estimated} rows",
        )
    for figure in findings.reconciled:
        meaning = f"promised {figure.estimated:.4f}; the difference {'may be chance' if figure.agrees else 'is more than chance'}"
        add(findings.reconciled_on, f"realised_{figure.figure}", figure.realised, meaning=meaning)
        add(
            findings.reconciled_on,
            f"difference_{figure.figure}",
            figure.difference.value,
            figure.difference.low,
            figure.difference.high,
            meaning,
        )
    for month in findings.months:
        for name, interval in (("rate", month.rate), ("auc", month.auc)):
            add(month.window, f"month_estimated_{name}", interval.value, interval.low, interval.high, f"of {month.n} rows")
        for name, realised in (("rate", month.realised_rate), ("auc", month.realised_auc)):
            if realised is not None:
                add(month.window, f"month_realised_{name}", realised, meaning="what came true")
    return rows


def describe_movement(column: drift.ColumnDrift, medians: tuple[float, float] | None = None) -> str:
    """Return how a column moved, in words: the direction of its values, or the range that changed most."""
    phrases = []
    missing = next((item for item in column.bins if item.label == "missing"), None)
    if missing is not None and abs(missing.current - missing.reference) >= MIN_REPORTED_MOVE:
        phrases.append(f"missing in {missing.current:.0%} of rows, before in {missing.reference:.0%}")
    if abs(column.exceeds - 0.5) >= MIN_REPORTED_MOVE:
        direction = "higher" if column.exceeds > 0.5 else "lower"
        reference_median, current_median = map(drift.format_number, medians or (0.0, 0.0))
        phrases.append(
            direction if reference_median == current_median else f"{direction}: median {reference_median} before, {current_median} now"
        )
    largest = column.largest_move
    if not phrases and (column.is_drift or abs(largest.current - largest.reference) >= MIN_REPORTED_MOVE):
        range_name = column.ranges[column.bins.index(largest)]
        phrases.append(f"spread differently ({range_name}: {largest.reference:.1%} before, {largest.current:.1%} now)")
    return "; ".join(phrases) or "hardly"


def describe_figure(figure: str) -> str:
    """Return a figure's short name: ``precision_at_0.5`` is the precision at 0.5."""
    name, _, threshold = figure.partition("_at_")
    words = {"rate": "share of outcomes", "auc": "AUC", "brier": "Brier score"}.get(name, name)
    return f"{words} at {float(threshold):.3g}" if threshold else words


def _compare_columns(names: Sequence[str], reference: Floats, current: Floats, customers: tuple[Any, Any], seed: int) -> drift.Drift:
    return drift.compare(names, reference, current, reference_customers=customers[0], current_customers=customers[1], seed=seed)


def _median(values: Floats) -> float:
    present = values[~np.isnan(values)]
    return float(np.median(present)) if len(present) else float("nan")


def _estimate_figures(rows: MonitoredRows, is_estimated: NDArray[np.bool_], thresholds: Sequence[float], seed: int) -> dict[str, Interval]:
    """Return the estimated figures; empty where hardly an outcome is expected."""
    p = rows.probability[is_estimated]
    if not 1 <= p.sum() <= len(p) - 1:
        return {}
    figures = performance.estimate(p, thresholds=thresholds, customers=rows.customer[is_estimated], draws=DRAWS, seed=seed)
    return {name: interval for name, interval in figures.items() if np.isfinite([interval.value, interval.low, interval.high]).all()}


def _months_to_reconcile(rows: MonitoredRows, since: Sequence[Month]) -> tuple[Month, ...]:
    """Return the fewest newest months with known outcomes that hold enough of either kind; empty where even all do not."""
    mature = [month for month in since if _is_mature(rows, month)]
    for k in WINDOW_MONTHS:
        window = mature[-k:]
        in_window = np.isin(rows.month, window)
        kinds = (rows.outcome[in_window] == 1, rows.outcome[in_window] == 0)
        if all(len(np.unique(rows.customer[in_window][kind])) >= MIN_OUTCOMES for kind in kinds):
            return tuple(window)
        if k >= len(mature):
            break
    return ()


def _is_mature(rows: MonitoredRows, month: Month) -> bool:
    """Return whether at least half of a month's outcomes are known; the outcomes of people who left stay unknown."""
    outcome = rows.outcome[rows.month == month]
    return len(outcome) > 0 and bool(np.isnan(outcome).mean() <= 0.5)


def _month_performance(rows: MonitoredRows, month: Month, seed: int) -> MonthPerformance | None:
    in_month = rows.month == month
    figures = _estimate_figures(rows, in_month, (), seed)
    if not {"rate", "auc"} <= figures.keys():
        return None
    is_known = in_month & ~np.isnan(rows.outcome)
    realised_rate = realised_auc = None
    if _is_mature(rows, month):
        outcome = rows.outcome[is_known]
        realised_rate = float(outcome.mean())
        if 0 < outcome.sum() < len(outcome):
            realised_auc = metrics.auc(outcome, rows.probability[is_known]).value
    return MonthPerformance(str(month), int(in_month.sum()), figures["rate"], figures["auc"], realised_rate, realised_auc)


def _decision_shares(rows: MonitoredRows, windows: ComparedWindows) -> list[DecisionShare]:
    # From the lowest score up, so that decisions stand in their own order.
    kinds = sorted(set(rows.decision.tolist()), key=lambda kind: (float(np.median(rows.score[rows.decision == kind])), kind))
    months = sorted({*windows.reference, *windows.since}) if windows.current or windows.since else []
    parts = [(str(month), rows.month == month) for month in months] or [("all", np.ones(len(rows.month), dtype=bool))]
    shares = []
    for name, in_window in parts:
        if in_window.any():
            shares += [
                DecisionShare(name, kind, clustered_share(rows.decision[in_window] == kind, rows.customer[in_window])) for kind in kinds
            ]
    return shares
