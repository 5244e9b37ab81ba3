"""Tests of the drift test: the stated false-alarm rate under ties, gaps and repeated customers, and power against real shifts."""

import numpy as np
import pytest

from finrisk_assets.modelling.monitoring import drift

NAMES = ("amount", "times", "share", "gap")


def rows(rng, n):
    """Return four correlated columns: one without ties, a count of mostly 0, a point mass at 1, a fifth missing."""
    base = rng.standard_normal(n)
    share = np.where(rng.random(n) < 0.4, 1.0, rng.random(n))
    return np.column_stack(
        [np.exp(base), rng.poisson(0.1 * np.exp(base / 2)), share, np.where(rng.random(n) < 0.2, np.nan, base + rng.standard_normal(n))]
    )


def months(rng, people, each):
    """Return a panel in which each customer's rows are almost the same."""
    usual = np.repeat(rows(rng, people), each, axis=0)
    usual[:, 0] *= np.exp(0.1 * rng.standard_normal(len(usual)))
    return usual, np.repeat(rng.permutation(10 * people)[:people], each)


def share_of_alarms(compare, windows=400):
    """Return the share of windows in which any column drifted, and in which each column did by itself."""
    findings = [compare(np.random.default_rng([5, k]), k) for k in range(windows)]
    return np.mean([bool(one.drifted) for one in findings]), np.mean(
        [[c.p_value <= one.level for c in one.columns] for one in findings], axis=0
    )


@pytest.mark.parametrize(("n", "m"), [(200, 200), (900, 90)])
def test_without_drift_the_false_alarm_rate_is_the_stated_one(n, m):
    any_column, alone = share_of_alarms(lambda rng, seed: drift.compare(NAMES, rows(rng, n), rows(rng, m), draws=59, seed=seed))
    # Four standard errors of 400 windows.
    assert any_column == pytest.approx(0.05, abs=0.044)
    assert alone == pytest.approx(0.05, abs=0.044)
    assert min(any_column, *alone) > 0


def test_large_windows_are_dealt_by_a_coin_at_the_same_rate():
    n = drift.MAX_SHUFFLED_UNITS + 100
    any_column, _ = share_of_alarms(lambda rng, seed: drift.compare(NAMES, rows(rng, n), rows(rng, n), draws=39, seed=seed), windows=150)
    assert 0 < any_column < 0.05 + 0.071


def test_rows_of_one_customer_alarm_wrongly_until_the_customer_is_the_unit():
    def compare(rng, seed, clustered):
        before, owner = months(rng, 60, 6)
        now, other = months(rng, 60, 6)
        owners = {"reference_customers": owner, "current_customers": 1000 + other} if clustered else {}
        return drift.compare(NAMES, before, now, **owners, draws=39, seed=seed)

    naive, _ = share_of_alarms(lambda rng, seed: compare(rng, seed, False), windows=100)
    clustered, _ = share_of_alarms(lambda rng, seed: compare(rng, seed, True), windows=200)
    assert naive > 0.3
    assert 0 < clustered < 0.05 + 0.062


def test_a_customer_in_both_windows_is_compared_with_himself():
    def compare(rng, seed, moved):
        before, owner = months(rng, 100, 3)
        now = before * np.exp(0.1 * rng.standard_normal(len(before)) + moved)[:, None]
        return drift.compare(NAMES[:1], before[:, :1], now[:, :1], reference_customers=owner, current_customers=owner, draws=59, seed=seed)

    quiet, _ = share_of_alarms(lambda rng, seed: compare(rng, seed, 0.0), windows=200)
    assert 0 < quiet < 0.05 + 0.062
    findings = compare(np.random.default_rng(3), 3, 0.1)
    assert findings.n_shared == findings.n_reference == findings.n_current == 100
    # A tenth of what customers differ by: without the pairs nothing would show among 100.
    assert findings.columns[0].is_drift


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("amount", lambda values, rng: values * np.exp(0.3)),
        ("times", lambda values, rng: values + (rng.random(len(values)) < 0.06)),
        ("share", lambda values, rng: np.where(rng.random(len(values)) < 0.1, 0.0, values)),
        ("gap", lambda values, rng: np.where(rng.random(len(values)) < 0.1, np.nan, values)),
    ],
)
def test_what_moved_is_named_and_nothing_else(column, change):
    rng = np.random.default_rng(11)
    before, now = rows(rng, 1_500), rows(rng, 1_500)
    k = NAMES.index(column)
    now[:, k] = change(now[:, k], rng)
    findings = drift.compare(NAMES, before, now, seed=2)
    assert [one.name for one in findings.drifted] == [column]
    assert column in str(findings)


def test_a_wider_spread_is_drift_although_the_middle_stays():
    rng = np.random.default_rng(1)
    findings = drift.compare(["x"], rng.standard_normal((2_000, 1)), 1.3 * rng.standard_normal((2_000, 1)), seed=2)
    assert findings.columns[0].is_drift
    assert findings.columns[0].exceeds == pytest.approx(0.5, abs=0.03)


def test_the_bins_name_repeated_and_missing_values_and_say_what_changed():
    before, now = np.array([0.0] * 50 + [*range(1, 51)]), np.array([0.0] * 20 + [*range(1, 51)] + [np.nan] * 30)
    one = drift.compare(["x"], before[:, None], now[:, None], seed=1).columns[0]
    assert [bin.label for bin in one.bins[:2]] == ["missing", "0"]
    assert (one.bins[0].reference, one.bins[0].current) == (0.0, pytest.approx(0.3))
    assert (one.bins[1].reference, one.bins[1].current) == (pytest.approx(0.5), pytest.approx(0.2))
    assert sum(bin.current for bin in one.bins) == pytest.approx(1)
    assert one.largest_move.label in ("missing", "0")
    # A current 0 lies above half of the 50 zeros, any other above all of them and half of the rest.
    assert one.exceeds == pytest.approx((20 * 25 + 50 * 75) / (70 * 100), abs=1e-6)


def test_a_column_that_never_changes_never_drifts():
    rng = np.random.default_rng(2)
    for seed in range(50):
        still = np.column_stack([np.full(100, 7.0), np.full(100, np.nan), rng.standard_normal(100)])
        findings = drift.compare(["same", "none", "x"], still, still[rng.permutation(100)], draws=19, seed=seed)
        assert [one.p_value for one in findings.columns[:2]] == [1.0, 1.0]
        assert [one.psi for one in findings.columns[:2]] == [0.0, 0.0]


def test_the_index_knows_its_own_chance():
    assert drift.psi([50, 50], [50, 50]) == 0
    assert drift.psi([900, 100], [800, 200]) == pytest.approx((0.8 - 0.9) * np.log(0.8 / 0.9) + 0.1 * np.log(2), abs=2e-3)
    assert np.isfinite(drift.psi([10, 0], [0, 10]))
    # At 200 rows chance alone goes beyond the customary 0.1; at 20,000 a fiftieth of that already says something.
    assert drift.psi_limit(10, 200, 200) > 0.1 > 50 * drift.psi_limit(10, 20_000, 20_000) > 0
    rng = np.random.default_rng(4)
    counts = rng.multinomial(500, [0.1] * 10, size=(2, 1_000))
    above = np.mean([drift.psi(a, b) > drift.psi_limit(10, 500, 500) for a, b in zip(*counts, strict=True)])
    assert above == pytest.approx(0.05, abs=0.028)


def test_the_same_seed_gives_the_same_finding():
    rng = np.random.default_rng(6)
    before, now = rows(rng, 300), rows(rng, 200)
    assert drift.compare(NAMES, before, now, seed=1) == drift.compare(NAMES, before, now, seed=1)
    first, second = (drift.compare(NAMES, before, now, seed=seed) for seed in (1, 2))
    assert [one.p_value for one in first.columns] != [one.p_value for one in second.columns]


def test_windows_that_cannot_be_compared_are_refused():
    x = np.zeros((30, 2))
    with pytest.raises(ValueError, match="current window has the shape"):
        drift.compare(["a", "b"], x, x[:, :1], seed=1)
    with pytest.raises(ValueError, match="reference window has the shape"):
        drift.compare(["a", "b"], x[:0], x, seed=1)
    with pytest.raises(ValueError, match="for one window only"):
        drift.compare(["a", "b"], x, x, reference_customers=np.arange(30), seed=1)
    with pytest.raises(ValueError, match="one customer per row"):
        drift.compare(["a", "b"], x, x, reference_customers=np.arange(30), current_customers=np.arange(3), seed=1)
    with pytest.raises(ValueError, match="nothing to compare"):
        drift.compare([], x[:, :0], x[:, :0], seed=1)
    with pytest.raises(ValueError, match="take at least 19"):
        drift.compare(["a", "b"], x, x, draws=10, seed=1)


def test_ranges_for_the_eye_are_open_at_the_ends() -> None:
    """The least and the largest value are those of single people: a report must not show them."""
    values = np.arange(2_000, dtype=float).reshape(-1, 1)
    column = drift.compare(["x"], values[:1_000], values[1_000:], seed=1).columns[0]
    assert column.ranges[0].startswith("up to ") and column.ranges[-1].startswith("from ")
    assert not any("1,999" in text or "to 0" in text for text in column.ranges)
