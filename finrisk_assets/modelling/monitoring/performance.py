"""Performance before labels are known, and its comparison with the labels later: probabilities in, figures out.

`estimate` gives the figures that calibrated probabilities imply; `reconcile` compares them with the labels. Figures of a window whose
labels are all known are in `metrics`; drift of the inputs is in `drift`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.evaluation.metrics import CONFIDENCE_LEVEL, Interval

Floats = NDArray[np.float64]
MAX_LABELS_PER_BATCH = 5_000_000
"""Labels drawn per batch (40 MB); more take more memory."""


@dataclass(frozen=True)
class Reconciliation:
    """One figure as estimated and as realised.

    Attributes
    ----------
    figure
        Name of the figure, as in `estimate`.
    estimated, realised
        The figure by the probabilities and by the labels, on the same rows.
    difference
        Realised less estimated, with its interval. The intervals of all figures together hold at the level.
    agrees
        Whether the difference's interval contains 0.
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
    level: float = CONFIDENCE_LEVEL,
    draws: int = 500,
    seed: int,
) -> dict[str, Interval]:
    """Return the figures to expect from labels that are not known yet, if the probabilities are calibrated.

    Parameters
    ----------
    probability : array-like, shape (n,)
        Calibrated probabilities of the outcome.
    thresholds
        Rows at or above a threshold are positives; each threshold gives a precision and a recall, unless no row reaches it.
    customers : array-like, shape (n,), optional
        The customer of each row. With customers, the outcomes of a customer are assumed to coincide as closely as their probabilities
        allow, which gives the widest likely intervals under any dependence within customers. Without, rows are independent.
    level, draws, seed
        Level of the intervals; number of draws of the labels, and their seed.

    Returns
    -------
    dict of str to Interval
        ``rate`` (share of outcomes), ``auc``, ``brier``, and ``precision_at_<t>`` and ``recall_at_<t>`` for every threshold. An
        interval predicts the figure of *these* rows, not of their population.

    Raises
    ------
    ValueError
        For probabilities outside 0 to 1, or when fewer than one outcome, or fewer than one row without it, is expected.

    Notes
    -----
    Confidence-based performance estimation: a row of probability p counts as p positives and 1 - p negatives, so every cell
    of the confusion matrix, and every pair of the ROC curve, has an expectation without a label (NannyML's documentation,
    *Performance estimation*; Kivimäki, Białek, Kuberski & Nurminen, *Performance estimation in binary classification using
    calibrated confidence*, arXiv 2505.05295). A ratio is estimated by the ratio of expectations. Intervals come from labels drawn
    from the probabilities. The estimate follows a change of the inputs; it does not notice when the same inputs come to mean
    another risk. Only labels show that: see `reconcile`.
    """
    p = _check_probabilities(probability)
    label_figures = _LabelFigures(p, thresholds)
    if not 1 <= p.sum() <= len(p) - 1:
        raise ValueError(f"{p.sum():.2g} of {len(p)} rows are expected to have the outcome: too few, or too many, to estimate anything")
    rng = np.random.default_rng(seed)
    values = _draw_figures(rng, label_figures, p, None if customers is None else _customer_numbers(customers, len(p)), draws)
    tail = (1 - level) / 2
    low, high = np.nanquantile(values, [tail, 1 - tail], axis=0)
    expected = label_figures.expected()
    return {name: Interval(float(expected[k]), float(low[k]), float(high[k])) for k, name in enumerate(label_figures.names)}


def reconcile(
    probability: ArrayLike,
    labels: ArrayLike,
    *,
    thresholds: Sequence[float] = (),
    customers: ArrayLike | None = None,
    level: float = CONFIDENCE_LEVEL,
    draws: int = 1_000,
    seed: int,
) -> list[Reconciliation]:
    """Compare the figures implied by the probabilities with those of the labels.

    Parameters
    ----------
    probability, thresholds, level, draws, seed
        As in `estimate`.
    labels : array-like of bool or 0/1, shape (n,)
        The outcomes of the same rows.
    customers : array-like, shape (n,), optional
        The customer of each row. With customers, whole customers vary together, and rows of one customer may depend on each other in any
        way. About twenty customers with the outcome are needed.

    Raises
    ------
    ValueError
        As `estimate`, and for labels of another shape, not 0 or 1, or of one kind only.

    Notes
    -----
    Without customers, the distribution of the differences under calibrated probabilities is that of labels drawn from them. With
    customers it comes from the residuals, label less probability: the wild bootstrap weighs those of each customer at random, which
    preserves their size, their skewness (by Mammen's two-point weights) and their dependence (Mammen, Annals of Statistics 1993; for
    clusters Cameron, Gelbach & Miller, Review of Economics and Statistics 2008). The largest of the differences over their standard
    deviations gives one critical value for all figures, so calibrated probabilities disagree in any figure in 1 - `level` of windows.
    """
    p = _check_probabilities(probability)
    target = np.asarray(labels, dtype=np.float64)
    if target.shape != p.shape or not np.isin(target, (0, 1)).all():
        raise ValueError(f"labels have the shape {target.shape}, probabilities {p.shape}: one label, 0 or 1, is needed per probability")
    if not 0 < target.sum() < len(target):
        raise ValueError(f"{int(target.sum())} of {len(target)} rows have the outcome: a comparison needs rows with and without it")
    label_figures = _LabelFigures(p, thresholds)
    expected, realised = label_figures.expected(), label_figures.from_sums(label_figures.sums(target[None, :]))[0]
    rng = np.random.default_rng(seed)
    if customers is None:
        noise = _draw_figures(rng, label_figures, p, None, draws) - expected
        deviation = np.sqrt(np.nanmean(noise**2, axis=0))
        ratios = noise / np.where(deviation > 0, deviation, np.inf)
    else:
        deviation, ratios = _bootstrap_residuals(rng, label_figures, target - p, _customer_numbers(customers, len(p)), draws)
    critical = float(np.quantile(np.nanmax(np.abs(ratios), axis=1), level))
    reconciliations = []
    for name, estimated, actual, figure_deviation in zip(label_figures.names, expected, realised, deviation, strict=True):
        difference = Interval(
            float(actual - estimated),
            float(actual - estimated - critical * figure_deviation),
            float(actual - estimated + critical * figure_deviation),
        )
        reconciliations.append(Reconciliation(name, float(estimated), float(actual), difference, difference.low <= 0 <= difference.high))
    return reconciliations


class _LabelFigures:
    """The figures of fixed probabilities as functions of sums over the labels."""

    def __init__(self, p: Floats, thresholds: Sequence[float]) -> None:
        from scipy.stats import rankdata

        self._p = p
        # The k-th smallest probability exceeds k - 1 others; ties count half.
        below = rankdata(p) - 1
        flagged = {threshold: p >= threshold for threshold in thresholds}
        self._flagged = {threshold: rows.sum() for threshold, rows in flagged.items() if rows.any()}
        self.names = ["rate", "auc", "brier"] + [f"{what}_at_{t:g}" for t in self._flagged for what in ("precision", "recall")]
        self.columns = np.column_stack([np.ones(len(p)), below, 1 - 2 * p, *(flagged[t] for t in self._flagged)]).astype(np.float64)

    def sums(self, labels: Floats) -> Floats:
        """Return the sums of labels of shape (draws, n): outcomes, pairs, Brier's part, and hits at each threshold."""
        return np.asarray(labels @ self.columns)

    def from_sums(self, sums: Floats) -> Floats:
        """Return the figures of each row of sums, shape (draws, figures); NaN where a figure is not defined."""
        events, below, misses, *hits = sums.T
        pairs_of_events = events * (events - 1) / 2
        return self._figures(events, below - pairs_of_events, events * (len(self._p) - events), misses, hits)

    def expected(self) -> Floats:
        """Return the ratios of expectations, shape (figures,); no row is paired with itself."""
        p = self._p
        (events, below, misses, *hits) = self.sums(p[None, :])[0]
        expected_pairs = events**2 - np.sum(p**2)
        return self._figures(events, below - expected_pairs / 2, events * (len(p) - 1) - expected_pairs, misses, hits)

    def gradients(self) -> Floats:
        """Return the change of each figure per unit of each sum, with the probabilities as labels, shape (sums, figures)."""
        centre = self.sums(self._p[None, :])
        step = np.diag(np.maximum(np.abs(centre[0]), 1.0) * 1e-5)
        return np.asarray((self.from_sums(centre + step) - self.from_sums(centre - step)) / (2 * np.diag(step)[:, None]))

    def _figures(self, events: Floats, ordered: Floats, pairs: Floats, misses: Floats, hits: list[Floats]) -> Floats:
        n = len(self._p)
        with np.errstate(invalid="ignore", divide="ignore"):
            columns = [events / n, ordered / pairs, (np.sum(self._p**2) + misses) / n]
            for hit, flagged in zip(hits, self._flagged.values(), strict=True):
                columns += [hit / flagged, hit / events]
        return np.asarray(np.stack(columns, axis=-1), dtype=np.float64)


def _draw_figures(
    rng: np.random.Generator, label_figures: _LabelFigures, p: Floats, customer_number: NDArray[np.int64] | None, draws: int
) -> Floats:
    """Return the figures of labels drawn from the probabilities, shape (draws, figures), with one random number per row or per customer."""
    parts = []
    batch = max(1, MAX_LABELS_PER_BATCH // len(p))
    for start in range(0, draws, batch):
        n_drawn = min(batch, draws - start)
        chance = (
            rng.random((n_drawn, len(p)))
            if customer_number is None
            else rng.random((n_drawn, int(customer_number.max()) + 1))[:, customer_number]
        )
        parts.append(label_figures.from_sums(label_figures.sums((chance < p).astype(np.float64))))
    return np.vstack(parts)


def _bootstrap_residuals(
    rng: np.random.Generator, label_figures: _LabelFigures, residual: Floats, customer_number: NDArray[np.int64], draws: int
) -> tuple[Floats, Floats]:
    """Return each figure's standard deviation, and every draw's differences over their own, shape (draws, figures)."""
    # To first order a customer changes a figure by its part of the sums, times the gradients.
    parts = np.column_stack([np.bincount(customer_number, weights=column) for column in (label_figures.columns * residual[:, None]).T])
    influence = parts @ label_figures.gradients()
    low, high = (1 - np.sqrt(5)) / 2, (1 + np.sqrt(5)) / 2
    ratios = []
    batch = max(1, MAX_LABELS_PER_BATCH // len(influence))
    for start in range(0, draws, batch):
        weights = np.where(rng.random((min(batch, draws - start), len(influence))) < high / np.sqrt(5), low, high)
        deviation = np.sqrt(weights**2 @ influence**2)
        ratios.append((weights @ influence) / np.where(deviation > 0, deviation, np.inf))
    return np.sqrt((influence**2).sum(axis=0)), np.vstack(ratios)


def _check_probabilities(probability: ArrayLike) -> Floats:
    p = np.asarray(probability, dtype=np.float64)
    if p.ndim != 1 or not len(p):
        raise ValueError(f"probabilities have the shape {p.shape}: one per row is needed")
    outside = int((~((p >= 0) & (p <= 1))).sum())
    if outside:
        raise ValueError(f"{outside} of {len(p)} probabilities lie outside 0 to 1")
    return p


def _customer_numbers(customers: ArrayLike, n: int) -> NDArray[np.int64]:
    names = np.asarray(customers)
    if names.shape != (n,):
        raise ValueError(f"customers have the shape {names.shape}, probabilities ({n},): one customer per probability is needed")
    return np.asarray(np.unique(names.astype(str), return_inverse=True)[1], dtype=np.int64)
