"""Tests of what the benchmark of scale measures with: its transactions and its slope."""

import duckdb
import pytest

from benchmarks.feature_growth import DAYS, PER_CUSTOMER, draw_transactions, find_slope


def test_the_transactions_are_as_dense_as_the_handbooks():
    connection = duckdb.connect()
    draw_transactions(connection, 70_000)
    n, customers, fraud, negative, days = connection.sql(
        """select count(distinct transaction_id), count(distinct customer_id), avg(is_fraud::int), count(*) filter (amount < 0),
        date_diff('day', min(occurred_at), max(occurred_at)) from transactions"""
    ).fetchone()
    assert n == 70_000 and negative == 0 and days == DAYS - 1
    assert customers == pytest.approx(70_000 / PER_CUSTOMER, rel=0.05)
    assert fraud == pytest.approx(0.008, rel=0.2)


def test_the_slope_is_the_exponent_of_the_growth():
    assert find_slope([10, 100, 1000], [3.0, 300.0, 30_000.0]) == pytest.approx(2.0)
