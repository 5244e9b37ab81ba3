"""Tests of the bounded ratio and of the annuity: one result for numbers, arrays and columns, under each rule."""

import math
from itertools import product
from typing import get_args

import ibis
import numpy as np
import pandas as pd
import pytest

from finrisk_assets.features import arithmetic
from finrisk_assets.scoring.annuity import instalment, instalment_to_cent
from finrisk_assets.scoring.ratios import NoWhole, ratio, ratios

PARTS_AND_WHOLES = list(product([-5.0, -0.1, 0.0, 3.0, 99.0, math.nan], [-2.0, 0.0, 0.5, 4.0, math.nan]))


@pytest.mark.parametrize("no_whole", get_args(NoWhole))
def test_numbers_arrays_and_columns_have_one_ratio(no_whole: NoWhole) -> None:
    parts, wholes = np.array(PARTS_AND_WHOLES).T
    numbers = [ratio(part, whole, 10.0, no_whole=no_whole) for part, whole in PARTS_AND_WHOLES]
    np.testing.assert_array_equal(ratios(parts, wholes, 10.0, no_whole=no_whole), numbers)
    table = ibis.memtable(pd.DataFrame({"at": range(len(parts)), "part": parts, "whole": wholes}))
    known = table.mutate(part=table.part.nullif(math.nan), whole=table.whole.nullif(math.nan))
    column = known.select("at", value=arithmetic.ratio(known.part, known.whole, 10.0, no_whole=no_whole)).execute().sort_values("at")
    np.testing.assert_array_equal(column.value.to_numpy(dtype=float), numbers)


@pytest.mark.parametrize(
    ("no_whole", "negative", "zero", "positive"),
    [("largest_or_zero", 0, 0, 10), ("signed_largest", -10, 0, 10), ("largest", 10, 10, 10), ("missing", *[math.nan] * 3)],
)
def test_the_rule_decides_where_the_whole_is_not_above_zero(no_whole: NoWhole, negative: float, zero: float, positive: float) -> None:
    for whole in (0.0, -1.0):
        values = [ratio(part, whole, no_whole=no_whole) for part in (-1.0, 0.0, 1.0)]
        np.testing.assert_array_equal(values, [negative, zero, positive])


def test_arrays_and_columns_have_one_instalment_and_a_number_has_it_to_the_cent() -> None:
    amounts, rates, terms = np.array(list(product([100.0, 5_432.1], [0.0, 1e-15, 1e-7, 5.5, 30.0], [1.0, 24.0]))).T
    table = ibis.memtable(pd.DataFrame({"at": range(len(amounts)), "amount": amounts, "rate": rates, "term": terms}))
    column = table.select("at", value=arithmetic.instalment(table.amount, table.rate, table.term)).execute().sort_values("at").value
    np.testing.assert_allclose(column, instalment(amounts, rates, terms), rtol=1e-12)
    numbers = [instalment_to_cent(amount, rate, term) for amount, rate, term in zip(amounts, rates, terms, strict=True)]
    np.testing.assert_allclose(numbers, instalment(amounts, rates, terms), atol=0.005 + 1e-9)
