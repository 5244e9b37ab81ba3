"""What is watched once a champion decides: whether its inputs and score moved since training, and how well it still does.

Arrays in, findings out. Which months are compared is chosen here, so that the same rule holds in every domain; the tests themselves
are in `drift` and `performance`, the words and pictures for a reader in `report`.
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
from finrisk_assets.modelling.training.intervals import wilson

LENGTHS = (1, 2, 3, 6, 12)
"""Months that a window may span."""
ENOUGH = 500
"""Customers from which a window is large enough: below it only large shifts are found (docs/drift.md has the table)."""
GROWTH = 1.2
"""A longer window is worth it while it brings a fifth more customers; in a panel the same ones come back every month."""
TOO_FEW = 30
"""With fewer customers in a window nothing is compared."""
FILLING = 3
"""The first months of training are no reference where there are others: what looks back over months is not full in them."""
SINCE = 12
"""Months since training that are followed, the newest ones."""
FEW_OUTCOMES = 20
"""Customers with the outcome, and without it, from which outcomes are held against what was promised."""
CERTAIN = 0.99
"""Level at which outcomes contradict a model: a request to train is to be rare where nothing is wrong."""
NOTABLE = 0.02
"""A move below this share of rows is not put into words."""
DRAWS = 200
"""Draws of an estimate's interval."""

Floats = NDArray[np.float64]
Month = np.datetime64
"""A calendar month, ``datetime64[M]``."""


@dataclass(frozen=True)
class ComparedWindows:
    """Which months are compared.

    Attributes
    ----------
    reference, current
        Months of the champion's training window, and the newest full ones; both empty where nothing can be compared.
    since
        Full months after training, the newest `SINCE`.
    why
        How they were chosen, or why there are none.
    """

    reference: tuple[Month, ...] = ()
    current: tuple[Month, ...] = ()
    since: tuple[Month, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Rows:
    """The rows of the months that are watched.

    Attributes
    ----------
    month : ndarray of datetime64[M], shape (n,)
        Not a time where the source knows none.
    customer, decision : ndarray of str, shape (n,)
    features : ndarray, shape (n, k)
        NaN where missing.
    score, probability : ndarray, shape (n,)
        The margin that decides, and the calibrated probability of the outcome.
    outcome : ndarray, shape (n,)
        1 or 0, NaN where it is not known yet.
    """

    month: NDArray[np.datetime64]
    customer: NDArray[np.str_]
    decision: NDArray[np.str_]
    features: Floats
    score: Floats
    probability: Floats
    outcome: Floats


@dataclass(frozen=True)
class Share:
    """The share of one decision in one window (a month, or ``all``), with its interval."""

    window: str
    decision: str
    share: Interval


@dataclass(frozen=True)
class Followed:
    """One month since training: what the probabilities promise, and what came true; None where it cannot be said, or not yet."""

    window: str
    n: int
    rate: Interval
    auc: Interval
    seen_rate: float | None
    seen_auc: float | None


@dataclass(frozen=True)
class Findings:
    """What one run found.

    Attributes
    ----------
    windows
        The months compared.
    features, score
        Their drift, each family of tests at its own false-alarm rate; None where nothing can be compared.
    medians
        Feature (or ``score``) to its median before and now.
    shares
        Of each decision, by month.
    estimated, estimated_on, n_estimated
        Figures of the newest rows from their probabilities alone, the window's name, and how many rows.
    is_before_labels
        Whether those rows have no outcome yet.
    reconciled, reconciled_on
        What was promised beside what came true, and in which window.
    followed
        The months since training.
    tested_auc
        Of the champion on its frozen test window, when it was evaluated.
    notes
        What could not be done, and why.
    """

    windows: ComparedWindows
    features: drift.Drift | None
    score: drift.Drift | None
    medians: Mapping[str, tuple[float, float]]
    shares: tuple[Share, ...]
    estimated: Mapping[str, Interval]
    estimated_on: str
    n_estimated: int
    is_before_labels: bool
    reconciled: tuple[performance.Reconciled, ...]
    reconciled_on: str
    followed: tuple[Followed, ...]
    tested_auc: Interval | None
    notes: tuple[str, ...] = field(default=())

    @property
    def window(self) -> str:
        """The current window's name."""
        return span(self.windows.current) or "all"

    @property
    def confirmed(self) -> tuple[str, ...]:
        """Why a new model is to be trained; empty where drift is not confirmed.

        Moved features alone confirm nothing: in real windows some nearly always move. Either the score moved and outcomes contradict
        the probabilities, or the AUC that the probabilities promise lies, interval and all, below that of the evaluation.
        """
        found = []
        wrong = [one for one in self.reconciled if not one.agrees]
        if self.score is not None and self.score.drifted and wrong:
            said = ", ".join(f"{in_words(one.figure)} {one.realised:.3f} where {one.estimated:.3f} was promised" for one in wrong)
            found.append(f"the score has moved, and the outcomes of {self.reconciled_on} contradict the model: {said}")
        auc = self.estimated.get("auc")
        if auc is not None and self.tested_auc is not None and auc.high < self.tested_auc.low:
            found.append(
                f"the AUC estimated for {self.estimated_on} is {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f}), wholly below the "
                f"{self.tested_auc.low:.3f} to {self.tested_auc.high:.3f} of the evaluation"
            )
        return tuple(found)

    @property
    def verdict(self) -> str:
        """One sentence on all of it."""
        if self.confirmed:
            return "Drift is confirmed: a new model is to be trained."
        if self.features is None or self.score is None:
            return "There is nothing to compare."
        moved, of = len(self.features.drifted), len(self.features.columns)
        inputs = f"{moved} of {of} features moved" if moved else f"None of {of} features moved"
        if self.score.drifted:
            outcome = "and outcomes agree with what was promised" if self.reconciled and self._agrees else "and no outcomes contradict it"
            return f"The score has moved, {outcome}; {inputs[0].lower()}{inputs[1:]}."
        return f"{inputs}; the score did not."

    @property
    def _agrees(self) -> bool:
        return all(one.agrees for one in self.reconciled)


# Months ------------------------------------------------------------------------------------------------------------------------


def choose(months: Sequence[Month], training: tuple[str, str] | None, customers: Callable[[Sequence[Month]], int]) -> ComparedWindows:
    """Choose the months to compare.

    Parameters
    ----------
    months
        Full months that have rows, ascending.
    training
        First and last day (ISO) of the rows that taught; None where they have no time. A row of midnight on the first of a month
        tells about the month before and belongs to it.
    customers
        Counts the customers of some months.

    Returns
    -------
    Windows
        The current window is the fewest newest months that hold `ENOUGH` customers; a longer one is not taken where it hardly brings
        new ones. The reference is as many months of the training window: the same ones of an earlier year where they are there, since
        the test would take a season for drift, else its last.
    """
    if training is None or not len(months):
        return ComparedWindows(why="The rows are all of one moment: there is no earlier window to compare with.")
    first, last = (month_of(np.datetime64(day)) for day in training)
    taught = [one for one in months if one >= first and _end(one) <= np.datetime64(training[1]) + np.timedelta64(1, "D")]
    later = [one for one in months if one > last]
    since = tuple(later[-SINCE:])
    if not taught or not later:
        return ComparedWindows(
            since=since, why=f"There is no full month {'since' if taught else 'within'} training ({' to '.join(training)})."
        )
    taught = taught[FILLING:] or taught
    length = _length(min(len(taught), len(later)), lambda k: customers(later[-k:]))
    current = tuple(later[-length:])
    for years in range(1, 11):
        reference = tuple(one - np.timedelta64(12 * years, "M") for one in current)
        if set(reference) <= set(taught):
            why = "the same months of an earlier year, so that a season is not taken for drift"
            break
    else:
        reference = tuple(taught[-length:])
        why = "the last months of training; training does not hold the same months of an earlier year, so that a season may show as drift"
    for window, which in ((reference, "reference"), (current, "current window")):
        n = customers(window)
        if n < TOO_FEW:
            return ComparedWindows(since=since, why=f"The {which}, {span(window)}, has {n} customers: {TOO_FEW} are needed to compare.")
    return ComparedWindows(reference, current, since, f"{span(current)} is compared with {span(reference)}: {why}.")


def month_of(moment: np.datetime64) -> Month:
    """The month that a moment tells about: midnight on the first closes the month before."""
    return (moment.astype("datetime64[us]") - np.timedelta64(1, "us")).astype("datetime64[M]")


def span(months: Sequence[Month]) -> str:
    """Months in words: ``2024-06``, ``2024-05 to 2024-06``; empty for none."""
    return "" if not len(months) else str(months[0]) if len(months) == 1 else f"{months[0]} to {months[-1]}"


def _end(month: Month) -> np.datetime64:
    return (month + np.timedelta64(1, "M")).astype("datetime64[D]")


def _length(longest: int, customers: Callable[[int], int]) -> int:
    """The number of months of a window, by the rule of `choose`."""
    counted = [(k, customers(k)) for k in LENGTHS[:1]]
    for k in LENGTHS[1:]:
        if counted[-1][1] >= ENOUGH or k > longest:
            break
        counted.append((k, customers(k)))
    for (k, n), (_, more) in pairwise(counted):
        if more < GROWTH * n:
            return k
    return counted[-1][0]


# Findings ----------------------------------------------------------------------------------------------------------------------


def observe(
    names: Sequence[str],
    rows: Rows,
    windows: ComparedWindows,
    *,
    thresholds: Sequence[float] = (),
    tested_auc: Interval | None = None,
    is_probability: bool = True,
    seed: int,
) -> Findings:
    """Compare the windows, estimate the newest one, and hold the estimates against what came true.

    Parameters
    ----------
    names
        Of the columns of ``rows.features``.
    rows
        Of all months of `windows`; where it has none, of the only moment there is.
    thresholds
        Probabilities from which decisions turn.
    tested_auc
        Of the champion on its frozen test window, with the interval of its evaluation.
    is_probability
        False for a score that only ranks: then nothing can be estimated.
    seed
        Of all draws.
    """
    notes = [] if windows.current else [windows.why]
    now = np.isin(rows.month, windows.current) if windows.current else np.ones(len(rows.month), dtype=bool)
    before = np.isin(rows.month, windows.reference)
    features = score = None
    medians: dict[str, tuple[float, float]] = {}
    if windows.current:
        owners = rows.customer[before], rows.customer[now]
        if names:
            features = _compared(names, rows.features[before], rows.features[now], owners, seed)
        score = _compared(["score"], rows.score[before, None], rows.score[now, None], owners, seed)
        medians = {name: (_median(rows.features[before, k]), _median(rows.features[now, k])) for k, name in enumerate(names)}
        medians["score"] = (_median(rows.score[before]), _median(rows.score[now]))
    unknown = now & np.isnan(rows.outcome)
    estimated_rows = unknown if unknown.any() else now
    estimated: dict[str, Interval] = {}
    reconciled: list[performance.Reconciled] = []
    matured: tuple[Month, ...] = ()
    followed: list[Followed] = []
    if is_probability:
        estimated = _estimated(rows, estimated_rows, thresholds, seed)
        if not estimated:
            notes.append("Too few outcomes are expected in the newest window to estimate anything.")
        matured = _matured(rows, windows.since)
        if matured:
            at = np.isin(rows.month, matured) & ~np.isnan(rows.outcome)
            reconciled = performance.reconcile(
                rows.probability[at],
                rows.outcome[at],
                thresholds=thresholds,
                customers=rows.customer[at],
                level=CERTAIN,
                seed=seed,
            )
        elif windows.current:
            notes.append("No month since training has outcomes enough to hold the estimates against: that comes later.")
        followed = [one for one in (_followed(rows, month, seed) for month in windows.since) if one is not None]
    else:
        notes.append("The score ranks and is no probability: how well it does cannot be estimated before labels are known.")
    return Findings(
        windows=windows,
        features=features,
        score=score,
        medians=medians,
        shares=tuple(_shares(rows, windows)),
        estimated=estimated,
        estimated_on=span(windows.current) or "all rows",
        n_estimated=int(estimated_rows.sum()),
        is_before_labels=bool(unknown.any()),
        reconciled=tuple(reconciled),
        reconciled_on=span(matured),
        followed=tuple(followed),
        tested_auc=tested_auc,
        notes=tuple(notes),
    )


def share(hits: NDArray[np.bool_], customers: NDArray[np.str_]) -> Interval:
    """Return a share of rows with its 95 % interval, customers counted once: Wilson's, at the number of rows that are worth as much.

    The number is that of independent rows with the variance that customers show (Kish, *Survey Sampling*, 1965, on design effects).
    """
    n, value = len(hits), float(hits.mean())
    owner = np.unique(customers, return_inverse=True)[1]
    sums = np.bincount(owner, hits - value)
    variance = float((sums**2).sum()) / n**2 * len(sums) / max(len(sums) - 1, 1)
    worth = min(value * (1 - value) / variance, n) if variance > 0 else len(sums)
    found = wilson(value * worth, worth)  # type: ignore[arg-type]
    return Interval(value, max(found.low, 0.0), min(found.high, 1.0))


def figures(found: Findings) -> list[dict[str, Any]]:
    """The findings as rows of a table: ``window``, ``metric``, ``value``, ``low``, ``high``, ``meaning``; no window has a metric twice."""
    rows: list[dict[str, Any]] = []

    def add(window: str, metric: str, value: float, low: float | None = None, high: float | None = None, meaning: str = "") -> None:
        rows.append({"window": window, "metric": metric, "value": float(value), "low": low, "high": high, "meaning": meaning})

    add(found.window, "confirmed_drift", len(found.confirmed), meaning="; ".join(found.confirmed) or found.verdict)
    for compared in (found.score, found.features):
        for column in () if compared is None else compared.columns:
            limit = "population stability index; high: what it stays below in 95 % of windows without drift"
            add(found.window, f"psi_{column.name}", column.psi, high=column.psi_limit, meaning=limit)
            moved = movement(column, found.medians.get(column.name))
            add(found.window, f"p_value_{column.name}", column.adjusted_p_value, meaning=f"{moved}; adjusted for all that was tested")
    for one in found.shares:
        add(one.window, f"share_{one.decision}", one.share.value, one.share.low, one.share.high, "share of the decision")
    for name, value in found.estimated.items():
        add(found.window, f"estimated_{name}", value.value, value.low, value.high, f"from the probabilities of {found.n_estimated} rows")
    for pair in found.reconciled:
        meaning = f"promised {pair.estimated:.4f}; the difference {'may be chance' if pair.agrees else 'is more than chance'}"
        add(found.reconciled_on, f"realised_{pair.figure}", pair.realised, meaning=meaning)
        add(found.reconciled_on, f"difference_{pair.figure}", pair.difference.value, pair.difference.low, pair.difference.high, meaning)
    for month in found.followed:
        for name, interval in (("rate", month.rate), ("auc", month.auc)):
            add(month.window, f"month_estimated_{name}", interval.value, interval.low, interval.high, f"of {month.n} rows")
        for name, seen in (("rate", month.seen_rate), ("auc", month.seen_auc)):
            if seen is not None:
                add(month.window, f"month_realised_{name}", seen, meaning="what came true")
    return rows


def movement(column: drift.ColumnDrift, medians: tuple[float, float] | None = None) -> str:
    """How a column moved, in words: where its values went, or which range lost or gained most."""
    said = []
    missing = next((one for one in column.bins if one.label == "missing"), None)
    if missing is not None and abs(missing.current - missing.reference) >= NOTABLE:
        said.append(f"missing in {missing.current:.0%} of rows, before in {missing.reference:.0%}")
    if abs(column.exceeds - 0.5) >= NOTABLE:
        way = "higher" if column.exceeds > 0.5 else "lower"
        before, now = map(drift.number, medians or (0.0, 0.0))
        said.append(way if before == now else f"{way}: median {before} before, {now} now")
    most = column.largest_move
    if not said and (column.is_drift or abs(most.current - most.reference) >= NOTABLE):
        where = column.ranges[column.bins.index(most)]
        said.append(f"spread differently ({where}: {most.reference:.1%} before, {most.current:.1%} now)")
    return "; ".join(said) or "hardly"


def in_words(figure: str) -> str:
    """A figure's short name: ``precision_at_0.5`` is the precision at 0.5."""
    name, _, turn = figure.partition("_at_")
    said = {"rate": "share of outcomes", "auc": "AUC", "brier": "Brier score"}.get(name, name)
    return f"{said} at {float(turn):.3g}" if turn else said


def _compared(names: Sequence[str], before: Floats, now: Floats, owners: tuple[Any, Any], seed: int) -> drift.Drift:
    return drift.compare(names, before, now, reference_customers=owners[0], current_customers=owners[1], seed=seed)


def _median(values: Floats) -> float:
    present = values[~np.isnan(values)]
    return float(np.median(present)) if len(present) else float("nan")


def _estimated(rows: Rows, at: NDArray[np.bool_], thresholds: Sequence[float], seed: int) -> dict[str, Interval]:
    """The figures that the probabilities promise; none where they promise hardly an outcome."""
    p = rows.probability[at]
    if not 1 <= p.sum() <= len(p) - 1:
        return {}
    found = performance.estimate(p, thresholds=thresholds, customers=rows.customer[at], draws=DRAWS, seed=seed)
    return {name: one for name, one in found.items() if np.isfinite([one.value, one.low, one.high]).all()}


def _matured(rows: Rows, since: Sequence[Month]) -> tuple[Month, ...]:
    """The fewest newest months whose outcomes are known that hold enough of either kind; none where all of them do not."""
    ripe = [one for one in since if _is_ripe(rows, one)]
    for k in LENGTHS:
        window = ripe[-k:]
        at = np.isin(rows.month, window)
        kinds = (rows.outcome[at] == 1, rows.outcome[at] == 0)
        if all(len(np.unique(rows.customer[at][kind])) >= FEW_OUTCOMES for kind in kinds):
            return tuple(window)
        if k >= len(ripe):
            break
    return ()


def _is_ripe(rows: Rows, month: Month) -> bool:
    """Whether half of a month's outcomes are known; people who left never have one."""
    outcome = rows.outcome[rows.month == month]
    return len(outcome) > 0 and bool(np.isnan(outcome).mean() <= 0.5)


def _followed(rows: Rows, month: Month, seed: int) -> Followed | None:
    at = rows.month == month
    found = _estimated(rows, at, (), seed)
    if not {"rate", "auc"} <= found.keys():
        return None
    known = at & ~np.isnan(rows.outcome)
    seen_rate = seen_auc = None
    if _is_ripe(rows, month):
        outcome = rows.outcome[known]
        seen_rate = float(outcome.mean())
        if 0 < outcome.sum() < len(outcome):
            seen_auc = metrics.auc(outcome, rows.probability[known]).value
    return Followed(str(month), int(at.sum()), found["rate"], found["auc"], seen_rate, seen_auc)


def _shares(rows: Rows, windows: ComparedWindows) -> list[Share]:
    # From the lowest score up, so that decisions stand in their own order.
    kinds = sorted(set(rows.decision.tolist()), key=lambda kind: (float(np.median(rows.score[rows.decision == kind])), kind))
    months = sorted({*windows.reference, *windows.since}) if windows.current or windows.since else []
    parts = [(str(month), rows.month == month) for month in months] or [("all", np.ones(len(rows.month), dtype=bool))]
    found = []
    for name, at in parts:
        if at.any():
            found += [Share(name, kind, share(rows.decision[at] == kind, rows.customer[at])) for kind in kinds]
    return found
