"""How well a model does before its labels are known, and whether the labels then agree: probabilities in, figures out.

What a calibrated probability says of itself is `estimate`; what the labels say of it later is `reconcile`. Figures of a window whose
labels are all known are in `evaluate`; whether the inputs have moved is in `drift`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.evaluation.metrics import LEVEL, Interval

Floats = NDArray[np.float64]
AT_ONCE = 5_000_000
"""Labels drawn at once: 40 MB."""


@dataclass(frozen=True)
class Reconciled:
    """One figure as it was estimated and as it came out.

    Attributes
    ----------
    figure
        Its name, as in `estimate`.
    estimated, realised
        What the probabilities promised and what the labels show, on the same rows.
    difference
        Realised less estimated, with its interval. The intervals of all figures together hold at the level.
    agrees
        Whether the difference's interval holds 0.
    """

    figure: str
    estimated: float
    realised: float
    difference: Interval
    agrees: bool


def estimate(
    probability: ArrayLike,
    *,
    thresholds: Sequence[float] = (),
    customers: ArrayLike | None = None,
    level: float = LEVEL,
    draws: int = 500,
    seed: int,
) -> dict[str, Interval]:
    """Return the figures that labels, not known yet, are expected to show if the probabilities are calibrated.

    Parameters
    ----------
    probability : array-like, shape (n,)
        Calibrated probabilities of the outcome.
    thresholds
        Rows at or above one are positives; each gives a precision and a recall. One without such rows is left out.
    customers : array-like, shape (n,), optional
        Whose row it is. Given, the outcomes of one customer are taken to come together as closely as their probabilities allow:
        the widest intervals that any dependence within customers is likely to give. Without them rows are independent.
    level, draws, seed
        Level of the intervals; number of times that labels are drawn, and their seed.

    Returns
    -------
    dict of str to Interval
        ``rate`` (share of outcomes), ``auc``, ``brier``, and ``precision_at_<t>`` and ``recall_at_<t>`` for every threshold. An
        interval says where the figure of *these* rows will lie, not that of their population.

    Raises
    ------
    ValueError
        For probabilities outside 0 to 1, or when fewer than one outcome, or fewer than one row without it, is expected.

    Notes
    -----
    Confidence-based performance estimation: a row of probability p counts as p positives and 1 - p negatives, so that every cell
    of the confusion matrix, and every pair of the ROC curve, has an expectation without a label (NannyML's documentation,
    *Performance estimation*; Kivimäki, Białek, Kuberski & Nurminen, *Performance estimation in binary classification using
    calibrated confidence*, arXiv 2505.05295). A ratio is estimated by the ratio of expectations. Intervals come from labels drawn
    from the probabilities. The estimate follows a change of the inputs; it cannot see that the same inputs have come to mean
    another risk. Only labels show that: see `reconcile`.
    """
    p = _probabilities(probability)
    figures = _Figures(p, thresholds)
    if not 1 <= p.sum() <= len(p) - 1:
        raise ValueError(f"{p.sum():.2g} of {len(p)} rows are expected to have the outcome: too few, or too many, to estimate anything")
    rng = np.random.default_rng(seed)
    values = _drawn(rng, figures, p, None if customers is None else _owners(customers, len(p)), draws)
    tail = (1 - level) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail], axis=0)
    expected = figures.expected()
    return {name: Interval(float(expected[k]), float(low[k]), float(high[k])) for k, name in enumerate(figures.names)}


def reconcile(
    probability: ArrayLike,
    labels: ArrayLike,
    *,
    thresholds: Sequence[float] = (),
    customers: ArrayLike | None = None,
    level: float = LEVEL,
    draws: int = 1_000,
    seed: int,
) -> list[Reconciled]:
    """Compare what the probabilities promised with what the labels show, figure by figure.

    Parameters
    ----------
    probability, thresholds, level, draws, seed
        As in `estimate`.
    labels : array-like of bool or 0/1, shape (n,)
        The outcomes of the same rows.
    customers : array-like, shape (n,), optional
        Whose row it is. Given, whole customers vary together and rows of one may depend on each other in any way. It takes
        some twenty customers with the outcome.

    Raises
    ------
    ValueError
        As `estimate`, and for labels of another shape, not 0 or 1, or of one kind only.

    Notes
    -----
    Without customers the law of the differences, if the probabilities are calibrated, is that of labels drawn from them. With
    customers it comes from the residuals, label less probability: the wild bootstrap weighs those of each customer at random, which
    keeps their size, their skewness (by Mammen's two-point weights) and their dependence (Mammen, Annals of Statistics 1993; for
    clusters Cameron, Gelbach & Miller, Review of Economics and Statistics 2008). The largest of the differences over their standard
    deviations gives one critical value for all figures, so that calibrated probabilities disagree in any figure in 1 - `level` of windows.
    """
    p = _probabilities(probability)
    target = np.asarray(labels, dtype=np.float64)
    if target.shape != p.shape or not np.isin(target, (0, 1)).all():
        raise ValueError(f"labels have the shape {target.shape}, probabilities {p.shape}: one label, 0 or 1, is needed per probability")
    if not 0 < target.sum() < len(target):
        raise ValueError(f"{int(target.sum())} of {len(target)} rows have the outcome: a comparison needs rows with and without it")
    figures = _Figures(p, thresholds)
    expected, realised = figures.expected(), figures.of(figures.sums(target[None, :]))[0]
    rng = np.random.default_rng(seed)
    if customers is None:
        noise = _drawn(rng, figures, p, None, draws) - expected
        deviation = np.sqrt(np.nanmean(noise**2, axis=0))
        ratios = noise / np.where(deviation > 0, deviation, np.inf)
    else:
        deviation, ratios = _turned(rng, figures, target - p, _owners(customers, len(p)), draws)
    critical = float(np.quantile(np.nanmax(np.abs(ratios), axis=1), level))
    found = []
    for name, said, seen, spread in zip(figures.names, expected, realised, deviation, strict=True):
        difference = Interval(float(seen - said), float(seen - said - critical * spread), float(seen - said + critical * spread))
        found.append(Reconciled(name, float(said), float(seen), difference, difference.low <= 0 <= difference.high))
    return found


class _Figures:
    """The figures of fixed probabilities as functions of sums over the labels."""

    def __init__(self, p: Floats, thresholds: Sequence[float]) -> None:
        from scipy.stats import rankdata

        self._p = p
        # The k-th smallest probability has k - 1 below it; ties count half.
        below = rankdata(p) - 1
        flagged = {threshold: p >= threshold for threshold in thresholds}
        self._flagged = {threshold: rows.sum() for threshold, rows in flagged.items() if rows.any()}
        self.names = ["rate", "auc", "brier"] + [f"{what}_at_{t:g}" for t in self._flagged for what in ("precision", "recall")]
        self.columns = np.column_stack([np.ones(len(p)), below, 1 - 2 * p, *(flagged[t] for t in self._flagged)]).astype(np.float64)

    def sums(self, labels: Floats) -> Floats:
        """Return the sums of labels of shape (draws, n): outcomes, pairs, Brier's part, and hits at each threshold."""
        return np.asarray(labels @ self.columns)

    def of(self, sums: Floats) -> Floats:
        """Return the figures of each row of sums, shape (draws, figures); NaN where one is not defined."""
        events, below, misses, *hits = sums.T
        pairs_of_events = events * (events - 1) / 2
        return self._figures(events, below - pairs_of_events, events * (len(self._p) - events), misses, hits)

    def expected(self) -> Floats:
        """Return the ratios of expectations, shape (figures,); no row is paired with itself."""
        p = self._p
        (events, below, misses, *hits) = self.sums(p[None, :])[0]
        both = events**2 - np.sum(p**2)
        return self._figures(events, below - both / 2, events * (len(p) - 1) - both, misses, hits)

    def slopes(self) -> Floats:
        """Return how each figure moves with each sum where the labels are the probabilities, shape (sums, figures)."""
        centre = self.sums(self._p[None, :])
        step = np.diag(np.maximum(np.abs(centre[0]), 1.0) * 1e-5)
        return np.asarray((self.of(centre + step) - self.of(centre - step)) / (2 * np.diag(step)[:, None]))

    def _figures(self, events: Floats, ordered: Floats, pairs: Floats, misses: Floats, hits: list[Floats]) -> Floats:
        n = len(self._p)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = [events / n, ordered / pairs, (np.sum(self._p**2) + misses) / n]
            for hit, flagged in zip(hits, self._flagged.values(), strict=True):
                found += [hit / flagged, hit / events]
        return np.asarray(np.stack(found, axis=-1), dtype=np.float64)


def _drawn(rng: np.random.Generator, figures: _Figures, p: Floats, owner: NDArray[np.int64] | None, draws: int) -> Floats:
    """Return the figures of labels drawn from the probabilities, shape (draws, figures); with owners, by one chance for each."""
    found = []
    batch = max(1, AT_ONCE // len(p))
    for start in range(0, draws, batch):
        some = min(batch, draws - start)
        chance = rng.random((some, len(p))) if owner is None else rng.random((some, int(owner.max()) + 1))[:, owner]
        found.append(figures.of(figures.sums((chance < p).astype(np.float64))))
    return np.vstack(found)


def _turned(rng: np.random.Generator, figures: _Figures, residual: Floats, owner: NDArray[np.int64], draws: int) -> tuple[Floats, Floats]:
    """Return each figure's standard deviation, and of every draw the differences over their own, shape (draws, figures)."""
    # To first order a customer moves a figure by its part of the sums, times the slopes.
    parts = np.column_stack([np.bincount(owner, weights=column) for column in (figures.columns * residual[:, None]).T])
    influence = parts @ figures.slopes()
    low, high = (1 - np.sqrt(5)) / 2, (1 + np.sqrt(5)) / 2
    found = []
    batch = max(1, AT_ONCE // len(influence))
    for start in range(0, draws, batch):
        weights = np.where(rng.random((min(batch, draws - start), len(influence))) < high / np.sqrt(5), low, high)
        spread = np.sqrt(weights**2 @ influence**2)
        found.append((weights @ influence) / np.where(spread > 0, spread, np.inf))
    return np.sqrt((influence**2).sum(axis=0)), np.vstack(found)


def _probabilities(probability: ArrayLike) -> Floats:
    p = np.asarray(probability, dtype=np.float64)
    if p.ndim != 1 or not len(p):
        raise ValueError(f"probabilities have the shape {p.shape}: one per row is needed")
    outside = int((~((p >= 0) & (p <= 1))).sum())
    if outside:
        raise ValueError(f"{outside} of {len(p)} probabilities lie outside 0 to 1")
    return p


def _owners(customers: ArrayLike, n: int) -> NDArray[np.int64]:
    named = np.asarray(customers)
    if named.shape != (n,):
        raise ValueError(f"customers have the shape {named.shape}, probabilities ({n},): one customer per probability is needed")
    return np.asarray(np.unique(named.astype(str), return_inverse=True)[1], dtype=np.int64)
