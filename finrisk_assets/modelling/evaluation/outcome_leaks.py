"""The rules of the leakage linter that compare a column with the outcome.

`find_target_echoes` finds columns that beat all others together, `find_one_class_values` values that only one outcome has,
`find_own_outcome_means` group means that contain the row's own outcome, and `find_dominant_features` columns that a model cannot do
without, far more than without any other.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.modelling.evaluation.leakage_evidence import (
    ALPHA,
    MIN_ROWS_PER_OUTCOME,
    Flags,
    Floats,
    LeakageFinding,
    QuickTrees,
    Sample,
    compute_auc,
    compute_influence,
    cross_score,
    number_groups,
    standard_error,
    z_value,
)

if TYPE_CHECKING:
    import pandas as pd

ECHO_AUC = 0.99
"""AUC above which a single feature is the label itself, apart from noise: at most one pair in a hundred is misranked."""
ECHO_ERROR_REDUCTION = 1 / 3
"""Share of misranked pairs; a feature is an echo if it misranks this share fewer pairs than a model of all others. Features of one person
overlap, so the best feature beats the others together by little, if at all.
"""
MIN_OTHER_FEATURES = 5
"""Features; with fewer others to compare with, a feature that beats them is no evidence."""
MAX_ECHOES = 5
"""Features; up to this many are tested together as copies of one leak, each of which would excuse the others."""
ONE_CLASS_RATE_MIN = 0.9
"""Rate of the rarer outcome among the rows with some values of a column, above which these values reveal the outcome."""
ONE_CLASS_SHARE_MIN = 0.1
"""Share of the rows with the rarer outcome that such values cover; fewer are worth little."""
ONE_CLASS_EXPECTED_MAX = 0.5
"""Probability; the other features must expect less than this for those rows, otherwise the values are no news."""
MIN_MEANS = 3
"""Different values with enough rows each, below which no column is called a mean of outcomes."""
MIN_BINOMIAL_VARIANCE = 3.0
"""Variance of the number of outcomes among the rows with one value, below which the value says too little."""
MAX_MEAN_VARIANCE = 0.6
"""Ratio of variances; outcomes that scatter about a column's values by less than this share of the binomial variance are in the values."""
MAX_DOMINANT = 5
"""Features; up to this many are tested together, so that several leaks do not excuse each other."""
MIN_DOMINANT_LOSS = 0.05
"""AUC that a model loses without a feature, below which the feature is not conspicuous. In clean sets (docs/leakage.md) the loss is .04 at
most, but for the rate of an offer.
"""
MIN_JOINT_LOSS, MIN_JOINT_LOSS_EACH = 0.1, 0.03
"""AUC that a model loses without several features, in all and for each, below which they are not suspected together. Honest features that
overlap add up to less: .026 each in clean sets.
"""
DOMINANT_RATIO = 2.0
"""Smallest ratio of the loss without a dominant feature to the loss without the next most important one."""
MANY_ROWS = 1_500
"""Rows from which two folds suffice; fewer rows are scored by five, which teach on more of them."""

EXAMINE = "Find out when it is known: leave it out if that is after the decision"


# Echoes ------------------------------------------------------------------------------------------------------------------------


def find_target_echoes(sample: Sample, names: Sequence[str]) -> list[LeakageFinding]:
    """Flag features that alone reveal more of the outcome than all others together.

    Models of the later rows score the earlier ones, and the reverse, so no row is scored by a model of its own time. A feature's score is
    the better of its own order and of a small tree with missing values as a branch. A feature is an echo where its AUC is significantly
    above `ECHO_AUC`, or where it misranks significantly fewer pairs (by `ECHO_ERROR_REDUCTION`) than boosted trees of all the others.
    Copies of one leak would excuse each other, so the strongest one to five are compared with the rest.

    Parameters
    ----------
    sample
        Rows from `leakage_evidence.draw_sample`.
    names
        Names of the sample's columns.
    """
    if not sample.has_enough_in_both_parts():
        return []
    single_scores = [cross_score(sample, partial(_score_single_feature, sample, place)) for place in range(len(names))]
    aucs = np.array([auc for auc, _ in single_scores])
    z = z_value(ALPHA / (2 * len(names) * MAX_ECHOES))  # two readings of each feature, MAX_ECHOES comparisons
    echoes_by_place: dict[int, tuple[float, str]] = {}
    for place, (auc, influence) in enumerate(single_scores):
        if auc - z * standard_error(influence, sample.groups) >= ECHO_AUC:
            echoes_by_place[place] = auc, f"alone it has an AUC of {auc:.3f}: it is the label, but for noise"
    order = np.argsort(-aucs, kind="stable")
    for count in range(1, min(MAX_ECHOES, len(names) - MIN_OTHER_FEATURES) + 1):
        candidates, others = order[:count], order[count:]
        weakest_candidate, next_best = candidates[-1], others[0]
        # The others together are hardly worse than the best of them, so a candidate that does not beat that one need not be tested.
        if 1 - aucs[weakest_candidate] > (1 - ECHO_ERROR_REDUCTION) * (1 - aucs[next_best]):
            continue
        auc_of_rest, influence_of_rest = cross_score(sample, partial(_score_features, sample, others))
        for place in candidates.tolist():
            margin = (1 - ECHO_ERROR_REDUCTION) * (1 - auc_of_rest) - (1 - aucs[place])
            if margin > z * standard_error(single_scores[place][1] - (1 - ECHO_ERROR_REDUCTION) * influence_of_rest, sample.groups):
                shows = f"alone it has an AUC of {aucs[place]:.3f} on held-out rows, {len(others)} others together {auc_of_rest:.3f}"
                echoes_by_place.setdefault(int(place), (float(aucs[place]), shows))
    return [
        LeakageFinding(names[place], "target_echo", number, shows, EXAMINE) for place, (number, shows) in sorted(echoes_by_place.items())
    ]


def _score_single_feature(sample: Sample, place: int, train: Flags, test: Flags) -> Floats:
    """Return the better score of one feature: its order, in the direction of the training rows, or a small tree."""
    from sklearn.tree import DecisionTreeClassifier

    column, labels = sample.rows[:, place], sample.labels
    median = np.nanmedian(column[train]) if np.isfinite(column[train]).any() else 0.0
    filled = np.where(np.isnan(column), median, column)
    sign = 1 if compute_auc(labels[train], filled[train]) >= 0.5 else -1
    tree = DecisionTreeClassifier(max_leaf_nodes=16, min_samples_leaf=max(5, int(train.sum()) // 200), random_state=0)
    tree_scores: Floats = tree.fit(column[train, None], labels[train]).predict_proba(column[test, None])[:, 1]
    return max(tree_scores, sign * filled[test], key=lambda scores: compute_auc(labels[test], scores))


def _score_features(sample: Sample, places: NDArray[np.int64], train: Flags, test: Flags) -> Floats:
    rows = sample.rows[:, places]
    return QuickTrees(rows[train], sample.labels[train]).margin(rows[test])


# Values of one class -----------------------------------------------------------------------------------------------------------


def find_one_class_values(
    sample: Sample, names: Sequence[str], values: "pd.DataFrame", labels: "pd.Series", people: "pd.Series | None" = None
) -> list[LeakageFinding]:
    """Flag columns of which some values occur almost only with the rarer outcome, although the other features do not expect it.

    The values looked at are a missing one, any that is not missing, any but the most frequent one (a code that closes a file), and the
    highest or lowest. A person counts once. The rate's lower bound is that of Clopper & Pearson (*Biometrika* 1934). Having or lacking a
    value blocks; other values may be a fact of the business, such as an amount that only fraud has, and are to be examined.

    Parameters
    ----------
    sample, names
        Rows from `leakage_evidence.draw_sample`, which a model of the other features is fitted on, and the names of its columns.
    values, labels
        The whole table's features and outcomes.
    people
        The person of each row; None takes each row as a person.
    """
    from scipy.stats import beta

    target = labels.to_numpy(dtype=bool)
    rarer = target if target.mean() <= 0.5 else ~target
    person = np.arange(len(target)) if people is None else number_groups(people.to_numpy())
    n_people_with_outcome = len(np.unique(person[rarer]))
    tail = ALPHA / (5 * max(len(names), 1))
    findings = []
    for place, name in enumerate(names):
        column = values[name].to_numpy(dtype=np.float64, na_value=np.nan)
        for words, is_chosen, is_chosen_in_sample in _candidate_values(column, rarer, sample.rows[:, place]):
            n, n_others = len(np.unique(person[is_chosen])), len(np.unique(person[is_chosen & ~rarer]))
            n_pure = n - n_others  # a person with both outcomes among these rows counts for the other one
            if is_chosen.all() or n_pure < max(MIN_ROWS_PER_OUTCOME, ONE_CLASS_SHARE_MIN * n_people_with_outcome):
                continue
            if beta.ppf(tail, n_pure, n_others + 1) < ONE_CLASS_RATE_MIN:
                continue
            expected = _expected_rate(sample, [p for p in range(len(names)) if p != place], is_chosen_in_sample)
            expected = expected if expected is None or rarer is target else 1 - expected
            if expected is not None and expected < ONE_CLASS_EXPECTED_MAX:
                rate = float(rarer[is_chosen].mean())
                shows = f"{rate:.1%} of the rows {words} have the rarer outcome; the other features expect {expected:.1%}"
                is_gap = words in _GAPS
                findings.append(
                    LeakageFinding(
                        name,
                        "target_echo" if is_gap else "one_class",
                        rate,
                        shows,
                        EXAMINE,
                        severity="block" if is_gap else "examine",
                    )
                )
                break
    return findings


_GAPS = ("without a value", "with a value")


def _candidate_values(column: Floats, rarer: Flags, sampled: Floats) -> Iterator[tuple[str, Flags, Flags]]:
    """Yield sets of a column's values: words for them, the table's rows that have them, and the sample's rows that have them."""
    missing, missing_in_sample = np.isnan(column), np.isnan(sampled)
    if missing.any():
        yield _GAPS[0], missing, missing_in_sample
        yield _GAPS[1], ~missing, ~missing_in_sample
    known = column[~missing]
    if not len(known):
        return
    different, place, counts = np.unique(known, return_inverse=True, return_counts=True)
    if len(different) < 2:
        return
    most_frequent = different[np.argmax(counts)]
    yield (
        "with another value than the most frequent one",
        ~missing & (column != most_frequent),
        ~missing_in_sample & (sampled != most_frequent),
    )
    events = np.bincount(place, rarer[~missing])
    for words, step in (("with the highest values", -1), ("with the lowest values", 1)):
        n, n_events = np.cumsum(counts[::step]), np.cumsum(events[::step])
        pure = np.flatnonzero(n_events >= (ONE_CLASS_RATE_MIN + 1) / 2 * n)
        if len(pure):
            bound = different[::step][pure[-1]]
            yield (
                words,
                ~missing & (column >= bound if step < 0 else column <= bound),
                ~missing_in_sample & (sampled >= bound if step < 0 else sampled <= bound),
            )


def _expected_rate(sample: Sample, places: Sequence[int], is_chosen: Flags) -> float | None:
    """Return the mean probability that a model of these features gives the chosen late rows, at the whole table's base rate."""
    chosen = is_chosen & sample.late
    if not places or not chosen.any() or not sample.has_enough_in_both_parts():
        return None
    rows = sample.rows[:, list(places)]
    odds = np.exp(QuickTrees(rows[~sample.late], sample.labels[~sample.late]).margin(rows[chosen])) * sample.odds
    return float(np.mean(odds / (odds + 1)))


# Means of the own outcome ------------------------------------------------------------------------------------------------------


def find_own_outcome_means(names: Sequence[str], values: "pd.DataFrame", labels: "pd.Series") -> list[LeakageFinding]:
    """Flag columns that are a mean outcome of a group with the row itself in it, such as a target encoding that is not out of fold.

    Where a column's value is the rate of rows drawn beforehand, the outcomes of the rows with that value scatter about it at least as the
    binomial distribution says. Where the rows themselves are in the mean, they hit it more exactly: the sum of the squared standardised
    deviations over the different values is too small for its chi-squared distribution.

    Parameters
    ----------
    names
        Columns to look at; those with values outside of [0, 1] are no means of outcomes.
    values, labels
        The whole table's features and outcomes. A sample of rows weakens the rule, a sample of whole groups does not.
    """
    from scipy.stats import chi2

    target, findings = labels.to_numpy(dtype=np.float64), []
    for name in names:
        column = values[name].to_numpy(dtype=np.float64, na_value=np.nan)
        known = np.isfinite(column)
        if not known.any() or column[known].min() < 0 or column[known].max() > 1:
            continue
        different, place, counts = np.unique(column[known], return_inverse=True, return_counts=True)
        inner = counts * different * (1 - different) >= MIN_BINOMIAL_VARIANCE
        if inner.sum() < MIN_MEANS:
            continue
        mean, n = different[inner], counts[inner]
        deviations = (np.bincount(place, target[known])[inner] - n * mean) ** 2 / (n * mean * (1 - mean))
        ratio = float(deviations.mean())
        if ratio < MAX_MEAN_VARIANCE and chi2.cdf(deviations.sum(), len(deviations)) < ALPHA / len(names):
            shows = f"the outcomes hit its values more exactly than chance allows, with {ratio:.2f} of the variance: the row is in its mean"
            advice = "Compute the mean from other rows alone, whose outcome was known before"
            findings.append(LeakageFinding(name, "own_outcome", ratio, shows, advice))
    return findings


# Dominance ---------------------------------------------------------------------------------------------------------------------


def find_dominant_features(sample: Sample, names: Sequence[str], seed: int = 0) -> list[LeakageFinding]:
    """Flag features without which a model of all others loses far more than without any other.

    This is the importance by leaving a covariate out (Lei, G'Sell, Rinaldo, Tibshirani & Wasserman, JASA 2018) of the most used feature:
    what it explains of the residuals of all others. Honest features overlap, so a model loses little without one of them. Several leaks
    excuse each other. So up to `MAX_DOMINANT` features are left out together, down to the one after which nothing is lost any more, and
    each is added again alone. Rows are scored by models of other people.

    Parameters
    ----------
    sample, names
        Rows from `leakage_evidence.draw_sample`, and the names of its columns.
    seed
        Seed of the folds.
    """
    most = min(MAX_DOMINANT, len(names) - MIN_OTHER_FEATURES - 1)
    if most < 1 or not sample.has_enough_rows():
        return []
    leave_out = _LeaveOut(sample, seed)
    counts = [1]
    if most > 1 and leave_out.loss(most) >= MIN_JOINT_LOSS:
        several = [count for count in range(2, most + 1) if leave_out.loss(count) >= max(MIN_JOINT_LOSS, MIN_JOINT_LOSS_EACH * count)]
        counts += [count for count in several if leave_out.loss_without_next(count) < MIN_DOMINANT_LOSS / 2][:1] or several[-1:]
    findings: dict[str, LeakageFinding] = {}
    for count in counts:
        loss_without_next = leave_out.loss_without_next(count)
        for place in leave_out.order[:count]:
            auc, loss, error = leave_out.gain(count, place)
            if loss >= max(MIN_DOMINANT_LOSS, DOMINANT_RATIO * loss_without_next) and loss > z_value(ALPHA) * error:
                shows = (
                    f"beside {len(names) - count} others it lifts the AUC of a model from {auc - loss:.3f} to {auc:.3f}, "
                    f"the next feature by {max(loss_without_next, 0.0):.3f}"
                )
                findings.setdefault(names[place], LeakageFinding(names[place], "dominance", loss, shows, EXAMINE, severity="examine"))
    return list(findings.values())


class _LeaveOut:
    """Models of all features without the most used ones, each fitted once when it is asked for.

    Attributes
    ----------
    order
        Places of the columns, the most used first.
    """

    def __init__(self, sample: Sample, seed: int) -> None:
        people = int(sample.groups.max()) + 1
        n_folds = 2 if len(sample.labels) >= MANY_ROWS else 5
        self._sample = sample
        self._folds = np.random.default_rng(seed).permutation(np.arange(people) % n_folds)[sample.groups]
        margin, importance = self._score(range(sample.rows.shape[1]))
        self._margins = {0: margin}
        self.order: list[int] = np.argsort(-importance, kind="stable").tolist()

    def loss(self, count: int) -> float:
        """Return the AUC that a model loses without the `count` most used features."""
        return self._auc(self._without(0)) - self._auc(self._without(count))

    def loss_without_next(self, count: int) -> float:
        """Return the AUC that a model without `count` features loses without the next."""
        return self._auc(self._without(count)) - self._auc(self._without(count + 1))

    def gain(self, count: int, place: int) -> tuple[float, float, float]:
        """Return the AUC of a model without `count` features but with this one of them, what it gains by it, and the error of that."""
        without = self._without(count)
        with_it = self._without(0) if count == 1 else self._score(sorted([*self.order[count:], place]))[0]
        labels, auc = self._sample.labels, self._auc(with_it)
        error = standard_error(compute_influence(labels, with_it) - compute_influence(labels, without), self._sample.groups)
        return auc, auc - self._auc(without), error

    def _without(self, count: int) -> Floats:
        if count not in self._margins:
            self._margins[count] = self._score(sorted(self.order[count:]))[0]
        return self._margins[count]

    def _auc(self, margin: Floats) -> float:
        return compute_auc(self._sample.labels, margin)

    def _score(self, places: Sequence[int]) -> tuple[Floats, Floats]:
        """Return log-odds of all rows by models of the other folds, shape (n,), and the importance of these columns."""
        rows, margin, importance = self._sample.rows[:, list(places)], np.zeros(len(self._sample.labels)), np.zeros(len(places))
        for number in np.unique(self._folds):
            test = self._folds == number
            model = QuickTrees(rows[~test], self._sample.labels[~test])
            margin[test] = model.margin(rows[test])
            importance += model.importance
        return margin, importance
