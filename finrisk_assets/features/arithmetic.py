"""Arithmetic of features as Ibis expressions: what a ratio is where its whole is nothing, and what is kept within bounds."""

import math

import ibis
import ibis.expr.types as ir

LARGEST_RATIO = 10.0


def clip(value: ir.Value, lowest: float, highest: float) -> ir.Value:
    """Keep a value within bounds; null stays null (the engines' own least and greatest pass over it)."""
    return ibis.cases((value > highest, highest), (value < lowest, lowest), else_=value)


def ratio(part: ir.Value, whole: ir.Value, largest: float = LARGEST_RATIO) -> ir.Value:
    """`part / whole`, kept within ±`largest`; where the whole is not above 0, `largest` if the part is, else 0."""
    return ibis.cases(
        (whole > 0, clip(part / whole.nullif(0), -largest, largest)),
        ((whole <= 0) & (part > 0), largest),
        ((whole <= 0) & (part <= 0), 0.0),
        else_=ibis.null("float64"),
    )


def share(part: ir.Value, whole: ir.Value) -> ir.Value:
    """`part / whole`, null where the whole is not above 0."""
    return part / (whole > 0).ifelse(whole, ibis.null("float64"))


def finite(value: ir.Value) -> ir.Value:
    """The value, null where it is not a finite number."""
    return ibis.cases((value.abs() < math.inf, value), else_=ibis.null("float64"))
