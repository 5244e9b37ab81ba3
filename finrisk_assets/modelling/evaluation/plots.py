"""Plots of a model, as PNG bytes: ranking, calibration, the distribution of scores, and the effect of features.

Figures come from `metrics`. The same input gives the same bytes. Colours are those of Okabe & Ito, which colour-blind people can tell
apart.
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
_MAX_DOTS = 400
"""Dots per row of the SHAP plot; more only hide each other."""
MISSING_COLOUR = "#d62728"
"""Colour of a missing value: no colour of the scale from dark blue to yellow, which is grey in its middle."""
_MAX_CURVE_POINTS = 2000
"""Points per curve; more are invisible."""


def plot_roc_pr(labels: ArrayLike, scores: Mapping[str, ArrayLike]) -> bytes:
    """Draw the ROC and the precision-recall curve of one or more scores, each with its AUC or average precision.

    Parameters
    ----------
    labels : array-like of bool or 0/1, shape (n,)
    scores
        Name -> scores, shape (n,).
    """
    from sklearn.metrics import precision_recall_curve, roc_curve

    target = np.asarray(labels).astype(bool)
    figure, (roc, pr) = _make_panels(2)
    roc.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    pr.axhline(target.mean(), color=GREY, linewidth=0.8)
    for k, (name, score) in enumerate(scores.items()):
        style: dict[str, Any] = {"color": COLOURS[k % len(COLOURS)], "linestyle": LINES[k % len(LINES)], "linewidth": 1.6}
        false_positive, true_positive, _ = roc_curve(target, score)
        precision, recall, _ = precision_recall_curve(target, score)
        area = metrics.auc(target, score)
        roc.plot(*_thin(false_positive, true_positive), label=f"{name}  {area.value:.3f} [{area.low:.3f}, {area.high:.3f}]", **style)
        mean = metrics.average_precision(target, score)
        pr.plot(*_thin(recall, precision), label=f"{name}  {mean:.3f}", drawstyle="steps-post", **style)
    _label_axes(roc, "ROC: area with 95 % interval", "share of the good that are caught too", "share of the bad that are caught")
    _label_axes(pr, "Precision and recall: average precision", "share of the bad that are caught", "share of the caught that are bad")
    roc.legend(loc="lower right", fontsize=8)
    pr.legend(loc="upper right", fontsize=8)
    return _to_png(figure)


def plot_calibration(labels: ArrayLike, probability: ArrayLike, bins: int = 10) -> bytes:
    """Draw observed against predicted rates in groups of equal size, each with its 95 % Jeffreys interval."""
    from scipy.stats import beta

    predicted, observed, n = metrics.calibration_bins(labels, probability, bins)
    defaults = np.rint(observed * n)
    low, high = (beta.ppf(q, defaults + 0.5, n - defaults + 0.5) for q in (0.025, 0.975))
    figure, (axes,) = _make_panels(1)
    top = float(max(predicted.max(), high.max())) * 1.05
    axes.plot([0, top], [0, top], color=GREY, linewidth=0.8, label="predicted = observed")
    axes.vlines(predicted, low, high, color=COLOURS[0], linewidth=1.4)
    axes.plot(predicted, observed, "o", color=COLOURS[0], label=f"groups of about {round(float(n.mean()))}")
    error = metrics.expected_calibration_error(labels, probability, bins)
    _label_axes(axes, f"Calibration: expected error {error:.3g}", "mean predicted probability", "observed share, with 95 % interval")
    axes.legend(loc="upper left", fontsize=8)
    return _to_png(figure)


def plot_scores(labels: ArrayLike, probability: ArrayLike, thresholds: Mapping[str, float] | None = None) -> bytes:
    """Draw the distribution of the probability for either outcome, and the thresholds of the decision."""
    target, p = np.asarray(labels).astype(bool), np.asarray(probability, np.float64)
    figure, (axes,) = _make_panels(1)
    edges = np.linspace(0, max(float(p.max()), 1e-6), 41)
    for k, (name, rows) in enumerate((("good", ~target), ("bad", target))):
        if rows.any():
            axes.hist(
                p[rows], edges.tolist(), weights=np.full(int(rows.sum()), 100 / rows.sum()), histtype="step", linewidth=1.6,
                color=COLOURS[k], linestyle=LINES[k], label=f"{name} ({int(rows.sum()):,})",
            )  # fmt: skip
    for k, (name, value) in enumerate(sorted((thresholds or {}).items(), key=lambda item: item[1])):
        axes.axvline(value, color=GREY, linestyle=LINES[(k + 2) % len(LINES)], linewidth=1, label=f"{name} {value:.3f}")
    _label_axes(axes, "Distribution of the probability", "probability", "percent of the outcome's rows")
    axes.legend(loc="upper right", fontsize=8)
    return _to_png(figure)


def plot_shap_summary(contributions: ArrayLike, rows: ArrayLike, names: Sequence[str], top: int = 15) -> bytes:
    """Draw the effect of features on the margin: one line of dots per feature, the strongest first.

    Parameters
    ----------
    contributions : array-like of shape (n, d)
        SHAP values in margin units.
    rows : array-like of shape (n, d)
        Values of the features, NaN where missing; a dot's colour is its value's rank, and a missing value is a cross beside the scale.
    names
        Names of the d features.
    top
        Number of features shown.

    Raises
    ------
    ValueError
        For shapes that differ.

    Notes
    -----
    This is the summary plot of Lundberg & Lee (2017). Of many rows, evenly spaced ones are shown.
    """
    from matplotlib import colormaps

    phi, x = np.asarray(contributions, np.float64), np.asarray(rows, np.float64)
    if phi.shape != x.shape or phi.ndim != 2 or phi.shape[1] != len(names):
        raise ValueError(f"contributions have the shape {phi.shape}, rows {x.shape}, names {len(names)}: they must agree")
    strength = np.abs(phi).mean(axis=0)
    shown = np.argsort(-strength, kind="stable")[:top]
    picked = np.unique(np.linspace(0, len(phi) - 1, min(len(phi), _MAX_DOTS)).astype(int))
    longest = max(len(f"{names[k]}  {strength[k]:.3g}") for k in shown)
    figure, (axes,) = _make_panels(1, height=1.2 + 0.32 * len(shown), width=8.0, left=0.3 + 0.073 * longest)
    axes.axvline(0, color=GREY, linewidth=0.8)
    for line, feature in enumerate(shown[::-1]):
        effect, value = phi[picked, feature], x[picked, feature]
        missing = np.isnan(value)
        height = line + _spread_dots(effect)
        colours = colormaps["cividis"](_rank_values(value[~missing]))
        axes.scatter(effect[~missing], height[~missing], s=6, c=colours, linewidths=0)
        axes.scatter(effect[missing], height[missing], s=9, c=MISSING_COLOUR, marker="x", linewidths=0.8)
    axes.set_yticks(range(len(shown)), [f"{names[k]}  {strength[k]:.3g}" for k in shown[::-1]], fontsize=8)
    _label_axes(axes, "What moves the score (feature, mean effect)", "effect on the margin; dark low, bright high, red cross missing", "")
    return _to_png(figure)


def _rank_values(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return each value's rank from 0 to 1; equal values share the lowest of their ranks, so that many zeros are low."""
    first = np.searchsorted(np.sort(values), values, side="left").astype(np.float64)
    return first / max(first.max(initial=0.0), 1.0)


def _thin(*line: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return evenly spaced points of a line: more are invisible, and dashes along 100,000 points take seconds."""
    indices = np.unique(np.linspace(0, len(line[0]) - 1, min(len(line[0]), _MAX_CURVE_POINTS)).astype(int))
    return [values[indices] for values in line]


def _spread_dots(effect: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return heights within ±0.38 that separate dots of nearly the same effect, by their order in a bin and not at random."""
    width = np.ptp(effect) / 60 or 1.0
    _, place = np.unique(np.floor(effect / width), return_inverse=True)
    height = np.zeros(len(effect))
    largest = max(int(np.bincount(place).max()), 1)
    for bin_number in np.unique(place):
        inside = np.flatnonzero(place == bin_number)
        order = np.arange(len(inside))
        height[inside] = np.where(order % 2, -1, 1) * (order + 1) // 2 / largest * 0.76
    return height


def _make_panels(count: int, *, width: float = 6.0, height: float = 4.2, left: float = 0.65) -> "tuple[Figure, Sequence[Axes]]":
    """Return a figure of that many panels, all in inches; `left` is the width left of a panel's axis."""
    # Without pyplot there is no global state, and no display is needed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count, height), dpi=_DPI)
    FigureCanvasAgg(figure)
    # An automatic layout would draw everything twice.
    right, bottom, top = 0.2, 0.55, 0.4
    figure.subplots_adjust(
        left / (width * count),
        bottom / height,
        1 - right / (width * count),
        1 - top / height,
        wspace=(left + right) / (width - left - right),
    )
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _label_axes(axes: "Axes", title: str, x: str, y: str) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def _to_png(figure: "Figure") -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()
