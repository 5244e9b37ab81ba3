"""Pictures of a model, as PNG bytes: how it ranks, whether its probabilities hold, what moves it.

Only drawing belongs here; figures come from `evaluate`. The same input gives the same bytes. Colours are those of Okabe & Ito,
which colour-blind people can tell apart.
"""

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.evaluation import metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)))
GREY = "#767676"
_DPI = 100
_POINTS = 400
"""Dots a row of the SHAP picture shows at most: more only hide each other."""
_CORNERS = 2000
"""Points that a curve is drawn with at most."""


def roc_pr(labels: ArrayLike, scores: Mapping[str, ArrayLike]) -> bytes:
    """Draw the ROC and the precision-recall curve of one or more scores, each with its AUC or average precision.

    Parameters
    ----------
    labels : array-like of bool or 0/1, shape (n,)
    scores
        Name -> scores, shape (n,).
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    target = np.asarray(labels).astype(bool)
    figure, (roc, pr) = _panels(2)
    roc.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    pr.axhline(target.mean(), color=GREY, linewidth=0.8)
    for k, (name, score) in enumerate(scores.items()):
        style: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)], "linestyle": LINES[k % len(LINES)], "linewidth": 1.6}
        false_positive, true_positive, _ = roc_curve(target, score)
        precision, recall, _ = precision_recall_curve(target, score)
        area = metrics.auc(target, score)
        roc.plot(*_thinned(false_positive, true_positive), label=f"{name}  {area.value:.3f} [{area.low:.3f}, {area.high:.3f}]", **style)
        mean = metrics.average_precision(target, score)
        pr.plot(*_thinned(recall, precision), label=f"{name}  {mean:.3f}", drawstyle="steps-post", **style)
    _label(roc, "ROC: area with 95 % interval", "share of the good that are caught too", "share of the bad that are caught")
    _label(pr, "Precision and recall: average precision", "share of the bad that are caught", "share of the caught that are bad")
    roc.legend(loc="lower right", fontsize=8)
    pr.legend(loc="upper right", fontsize=8)
    return _png(figure)


def calibration(labels: ArrayLike, probability: ArrayLike, bins: int = 10) -> bytes:
    """Draw said against seen rates in groups of equal size, each with its 95 % Jeffreys interval."""
    from scipy.stats import beta

    said, seen, n = metrics.calibration_bins(labels, probability, bins)
    defaults = np.rint(seen * n)
    low, high = (beta.ppf(q, defaults + 0.5, n - defaults + 0.5) for q in (0.025, 0.975))
    figure, (axes,) = _panels(1)
    top = float(max(said.max(), high.max())) * 1.05
    axes.plot([0, top], [0, top], color=GREY, linewidth=0.8, label="said = seen")
    axes.vlines(said, low, high, color=COLOURS[0], linewidth=1.4)
    axes.plot(said, seen, "o", color=COLOURS[0], label=f"groups of about {round(float(n.mean()))}")
    error = metrics.expected_calibration_error(labels, probability, bins)
    _label(axes, f"Calibration: expected error {error:.4f}", "mean probability said", "share seen, with 95 % interval")
    axes.legend(loc="upper left", fontsize=8)
    return _png(figure)


def scores(labels: ArrayLike, probability: ArrayLike, thresholds: Mapping[str, float] | None = None) -> bytes:
    """Draw the distribution of the probability for either outcome, and the thresholds of the decision."""
    target, p = np.asarray(labels).astype(bool), np.asarray(probability, np.float64)
    figure, (axes,) = _panels(1)
    edges = np.linspace(0, max(float(p.max()), 1e-6), 41)
    for k, (name, rows) in enumerate((("good", ~target), ("bad", target))):
        if rows.any():
            axes.hist(
                p[rows], edges.tolist(), weights=np.full(int(rows.sum()), 100 / rows.sum()), histtype="step", linewidth=1.6,
                color=COLOURS[k], linestyle=LINES[k], label=f"{name} ({int(rows.sum()):,})",
            )  # fmt: skip
    for k, (name, value) in enumerate(sorted((thresholds or {}).items(), key=lambda item: item[1])):
        axes.axvline(value, color=GREY, linestyle=LINES[(k + 2) % len(LINES)], linewidth=1, label=f"{name} {value:.3f}")
    _label(axes, "Distribution of the probability", "probability", "percent of the outcome's rows")
    axes.legend(loc="upper right", fontsize=8)
    return _png(figure)


def shap_summary(contributions: ArrayLike, rows: ArrayLike, names: Sequence[str], top: int = 15) -> bytes:
    """Draw what moves the margin: one line of dots per feature, the strongest first.

    Parameters
    ----------
    contributions : array-like of shape (n, d)
        SHAP values in margin units.
    rows : array-like of shape (n, d)
        The features' values, NaN where missing; a dot's colour is its value's rank, grey where missing.
    names
        Of the d features.
    top
        Features shown.

    Notes
    -----
    The picture is the summary plot of Lundberg & Lee (2017). Of many rows, evenly spaced ones are shown.
    """
    from matplotlib import colormaps
    from scipy.stats import rankdata

    phi, x = np.asarray(contributions, np.float64), np.asarray(rows, np.float64)
    if phi.shape != x.shape or phi.ndim != 2 or phi.shape[1] != len(names):
        raise ValueError(f"contributions have the shape {phi.shape}, rows {x.shape}, names {len(names)}: they must agree")
    strength = np.abs(phi).mean(axis=0)
    shown = np.argsort(-strength, kind="stable")[:top]
    picked = np.unique(np.linspace(0, len(phi) - 1, min(len(phi), _POINTS)).astype(int))
    longest = max(len(f"{names[k]}  {strength[k]:.3f}") for k in shown)
    figure, (axes,) = _panels(1, height=1.2 + 0.32 * len(shown), width=8.0, left=0.3 + 0.073 * longest)
    axes.axvline(0, color=GREY, linewidth=0.8)
    for line, feature in enumerate(shown[::-1]):
        effect, value = phi[picked, feature], x[picked, feature]
        missing = np.isnan(value)
        rank = np.full(len(value), np.nan)
        if (~missing).any():
            rank[~missing] = (rankdata(value[~missing]) - 1) / max(int((~missing).sum()) - 1, 1)
        colours = colormaps["cividis"](np.nan_to_num(rank, nan=0.5))
        colours[missing] = (0.6, 0.6, 0.6, 1.0)
        axes.scatter(effect, line + _spread(effect), s=6, c=colours, linewidths=0)
    axes.set_yticks(range(len(shown)), [f"{names[k]}  {strength[k]:.3f}" for k in shown[::-1]], fontsize=8)
    _label(axes, "What moves the score (feature, mean effect)", "effect on the margin; dark low, bright high, grey missing", "")
    return _png(figure)


def _thinned(*line: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Evenly spaced points of a line: of more one sees nothing, and dashes along 100,000 points take seconds."""
    picked = np.unique(np.linspace(0, len(line[0]) - 1, min(len(line[0]), _CORNERS)).astype(int))
    return [one[picked] for one in line]


def _spread(effect: NDArray[np.float64]) -> NDArray[np.float64]:
    """Heights that part dots of nearly the same effect, within ±0.38: by their order in a bin, not at random."""
    width = np.ptp(effect) / 60 or 1.0
    _, place = np.unique(np.floor(effect / width), return_inverse=True)
    height = np.zeros(len(effect))
    largest = max(int(np.bincount(place).max()), 1)
    for one in np.unique(place):
        inside = np.flatnonzero(place == one)
        order = np.arange(len(inside))
        height[inside] = np.where(order % 2, -1, 1) * (order + 1) // 2 / largest * 0.76
    return height


def _panels(count: int, *, width: float = 6.0, height: float = 4.2, left: float = 0.65) -> "tuple[Figure, Sequence[Axes]]":
    """A figure of that many panels, all in inches; `left` is the room for what stands beside the axis of a panel."""
    # A figure of its own, without pyplot: no global state, and no display is looked for.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    # Known margins: a layout that is looked for draws everything twice.
    right, bottom, top = 0.2, 0.55, 0.4
    figure.subplots_adjust(
        left / (width * count),
        bottom / height,
        1 - right / (width * count),
        1 - top / height,
        wspace=(left + right) / (width - left - right),
    )
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _label(axes: "Axes", title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def _png(figure: "Figure") -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
