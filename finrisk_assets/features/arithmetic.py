"""Arithmetic that features share, as Ibis expressions: bounded ratios, money in whole units, time in whole microseconds.

Money is added up in whole ten-thousandths and time is compared in whole microseconds, so that neither the engine nor the order of the
rows changes a value.
"""

import math
from collections.abc import Sequence

import ibis
import ibis.expr.types as ir

from finrisk_assets.scoring.annuity import NO_INTEREST
from finrisk_assets.scoring.ratios import LARGEST_RATIO, NoWhole
from schemas.timestamps import EPOCH

UNITS_PER_CURRENCY = 10_000
"""Whole units in one unit of currency. Fewer round away decimals that a source has; more leave less room in 64 bits."""


def to_units(amount: ir.Value) -> ir.IntegerValue:
    """Return an amount in currency as a whole number of ten-thousandths."""
    return (amount * UNITS_PER_CURRENCY).round().cast("int64")


def to_currency(units: ir.Value) -> ir.FloatingValue:
    """Return an amount in ten-thousandths as currency."""
    return units.cast("float64") / UNITS_PER_CURRENCY


def epoch_micros(time: ir.Value) -> ir.IntegerValue:
    """Return a timestamp as whole microseconds since 1970."""
    return time.delta(ibis.timestamp(EPOCH), unit="microsecond")


def clip(value: ir.Value, lowest: float, highest: float) -> ir.Value:
    """Keep a value within bounds; null stays null (the engines' own least and greatest pass over it)."""
    return ibis.cases((value > highest, highest), (value < lowest, lowest), else_=value)


def ratio(part: ir.Value, whole: ir.Value, largest: float = LARGEST_RATIO, *, no_whole: NoWhole = "largest_or_zero") -> ir.Value:
    """Return ``part / whole``, kept within ±`largest`; null where either is null.

    Parameters
    ----------
    part, whole
        In one unit.
    largest
        Bound on either side of 0.
    no_whole
        Rule for a whole that is not above 0; see `finrisk_assets.scoring.ratios.NoWhole`.
    """
    part, whole = part.cast("float64"), whole.cast("float64")
    without_whole = {
        "largest_or_zero": ((part > 0, largest), (part <= 0, 0.0)),
        "signed_largest": ((part > 0, largest), (part < 0, -largest), (part == 0, 0.0)),
        "largest": ((part.notnull(), largest),),
        "missing": (),
    }[no_whole]
    return ibis.cases(
        (whole > 0, clip(part / whole.nullif(0), -largest, largest)),
        *(((whole <= 0) & holds, value) for holds, value in without_whole),
        else_=ibis.null("float64"),
    )


def share(part: ir.Value, whole: ir.Value) -> ir.Value:
    """Return ``part / whole``, not bounded; null where the whole is not above 0."""
    return part / (whole > 0).ifelse(whole, ibis.null("float64"))


def finite(value: ir.Value) -> ir.Value:
    """Return the value, null where it is not a finite number."""
    return ibis.cases((value.abs() < math.inf, value), else_=ibis.null("float64"))


def instalment(amount: ir.Value, annual_rate_pct: ir.Value, term_months: ir.Value) -> ir.Value:
    """Return the monthly instalment of an annuity, not rounded, as `finrisk_assets.scoring.annuity.instalment` computes it."""
    monthly, months = annual_rate_pct / 1200, term_months.cast("float64")
    safe = (monthly > NO_INTEREST).ifelse(monthly, 1.0)
    return amount * (monthly > NO_INTEREST).ifelse(safe / (1 - (1 + safe) ** (-months)), 1 / months)


def median_of_first(values: Sequence[ir.Value], n: ir.IntegerValue) -> ir.FloatingValue:
    """Return the median of the first `n` values of each row; null where `n` is not within 1..len(values).

    The rank of each value is counted, because engines differ in how they sort lists and in how they halve an even number.

    Parameters
    ----------
    values
        Whole numbers, none null.
    n
        How many of them count.
    """
    total: ir.Value = ibis.literal(0)
    for at, value in enumerate(values):
        smaller = [
            ((n > place) & ((other <= value) if place < at else (other < value))).cast("int64")
            for place, other in enumerate(values)
            if place != at
        ]
        rank = sum(smaller[1:], smaller[0])
        # 2 in the middle place, 1 in each of two middle places, else 0; the rank stands in it once, because it is long.
        weight = ibis.greatest(2 - (rank * 2 - n + 1).abs(), 0)
        total = total + (n > at).ifelse(weight, 0) * value
    return ((n >= 1) & (n <= len(values))).ifelse(total.cast("float64") / 2, ibis.null("float64"))
