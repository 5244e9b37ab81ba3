"""Charts for HTML pages, as inline SVG text: bars of two windows, shares by month, and a figure by month with its interval.

Only drawing belongs here. A chart weighs a few kilobytes and takes no time, unlike the PNG plots in `plots`, whose colours are shared.
"""

from collections.abc import Mapping, Sequence
from html import escape

from finrisk_assets.modelling.evaluation.metrics import Interval
from finrisk_assets.modelling.evaluation.plots import COLOURS, GREY
from finrisk_assets.modelling.monitoring.drift import ColumnDrift

REFERENCE_COLOUR, CURRENT_COLOUR, REALISED_COLOUR = "#9aa5b1", COLOURS[0], COLOURS[1]
BAND_COLOUR = "#e6e9ed"
ORDER_COLOURS = ("#d5dde5", "#8fbfde", "#0072b2", "#003f63")
"""Colours of ordered things, from the smallest on."""
GRID_COLOUR = "#dfe4ea"


def draw_legend(entries: Sequence[tuple[str, str]]) -> str:
    """Return the legend of a chart: (words, colour) each."""
    return '<p class="legend">' + "".join(f'<span><i style="background:{c}"></i>{escape(name)}</span>' for name, c in entries) + "</p>"


def draw_bars(column: ColumnDrift, width: int = 470) -> str:
    """Draw the share of each range of values in both windows, as a pair of bars."""
    bins = column.bins
    left, row, bar = 150, 24, 9
    most = max(max(bin_.reference, bin_.current) for bin_ in bins) or 1.0
    scale = (width - left - 84) / most
    parts = []
    for at, (bin_, name) in enumerate(zip(bins, column.ranges, strict=True)):
        y = at * row + 4
        parts.append(_text(left - 8, y + 13, name, "end"))
        for offset, share, colour in ((0, bin_.reference, REFERENCE_COLOUR), (bar + 1, bin_.current, CURRENT_COLOUR)):
            parts.append(_box(left, y + offset, share * scale, bar, colour, f"{name}: {share:.1%}"))
        ends = left + max(bin_.reference, bin_.current) * scale
        parts.append(_text(ends + 6, y + 13, f"{bin_.reference:.0%} → {bin_.current:.0%}", size=10))
    return _wrap_svg(width, len(bins) * row + 8, parts)


def draw_stack(windows: Sequence[str], shares: Mapping[str, Sequence[float]], gap: int = 0, width: int = 960, height: int = 240) -> str:
    """Draw shares that add up to 1 as a column for each window.

    Parameters
    ----------
    shares
        Name -> its share in each window, from the bottom up.
    gap
        Number of columns before a gap: those that the others are compared with.
    """
    left, bottom, top = 44, 24, 8
    step = (width - left) / (len(windows) + (0.6 if gap else 0))
    tall = height - bottom - top
    parts = [_grid(left, width, top + tall * (1 - share), f"{share:.0%}") for share in (0, 0.25, 0.5, 0.75, 1)]
    for at, window in enumerate(windows):
        x = left + step * (at + (0.6 if gap and at >= gap else 0))
        y = float(top + tall)
        for (name, values), colour in zip(shares.items(), order_colours(len(shares)), strict=True):
            high = values[at] * tall
            y -= high
            parts.append(_box(x + step * 0.12, y, step * 0.76, high, colour, f"{window}, {name}: {values[at]:.1%}"))
        parts.append(_text(x + step / 2, height - 8, window, "middle", 10))
    return _wrap_svg(width, height, parts)


def draw_series(
    windows: Sequence[str],
    estimated: Sequence[Interval],
    realised: Sequence[float | None],
    band: Interval | None = None,
    width: int = 960,
    height: int = 200,
) -> str:
    """Draw a figure by month: the estimate with its interval, and the realised value where it is known; `band` lies behind."""
    left, bottom, top = 44, 24, 10
    known_values = [value for value in realised if value is not None]
    ends = [
        *(interval.low for interval in estimated),
        *(interval.high for interval in estimated),
        *known_values,
        *([band.low, band.high] if band else []),
    ]
    low, high = min(ends), max(ends)
    room = (high - low) * 0.08 or 0.01
    low, high = low - room, high + room
    tall, step = height - bottom - top, (width - left) / len(windows)

    def place(value: float) -> float:
        return top + tall * (high - value) / (high - low)

    parts = []
    if band is not None:
        band_title = f"evaluation: {band.value:.3f} ({band.low:.3f} to {band.high:.3f})"
        parts.append(_box(left, place(band.high), width - left, place(band.low) - place(band.high), BAND_COLOUR, band_title))
    parts += [_grid(left, width, place(low + (high - low) * k / 4), f"{low + (high - low) * k / 4:.3f}") for k in range(5)]
    for at, (window, interval, value) in enumerate(zip(windows, estimated, realised, strict=True)):
        x = left + step * (at + 0.5)
        title = f"{window}: estimated {interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"
        parts.append(_box(x - 9, place(interval.high), 5, max(place(interval.low) - place(interval.high), 1), CURRENT_COLOUR + "66", title))
        parts.append(_dot(x - 6.5, place(interval.value), CURRENT_COLOUR, title))
        if value is not None:
            parts.append(_dot(x + 6.5, place(value), REALISED_COLOUR, f"{window}: came true {value:.3f}"))
        parts.append(_text(x, height - 8, window, "middle", 10))
    return _wrap_svg(width, height, parts)


def order_colours(n: int) -> list[str]:
    """Return the colours of `n` ordered things; the colours repeat where there are more."""
    return [ORDER_COLOURS[k % len(ORDER_COLOURS)] for k in range(n)]


def _wrap_svg(width: int, height: int, parts: Sequence[str]) -> str:
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" font-family="inherit">{"".join(parts)}</svg>'


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="#1d2733">{escape(words)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str, words: str) -> str:
    size = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {size} fill="{colour}"><title>{escape(words)}</title></rect>'


def _dot(x: float, y: float, colour: str, words: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"><title>{escape(words)}</title></circle>'


def _grid(left: float, right: float, y: float, words: str) -> str:
    line = f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GRID_COLOUR}"/>'
    return line + f'<text x="{left - 6}" y="{y + 3.5:.1f}" text-anchor="end" font-size="10" fill="{GREY}">{escape(words)}</text>'
