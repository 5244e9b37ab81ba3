"""Tests of recourse: the nearest change that a person can make, no larger than needed, and approved when scored again."""

from collections.abc import Mapping
from itertools import product

import numpy as np
import pytest

from finrisk_assets.features.loan_terms import with_terms
from finrisk_assets.scoring.annuity import instalment_to_cent
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.recourse import (
    AllowedChange,
    Change,
    RecourseSearch,
    Row,
    approved_quantile_rows,
    approved_quantiles,
    below_threshold,
)
from finrisk_assets.scoring.spec import BundleSpec, Linear
from schemas.features import Feature

THRESHOLD = 0.5
BELOW_HALF = below_threshold(THRESHOLD)
RNG = np.random.default_rng(3)
APPROVED = RNG.normal(0, 1, (500, 4)).astype(np.float32)
FREE = AllowedChange(direction=0)


def bundle_of(coefficients: Mapping[str, float], monotone: Mapping[str, int] | None = None, intercept: float = 0.0) -> Bundle:
    """Return a linear bundle whose margin is the plain sum of coefficient times value."""
    d, signs = len(coefficients), monotone or {}
    features = tuple(Feature(name, "1", name, monotone=signs.get(name, 0)) for name in coefficients)  # type: ignore[arg-type]
    linear = Linear(tuple(coefficients.values()), (0.0,) * d, (1.0,) * d, (0.0,) * d, (False,) * d, intercept)
    return Bundle(BundleSpec("finrisk-test", "test", "test", features, (linear,), np.zeros((1, d), np.float32), 1, "", ""), "")


def abcd(*coefficients: float, **monotone: int) -> Bundle:
    return bundle_of(dict(zip("abcd", coefficients, strict=True)), monotone)


def row_of(*values: float | None) -> dict[str, float | None]:
    return dict(zip("abcd", values, strict=True))


def probability(bundle: Bundle, row: Row) -> float:
    return float(bundle.probability(bundle.row(row)[None])[0])


def test_the_changed_row_is_approved_when_it_is_scored_again() -> None:
    bundle = abcd(2, 1, 1, 0)
    for values in RNG.normal(1, 0.7, (50, 4)):
        row = row_of(*values.tolist())
        nearest = RecourseSearch(bundle, {"a": FREE, "b": FREE, "c": FREE}, APPROVED, BELOW_HALF).find_nearest(row)
        if nearest.changes is None:
            assert nearest.reason and nearest.probability == probability(bundle, row)
            continue
        assert nearest.probability == probability(bundle, {**row, **{one.feature: one.after for one in nearest.changes}}) < THRESHOLD
        assert nearest.row == {**row, **{one.feature: one.after for one in nearest.changes}}


def test_one_feature_is_changed_where_one_is_enough_and_the_nearest_of_these() -> None:
    (change,) = (
        RecourseSearch(abcd(1, 3, 1, 0), {"a": FREE, "b": FREE}, APPROVED, BELOW_HALF).find_nearest(row_of(0.4, 0.4, 0, 0)).changes or ()
    )
    assert change.feature == "b" and change.before == 0.4
    candidates = np.quantile(APPROVED[:, 1].astype(float), [at / 20 for at in range(1, 20)])
    assert change.after == max(value for value in candidates if 3 * value + 0.4 < 0)


def test_the_nearest_of_many_single_changes_is_not_the_strongest() -> None:
    """Forty features are each enough; the weakest of them needs the smallest step, in the units of those approved."""
    names = [f"x{at}" for at in range(40)]
    approved = RNG.normal(0, 1, (500, 40)).astype(np.float32) * np.array([0.5] * 39 + [50], np.float32)
    bundle = bundle_of({name: 1.0 for name in names[:-1]} | {names[-1]: 0.05}, intercept=0.3)
    nearest = RecourseSearch(bundle, dict.fromkeys(names, FREE), approved, BELOW_HALF).find_nearest(dict.fromkeys(names, 0.0))
    assert [change.feature for change in nearest.changes or ()] == [names[-1]]


def test_it_finds_what_trying_all_pairs_finds() -> None:
    bundle, row = abcd(1, 2, 0, 0), row_of(3.6, 1.4, 0, 0)
    nearest = RecourseSearch(bundle, {"a": FREE, "b": FREE}, APPROVED, BELOW_HALF).find_nearest(row).changes or ()
    quantiles = np.quantile(APPROVED[:, :2].astype(float), [at / 20 for at in range(1, 20)], axis=0)
    widths = np.subtract(*np.quantile(APPROVED[:, :2].astype(float), [0.75, 0.25], axis=0))
    distance = min(
        abs(a - 3.6) / widths[0] + abs(b - 1.4) / widths[1] for a, b in product(quantiles[:, 0], quantiles[:, 1]) if a + 2 * b < 0
    )
    assert sum(abs(one.after - one.before) / width for one, width in zip(nearest, widths, strict=True)) == pytest.approx(distance)


def test_what_is_not_allowed_stays() -> None:
    nearest = RecourseSearch(abcd(5, 0.1, 0, 0), {"b": FREE}, APPROVED, BELOW_HALF).find_nearest(row_of(2, 0, 0, 0))
    assert nearest.changes is None and "enough" in nearest.reason
    assert RecourseSearch(abcd(5, 0.1, 0, 0), {"a": FREE, "b": FREE}, APPROVED, BELOW_HALF).find_nearest(row_of(2, 0, 0, 0)).changes


def test_a_feature_moves_only_in_its_direction() -> None:
    bundle = abcd(1, 0, 0, 0)
    assert RecourseSearch(bundle, {"a": AllowedChange(direction=-1)}, APPROVED, BELOW_HALF).find_nearest(row_of(0.5, 0, 0, 0)).changes
    upward = RecourseSearch(bundle, {"a": AllowedChange(direction=1)}, APPROVED, BELOW_HALF).find_nearest(row_of(0.5, 0, 0, 0))
    assert upward.changes is None


def test_without_a_direction_the_monotone_one_holds() -> None:
    """No suggestion is to spend more, even where a model has the sign wrong."""
    rises = abcd(-1, 0, 0, 0, a=1)
    assert RecourseSearch(rises, {"a": AllowedChange()}, APPROVED, BELOW_HALF).find_nearest(row_of(-0.5, 0, 0, 0)).changes is None
    assert RecourseSearch(abcd(-1, 0, 0, 0), {"a": AllowedChange()}, APPROVED, BELOW_HALF).find_nearest(row_of(-0.5, 0, 0, 0)).changes


def test_bounds_and_steps_are_kept() -> None:
    stepped = {"a": AllowedChange(step=0.25, low=-0.6, direction=-1)}
    (change,) = RecourseSearch(abcd(1, 1, 0, 0), stepped, APPROVED, BELOW_HALF).find_nearest(row_of(0.5, 0.3, 0, 0)).changes or ()
    assert change.after == -0.5
    bounded = {"a": AllowedChange(step=0.25, low=-0.25, direction=-1)}
    assert RecourseSearch(abcd(1, 1, 0, 0), bounded, APPROVED, BELOW_HALF).find_nearest(row_of(0.5, 0.3, 0, 0)).changes is None


def test_no_more_features_than_asked() -> None:
    everything = dict.fromkeys("abcd", FREE)
    bundle, row = abcd(1, 1, 1, 1), row_of(1.5, 1.5, 1.5, -0.5)
    three = RecourseSearch(bundle, everything, APPROVED, BELOW_HALF).find_nearest(row)
    assert three.changes and len(three.changes) in (2, 3)
    assert RecourseSearch(bundle, everything, APPROVED, BELOW_HALF, max_changes=1).find_nearest(row).changes is None


def test_who_is_approved_needs_no_change_and_a_missing_value_is_no_lever() -> None:
    search = RecourseSearch(abcd(1, 0, 0, 0, a=1), {"a": AllowedChange()}, APPROVED, BELOW_HALF)
    assert "approved as it is" in search.find_nearest(row_of(-1, 0, 0, 0)).reason
    held = RecourseSearch(bundle_of({"a": 1, "b": 1, "c": 0, "d": 0}, intercept=1), {"a": FREE}, APPROVED, BELOW_HALF)
    assert "direction" in held.find_nearest(row_of(None, 0, 0, 0)).reason


def test_the_same_row_has_the_same_answer() -> None:
    def find_changes() -> tuple[Change, ...] | None:
        return RecourseSearch(abcd(1, 1, 1, 0), dict.fromkeys("abc", FREE), APPROVED, BELOW_HALF).find_nearest(row_of(1, 1, 1, 0)).changes

    assert find_changes() is not None and find_changes() == find_changes()


def test_changes_that_meet_in_a_derived_feature_are_worked_out_together() -> None:
    """c = a * b: laid side by side, each change alone would leave it at 0."""

    def product_of(row: Row, changes: Mapping[str, float]) -> Row:
        new = {**row, **changes}
        return {**new, "c": (new["a"] or 0.0) * (new["b"] or 0.0)}

    bundle = bundle_of({"a": 0, "b": 0, "c": -1, "d": 0}, intercept=0.5)
    approved = np.abs(APPROVED)
    nearest = RecourseSearch(bundle, {"a": FREE, "b": FREE}, approved, BELOW_HALF, product_of).find_nearest(
        {"a": 0.0, "b": 0.0, "c": 0.0, "d": 0.0}
    )
    assert nearest.changes and len(nearest.changes) == 2
    assert nearest.row["c"] == nearest.changes[0].after * nearest.changes[1].after > 0.5


def test_unknown_features_and_bad_declarations_are_refused() -> None:
    with pytest.raises(ValueError, match="e: not a feature"):
        RecourseSearch(abcd(1, 0, 0, 0), {"e": FREE}, APPROVED, BELOW_HALF)
    with pytest.raises(ValueError, match="approved applicants"):
        RecourseSearch(abcd(1, 0, 0, 0), {"a": FREE}, APPROVED[:0], BELOW_HALF)
    with pytest.raises(ValueError, match="step is above 0"):
        AllowedChange(step=0)


def test_quantiles_tell_as_much_as_the_applicants_themselves() -> None:
    """A bundle carries quantiles and no person's row; the search gives the same result with them."""
    everything = dict.fromkeys("abc", FREE)
    bundle = abcd(2, 1, 1, 0)
    known = approved_quantiles(bundle.features, APPROVED, ("a", "b", "c"))
    assert set(known) == {"a", "b", "c"} and all(len(values) == 21 for values in known.values())
    bundle.approved = known
    for values in RNG.normal(1, 0.5, (20, 4)):
        row = row_of(*values.tolist())
        own, stated = (
            RecourseSearch(bundle, everything, rows, BELOW_HALF).find_nearest(row) for rows in (APPROVED, approved_quantile_rows(bundle))
        )
        assert own.probability == pytest.approx(stated.probability, abs=1e-6)
        assert [one.feature for one in own.changes or ()] == [one.feature for one in stated.changes or ()]


def test_what_is_known_of_nobody_has_no_quantiles() -> None:
    rows = APPROVED.copy()
    rows[:, 1] = np.nan
    assert set(approved_quantiles(abcd(1, 1, 1, 1).features, rows, ("a", "b"))) == {"a"}


# A loan's terms: one amount moves the instalment and all that is measured by it ---------------------------------------------------


def terms(row: Row, changes: Mapping[str, float]) -> Row:
    """Return a loan of another amount or term; any other change affects its own feature alone."""
    changed = {**row, **changes}
    amount, term = changed["loan_amount"], changed["term_months"]
    return with_terms(changed, loan_amount=amount or 0.0, term_months=None if term is None else int(term))


def applicant(amount: float, term: int, income: float, spent: float) -> dict[str, float | None]:
    bare: dict[str, float | None] = {
        "loan_amount": amount,
        "term_months": float(term),
        "annual_rate_pct": 9.0,
        "instalment_amount": instalment_to_cent(amount, 9.0, term),
        "usual_income_amount": income,
        "usual_expense_amount": spent,
        "instalment_to_usual_income": None,
        "surplus_after_instalment": None,
    }
    return with_terms(bare, loan_amount=amount)


def lender() -> Bundle:
    names = applicant(1_000, 12, 2_000, 1_000)
    weights = dict.fromkeys(names, 0.0) | {"instalment_to_usual_income": 6.0, "surplus_after_instalment": -2.0}
    return bundle_of(weights, {"instalment_to_usual_income": 1, "surplus_after_instalment": -1}, intercept=-1.0)


def applicants(bundle: Bundle, n: int) -> list[dict[str, float | None]]:
    rng = np.random.default_rng(11)
    drawn = zip(rng.uniform(2_000, 30_000, n), rng.choice([12, 24, 36, 48], n), rng.uniform(1_333, 3_000, n), strict=True)
    return [applicant(float(amount), int(term), float(income), 0.8 * float(income)) for amount, term, income in drawn]


def test_another_amount_or_term_moves_the_instalment_and_what_is_measured_by_it() -> None:
    bundle = lender()
    rows = applicants(bundle, 300)
    probabilities = np.array([probability(bundle, row) for row in rows])
    approved = np.stack([bundle.row(row) for row, p in zip(rows, probabilities, strict=True) if p < THRESHOLD])
    allowed = {"loan_amount": AllowedChange(direction=-1, step=100), "term_months": AllowedChange(direction=1, step=6, high=48)}
    search = RecourseSearch(bundle, allowed, approved, BELOW_HALF, terms)
    refused = [row for row, p in zip(rows, probabilities, strict=True) if p >= THRESHOLD][:40]
    nearest = [search.find_nearest(row) for row in refused]
    helped = [(row, one) for row, one in zip(refused, nearest, strict=True) if one.changes]
    assert len(helped) >= 0.8 * len(refused)
    for row, one in helped:
        assert one.changes
        changed = {change.feature: change.after for change in one.changes}
        assert set(changed) <= set(allowed)
        lent, months = row["loan_amount"] or 0.0, row["term_months"] or 0.0
        amount, term = changed.get("loan_amount", lent), changed.get("term_months", months)
        assert amount <= lent and term >= months
        promised = with_terms(row, loan_amount=amount, term_months=int(term))
        assert one.row == promised and one.probability == probability(bundle, promised) < THRESHOLD


def test_a_search_over_sixty_features_asks_the_model_a_bounded_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"x{at}" for at in range(60)]
    bundle = bundle_of(dict.fromkeys(names, 0.4))
    approved = RNG.normal(-0.2, 1, (2_000, 60)).astype(np.float32)
    search = RecourseSearch(bundle, dict.fromkeys(names[:15], FREE), approved, BELOW_HALF)
    changed: list[int] = []
    probability_of = Bundle.probability

    def counted(self: Bundle, rows: np.ndarray) -> np.ndarray:
        changed.append(len(rows))
        return probability_of(self, rows)

    monkeypatch.setattr(Bundle, "probability", counted)
    assert search.find_nearest(dict.fromkeys(names, 0.2)).changes is None  # the dearest case: everything is tried
    assert len(changed) <= 10 and sum(changed) <= 1_000, (len(changed), sum(changed))
