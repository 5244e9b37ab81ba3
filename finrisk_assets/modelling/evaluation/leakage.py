"""The leakage linter: features that carry information from after the decision.

Five rules, each a pure function that returns findings: `find_known_later` reads declarations; `find_target_echoes`,
`find_time_collapse` and `find_identifiers` read a feature table; `find_look_ahead` recomputes features from a ledger that is cut off at
the decision. `lint` runs the first four. No rule changes or repairs data.

Thresholds come from false-alarm reasoning. A rule that tests flags a clean table of any size with a probability of at most `ALPHA`,
divided by the number of columns tested, and only beyond a margin that matters: with a million rows every difference is significant, and
most are irrelevant. All rows of one group (a customer) count as one draw.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from schemas.ledger import TABLES, Column, Table

if TYPE_CHECKING:
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

Rule = Literal["known_later", "target_echo", "time_collapse", "identifier", "look_ahead"]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
FeatureBuilder = Callable[[Mapping[str, "LazyTable"]], "LazyTable"]

ALPHA = 0.01
"""Probability; the largest with which a rule flags a clean table by chance. A larger value finds more, with more false alarms."""
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
GAP_RATE_MIN = 0.9
"""Rate of the rarer outcome among the rows with (or without) a value, above which having a value reveals the label."""
GAP_EXPECTED_MAX = 0.5
"""Probability; the other features must expect less than this for those rows, otherwise the gap is no news."""
MIN_AUC_FALL = 0.05
"""AUC; the smallest fall from random folds to out of time that matters: one pair in twenty. Such a fall shows that the table drifts or
leaks, not which of the two.
"""
LARGEST_SAMPLE = 16_000
"""Rows to fit and test models on, at most half of them of either outcome where possible: an AUC does not depend on the base rate."""
MIN_ROWS_PER_OUTCOME = 50
"""Rows; with fewer of either outcome in the test part, a rule makes no claim."""
LATE_SHARE = 0.4
"""Share of the rows in the later part."""
N_FOLDS = 2
MAX_IDENTIFIER_ROWS = 50_000
"""Rows, drawn in their order, in which `find_identifiers` looks."""
COUNTER_CORRELATION = 0.995
"""Rank correlation with time or with the order of the rows, above which a column is a counter."""
SPAN_DAYS = 31
"""Days before the cut; `find_look_ahead` compares the rows decided within them, so that even a look ahead of one day shows."""


@dataclass(frozen=True)
class LeakageFinding:
    """A column that may leak.

    Attributes
    ----------
    column
        Name of the column; empty where the table as a whole is meant.
    rule, evidence
        The rule and its number: the share of rows known late or changed (`known_later`, `look_ahead`), an AUC or a rate
        (`target_echo`), a fall of the AUC (`time_collapse`), a share of different values or a correlation (`identifier`).
    shows, advice
        The observation and the remedy, in plain sentences without any value of a row.
    """

    column: str
    rule: Rule
    evidence: float
    shows: str
    advice: str

    def __str__(self) -> str:
        return f"{self.column or 'the table'} [{self.rule}, {self.evidence:.3f}]: {self.shows}. {self.advice}."


@dataclass(frozen=True)
class Sample:
    """The rows that the rules fit and test models on.

    Attributes
    ----------
    rows, labels, groups
        Features float64, shape (n, d), NaN where missing; outcomes, bool, shape (n,); group numbers from 0, shape (n,).
    late
        Whether a row is in the later part, shape (n,); without times, whole groups at random. Each part tests models of the other.
    is_timed
        Whether rows have a time.
    odds
        Factor from the odds of the sample to the odds of the table.
    """

    rows: Floats
    labels: Flags
    groups: NDArray[np.int64]
    late: Flags
    is_timed: bool
    odds: float

    def has_enough_rows(self) -> bool:
        """Return whether both parts have enough rows of either outcome for a claim."""
        parts = (self.labels[self.late], self.labels[~self.late])
        return all(min(part.sum(), (~part).sum()) >= MIN_ROWS_PER_OUTCOME for part in parts)


def lint(
    frame: "pd.DataFrame",
    features: Sequence[str],
    label: str,
    *,
    decision_time: str | None = None,
    order: str | None = None,
    group: str | None = None,
    columns: Sequence[Column] = (),
    examined: Collection[str] = (),
    most: int = LARGEST_SAMPLE,
    seed: int = 0,
) -> list[LeakageFinding]:
    """Run the rules that need only a feature table.

    Parameters
    ----------
    frame
        Rows with a known outcome, of any base rate.
    features, label
        Numeric columns (NaN where missing), and the outcome, 0/1 or boolean.
    decision_time
        Column with each row's time of decision. None, or a column with gaps: the rules about time do not run.
    order
        Column of times that splits the rows into an earlier and a later half where no decision time is known.
    group
        Column with the person of each row, where a person has several rows.
    columns
        Declarations of the features, where there are any; see `find_known_later`.
    examined
        Features that a person has examined and found free of leakage: they may outperform all others or number the rows. This excuses
        neither a column that is known later nor a fall out of time.
    most
        Largest number of rows that models are fitted and tested on.
    seed
        Seed of the sample and the folds.

    Raises
    ------
    ValueError
        For a column that the table lacks, or labels that are missing or not 0/1.
    """
    absent = [name for name in (*features, label, *(n for n in (decision_time, order, group) if n)) if name not in frame.columns]
    if absent:
        raise ValueError(f"the feature table has no {', '.join(absent)}")
    time_column = decision_time if decision_time and frame[decision_time].notna().all() and len(frame) else None
    findings = find_known_later(frame, [column for column in columns if column.name in features], decision_time)
    late_columns = {finding.column for finding in findings}
    # A late column would make other columns look harmless, and must not be reported twice.
    remaining = [name for name in features if name not in late_columns]
    if not remaining:
        return findings
    split_column = order if order and time_column is None and frame[order].notna().all() else time_column
    sample = replace(draw_sample(frame, remaining, label, split_column, group, seed, most), is_timed=time_column is not None)
    echo_findings = find_target_echoes(sample, remaining, frame[remaining], frame[label], examined)
    no_echo = [name for name in remaining if name not in {finding.column for finding in echo_findings}]
    identifier_findings = find_identifiers(frame, no_echo, time_column, group, examined)
    return [*findings, *echo_findings, *find_time_collapse(sample, remaining, seed), *identifier_findings]


# Known later -------------------------------------------------------------------------------------------------------------------


def find_known_later(frame: "pd.DataFrame", columns: Iterable[Column], decision_time: str | None) -> list[LeakageFinding]:
    """Flag columns that are declared as known after the decision.

    `Column.known` is ``always``, the decision time, or another column of the table. One row that was known after its decision is enough. A
    column for which no row shows that it is known in time is flagged as well.

    Parameters
    ----------
    frame
        The feature table; only times are read.
    columns
        Declarations of the features.
    decision_time
        Column with each row's time of decision, or None.
    """
    findings = []
    for column in columns:
        if column.known in ("always", decision_time):
            continue
        share, shows = 1.0, f"it is known at {column.known}, and no row shows that this is before the decision"
        if decision_time in frame.columns and column.known in frame.columns:
            times = frame[[column.known, decision_time]].dropna()
            if len(times):
                share = float((times[column.known] > times[decision_time]).mean())
                shows = f"it is known at {column.known}, after the decision in {share:.1%} of the rows"
        if share > 0:
            findings.append(LeakageFinding(column.name, "known_later", share, shows, "Leave it out, or take its value as of the decision"))
    return findings


# Echoes of the target ----------------------------------------------------------------------------------------------------------


def find_target_echoes(
    sample: Sample, names: Sequence[str], values: "pd.DataFrame", labels: "pd.Series", examined: Collection[str] = ()
) -> list[LeakageFinding]:
    """Flag features that alone reveal more of the outcome than all others together.

    Models of the later rows score the earlier ones, and the reverse, so no row is scored by a model of its own time. A feature's score is
    the better of its own order and of a small tree with missing values as a branch. A feature is an echo where its AUC is significantly
    above `ECHO_AUC`, or where it misranks significantly fewer pairs (by `ECHO_ERROR_REDUCTION`) than the better of boosted trees and a
    logistic regression of all the others. Copies of one leak would excuse each other, so the strongest one to five are compared with the
    rest. Last, `_find_telling_gaps` tests whether having a value at all reveals the outcome.

    Parameters
    ----------
    sample
        Rows from `draw_sample`.
    names
        Names of the sample's columns.
    values, labels
        The whole table's features and outcomes, which show where values are missing.
    examined
        Features that a person has examined; they are not reported.
    """
    if not sample.has_enough_rows():
        return []
    single_scores = [_cross_score(sample, partial(_score_single_feature, sample, place)) for place in range(len(names))]
    aucs = np.array([auc for auc, _ in single_scores])
    z = _z_value(ALPHA / (2 * len(names) * MAX_ECHOES))  # two readings of each feature, MAX_ECHOES comparisons
    echoes_by_place: dict[int, tuple[float, str]] = {}
    for place, (auc, influence) in enumerate(single_scores):
        if auc - z * _standard_error(influence, sample.groups) >= ECHO_AUC:
            echoes_by_place[place] = auc, f"alone it has an AUC of {auc:.3f}: it is the label, but for noise"
    order = np.argsort(-aucs, kind="stable")
    for count in range(1, min(MAX_ECHOES, len(names) - MIN_OTHER_FEATURES) + 1):
        candidates, others = order[:count], order[count:]
        weakest_candidate, next_best = candidates[-1], others[0]
        # The others together are hardly worse than the best of them, so a candidate that does not beat that one need not be tested.
        if 1 - aucs[weakest_candidate] > (1 - ECHO_ERROR_REDUCTION) * (1 - aucs[next_best]):
            continue
        auc_of_rest, influence_of_rest = _cross_score(sample, partial(_score_features, sample, others))
        for place in candidates.tolist():
            margin = (1 - ECHO_ERROR_REDUCTION) * (1 - auc_of_rest) - (1 - aucs[place])
            if margin > z * _standard_error(single_scores[place][1] - (1 - ECHO_ERROR_REDUCTION) * influence_of_rest, sample.groups):
                shows = f"alone it has an AUC of {aucs[place]:.3f} on held-out rows, {len(others)} others together {auc_of_rest:.3f}"
                echoes_by_place.setdefault(int(place), (float(aucs[place]), shows))
    for place, evidence in _find_telling_gaps(sample, values, labels, [p for p in range(len(names)) if p not in echoes_by_place]).items():
        echoes_by_place[place] = evidence
    advice = "Find out when it is known: leave it out if that is after the decision, else say that it was examined"
    return [
        LeakageFinding(names[place], "target_echo", number, shows, advice)
        for place, (number, shows) in sorted(echoes_by_place.items())
        if names[place] not in examined
    ]


def _find_telling_gaps(sample: Sample, values: "pd.DataFrame", labels: "pd.Series", places: Sequence[int]) -> dict[int, tuple[float, str]]:
    """Return columns where having a value, or lacking one, reveals the label, and the other features do not expect it."""
    from scipy.stats import beta

    target = labels.to_numpy(dtype=bool)
    rarer = target if target.mean() <= 0.5 else ~target
    gaps: dict[int, tuple[float, str]] = {}
    for place in places:
        missing = values.iloc[:, place].isna().to_numpy()
        for is_kind, word in ((missing, "without"), (~missing, "with")):
            n, events = int(is_kind.sum()), int(rarer[is_kind].sum())
            if min(events, len(is_kind) - n) < MIN_ROWS_PER_OUTCOME:
                continue
            # Exact bound of Clopper & Pearson (Biometrika 1934).
            if beta.ppf(ALPHA / (2 * len(values.columns)), events, n - events + 1) < GAP_RATE_MIN:
                continue
            others = [p for p in range(values.shape[1]) if p != place]
            expected = _expected_rate(sample, others, np.isnan(sample.rows[:, place]) == (word == "without"))
            expected = expected if expected is None or rarer is target else 1 - expected
            if expected is not None and expected < GAP_EXPECTED_MAX:
                shows = f"{events / n:.1%} of the rows {word} a value have the rarer outcome; the other features expect {expected:.1%}"
                gaps[place] = events / n, shows
    return gaps


def _expected_rate(sample: Sample, places: Sequence[int], is_kind: Flags) -> float | None:
    """Return the mean probability that a model of these features gives the chosen late rows, at the whole table's base rate."""
    chosen = is_kind & sample.late
    if not places or not chosen.any():
        return None
    model = _BoostedTrees(0).fit(sample.rows[~sample.late][:, places], sample.labels[~sample.late])
    probability = model.predict_proba(sample.rows[chosen][:, places])[:, 1]
    return float(np.mean(probability * sample.odds / (probability * sample.odds + 1 - probability)))


# Collapse out of time ----------------------------------------------------------------------------------------------------------


def find_time_collapse(sample: Sample, names: Sequence[str], seed: int = 0) -> list[LeakageFinding]:
    """Flag a score in random folds that is far above the one out of time, and the columns that cause the difference.

    The latest rows are scored twice, by models of the same kind and number of rows: rows before them, and rows of any time. Neither model
    is fitted on the groups that it scores. The models differ only in whether they have seen rows of the same period, so the paired
    difference of AUCs is the value of that. The table is flagged where the difference is significantly above `MIN_AUC_FALL`. Columns are
    then left out, the most used first; a column is named if half of the fall disappears without it. Where no column is named, the cause
    is drift or a leak spread over many columns.

    Parameters
    ----------
    sample
        Rows from `draw_sample`; nothing is reported where they have no time.
    names
        Names of the sample's columns.
    seed
        Seed of the folds and the models.
    """
    if not sample.is_timed or not sample.has_enough_rows():
        return []
    late_labels, groups = sample.labels[sample.late], sample.groups[sample.late]
    all_places = list(range(len(names)))
    random, ordered = _score_random_and_ordered(sample, all_places, seed)
    fall = _auc(late_labels, random) - _auc(late_labels, ordered)
    margin = _z_value(ALPHA) * _standard_error(_influence(late_labels, random) - _influence(late_labels, ordered), groups)
    if fall - margin <= MIN_AUC_FALL:
        return []
    shows = f"in random folds the latest rows have an AUC of {_auc(late_labels, random):.3f}, out of time {_auc(late_labels, ordered):.3f}"
    findings = []
    for place in _rank_columns_by_use(sample, seed)[:MAX_ECHOES]:
        others = [p for p in all_places if p != place]
        if not others:
            break
        random_without, ordered_without = _score_random_and_ordered(sample, others, seed)
        fall_without = _auc(late_labels, random_without) - _auc(late_labels, ordered_without)
        if fall_without < fall / 2:
            shows_column = f"{shows}; without this column the fall is {fall_without:.3f} instead of {fall:.3f}"
            advice = "Leave it out, or compute it from what was known before each row"
            findings.append(LeakageFinding(names[place], "time_collapse", fall, shows_column, advice))
    if findings:
        return findings
    advice = "Judge out of time, split by person, and look for a value that only one period has"
    return [LeakageFinding("", "time_collapse", fall, f"{shows}, and no single column makes the fall", advice)]


def _score_random_and_ordered(sample: Sample, places: Sequence[int], seed: int) -> tuple[Floats, Floats]:
    """Return log-odds of the late rows, by models of rows of any time and by models of the rows before them."""
    rows, labels = sample.rows[:, places], sample.labels
    draw = np.random.default_rng(seed)
    fold = draw.integers(0, N_FOLDS, sample.groups.max() + 1)[sample.groups]
    random, ordered = np.zeros(len(labels)), np.zeros(len(labels))
    for number in range(N_FOLDS):
        in_fold = sample.late & (fold == number)
        others = np.flatnonzero(fold != number)
        earlier = others[~sample.late[others]]
        for scores, train in ((ordered, earlier), (random, draw.choice(others, len(earlier), replace=False))):
            if in_fold.any():
                scores[in_fold] = _BoostedTrees(seed).fit(rows[train], labels[train]).decision_function(rows[in_fold])
    return random[sample.late], ordered[sample.late]


def _rank_columns_by_use(sample: Sample, seed: int) -> list[int]:
    """Return columns by how much shuffling their values worsens a model on its own training rows, the most used first."""
    draw = np.random.default_rng(seed)
    model = _BoostedTrees(seed).fit(sample.rows, sample.labels)
    losses = []
    for place in range(sample.rows.shape[1]):
        mixed = sample.rows.copy()
        mixed[:, place] = draw.permutation(mixed[:, place])
        losses.append(_auc(sample.labels, model.decision_function(mixed)))
    return [int(place) for place in np.argsort(losses, kind="stable")]


# Identifiers -------------------------------------------------------------------------------------------------------------------


def find_identifiers(
    frame: "pd.DataFrame", names: Sequence[str], decision_time: str | None = None, group: str | None = None, examined: Collection[str] = ()
) -> list[LeakageFinding]:
    """Flag columns that number the rows or the groups.

    Random whole numbers collide: n of them within a range of R have n(n-1)/2R equal pairs or more (the birthday problem; fewest where they
    are drawn evenly). A column whose values collide far less often was assigned. Numbers too wide to collide count as codes where they fill
    their range as evenly as random ones (Kolmogorov-Smirnov), which amounts of money do not. Last, a counter is a column of mostly
    different values that rises or falls with time, or of whole numbers that follow the order of the rows. Amounts with a fraction are never
    codes.

    Parameters
    ----------
    frame, names
        The feature table, and the columns to examine.
    decision_time, group
        Columns with each row's time of decision and its person, or None.
    examined
        Features that a person has examined; they are not reported.
    """
    findings = []
    if len(frame) > MAX_IDENTIFIER_ROWS:
        frame = frame.iloc[np.sort(np.random.default_rng(0).permutation(len(frame))[:MAX_IDENTIFIER_ROWS])]
    advice = "Leave it out: it names rows, and what it seems to tell holds for these rows only"
    for name in (name for name in names if name not in examined):
        values = frame[name].to_numpy(dtype=np.float64)
        is_finite = np.isfinite(values)
        is_whole = bool(is_finite.any()) and bool((values[is_finite] == np.round(values[is_finite])).all())
        codes = values[is_finite]
        if group is not None:  # a person's number repeats in all rows of the person
            codes = frame.loc[is_finite, [group, name]].drop_duplicates()[name].to_numpy(dtype=np.float64)
        share_different = len(np.unique(codes)) / max(len(codes), 1)
        correlation = _order_correlation(frame, name, decision_time, is_finite, is_whole)
        if is_whole and _is_assigned_code(codes):
            shows = f"whole numbers, {share_different:.1%} of them different: had they been drawn from their range, more would meet"
            findings.append(LeakageFinding(name, "identifier", share_different, shows, advice))
        elif abs(correlation) >= COUNTER_CORRELATION:
            shows = f"its rank follows the order of the rows or of time, with a correlation of {correlation:.4f}"
            findings.append(LeakageFinding(name, "identifier", abs(correlation), shows, advice))
    return findings


def _is_assigned_code(codes: Floats) -> bool:
    """Return whether whole numbers collide less often than random ones, or are too wide to collide and fill their range evenly."""
    from scipy.stats import kstest, poisson

    n = len(codes)
    if n < MIN_ROWS_PER_OUTCOME:
        return False
    low, high = float(codes.min()), float(codes.max())
    if high <= low:
        return False
    counts = np.unique(codes, return_counts=True)[1].astype(np.float64)
    equal_pairs = float((counts * (counts - 1) / 2).sum())
    expected = n * (n - 1) / 2 / (high - low + 1)
    if equal_pairs <= expected / 10 and poisson.cdf(equal_pairs, expected) < ALPHA / 100:  # ALPHA is shared by the columns of a wide table
        return True
    is_wide = high - low > 1e9 and equal_pairs <= 0.01 * n
    return bool(is_wide and kstest((codes - low) / (high - low), "uniform").pvalue > ALPHA)


def _order_correlation(frame: "pd.DataFrame", name: str, decision_time: str | None, is_finite: Flags, is_whole: bool) -> float:
    """Return the strongest rank correlation of mostly different values with time, or of whole numbers with the rows' order; else 0."""
    values = frame[name].to_numpy(dtype=np.float64)[is_finite]
    if len(values) < MIN_ROWS_PER_OUTCOME or len(np.unique(values)) < len(values) / 2:
        return 0.0
    ranks = _ranks(values)
    correlations = [float(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1])] if is_whole else []
    if decision_time is not None:
        times = frame[decision_time].to_numpy()[is_finite].astype("datetime64[us]").astype(np.int64)
        if len(np.unique(times)) > len(times) / 2:  # a few month-ends give no ranks
            correlations.append(float(np.corrcoef(ranks, _ranks(times))[0, 1]))
    return max(correlations, key=abs, default=0.0)


# Look-ahead --------------------------------------------------------------------------------------------------------------------


def find_look_ahead(
    build: FeatureBuilder,
    tables: Mapping[str, "LazyTable"],
    features: Sequence[str],
    *,
    key: str,
    decision_time: str,
    cut_times: Sequence[Any] = (),
    shares: Sequence[float] = (0.5, 0.9),
    before: Collection[str] = ("transactions",),
    contracts: Mapping[str, Table] = TABLES,
    sample: int = 300,
    seed: int = 0,
) -> list[LeakageFinding]:
    """Flag features that change when events at or after the decision are removed.

    The features are computed from the whole ledger, and again from the ledger as it was known at a cut (`restrict_to_known`). Rows decided
    within `SPAN_DAYS` days up to the cut must be equal in both; a row that differs has looked ahead. No distribution is assumed, so a false
    alarm is impossible; a look ahead that meets no event stays unseen. The computation runs in a DuckDB of its own in memory, whatever the
    engine of the tables.

    Parameters
    ----------
    build
        Pure function from tables by name to the feature table, such as `Domain.build_features` for one source.
    tables
        Inputs of `build`, as lazy Ibis tables.
    features, key, decision_time
        Columns of its output: the features, the row's key, and the time of decision.
    cut_times, shares
        The cuts. Without `cut_times`, the times at which these shares of the rows are decided.
    before
        Tables of which only events strictly before a cut are known at it. Of the others, an event at the cut itself is part of the
        decision (the loan applied for, the transaction under decision).
    contracts
        Declarations of `tables`; a table without one is passed on whole.
    sample, seed
        Number of customers to draw, and the seed; every table with ``customer_id`` is restricted to them. 0 takes all.

    Raises
    ------
    ValueError
        Where no row has a decision time, or no row is decided in the span.
    """
    import pandas as pd

    replayed = _FeatureReplay(build, _sample_customers(tables, sample, seed), (key, decision_time, *features))
    full = replayed.rows().set_index(key)
    dated = full[full[decision_time].notna()]
    if dated.empty:
        raise ValueError(f"no row says when it is decided ({decision_time}): a look ahead cannot be found. Choose rows with a time")
    cuts = [pd.Timestamp(time) for time in cut_times] or [
        dated[decision_time].sort_values().iloc[int(len(dated) * share)] for share in shares
    ]
    n_changed, n_compared = np.zeros(len(features)), 0
    for cut in dict.fromkeys(cuts):
        cut_rows = replayed.rows_with(partial(_restrict_table, known_at=cut, before=before, contracts=contracts))
        cut_rows = cut_rows[cut_rows[decision_time] <= cut].set_index(key)
        compared_rows = dated[(dated[decision_time] <= cut) & (dated[decision_time] > cut - pd.Timedelta(days=SPAN_DAYS))]
        compared_rows = compared_rows[compared_rows.index.isin(cut_rows.index)]
        full_values = compared_rows[list(features)].to_numpy(dtype=np.float64)
        cut_values = cut_rows.loc[compared_rows.index, list(features)].to_numpy(dtype=np.float64)
        n_changed += (~np.isclose(full_values, cut_values, rtol=1e-9, atol=1e-9, equal_nan=True)).sum(axis=0)
        n_compared += len(compared_rows)
    if not n_compared:
        raise ValueError(f"no row is decided in the {SPAN_DAYS} days up to any of the cuts. Choose other cuts")
    advice = "Let its window end before the decision, and delay outcomes until they are known"
    return [
        LeakageFinding(name, "look_ahead", count / n_compared, f"{int(count)} of {n_compared} rows change without later events", advice)
        for name, count in zip(features, n_changed.tolist(), strict=True)
        if count
    ]


def _restrict_table(
    name: str, table: "LazyTable", *, known_at: Any, before: Collection[str], contracts: Mapping[str, Table]
) -> "LazyTable":
    return restrict_to_known(table, contracts[name], known_at, name in before) if name in contracts else table


class _FeatureReplay:
    """A feature table that is computed several times from changed tables; its SQL is compiled once, which takes longest."""

    def __init__(self, build: FeatureBuilder, tables: Mapping[str, "LazyTable"], columns: Sequence[str]) -> None:
        import ibis

        self._engine = ibis.duckdb.connect()
        self._names = tuple(tables)
        for name, table in tables.items():
            rows = table.to_pyarrow()
            self._engine.con.register(_full_name(name), rows)
            self._engine.con.register(name, rows)
        fuse_selects = ibis.options.sql.fuse_selects
        ibis.options.sql.fuse_selects = False  # the SQL is longer, but compiles in half the time
        try:
            self._sql = self._engine.compile(build({name: self._engine.table(name) for name in tables}).select(*columns))
        finally:
            ibis.options.sql.fuse_selects = fuse_selects

    def rows(self) -> "pd.DataFrame":
        """Return the columns, computed from the registered tables."""
        frame: pd.DataFrame = self._engine.con.execute(self._sql).to_arrow_table().to_pandas()
        return frame

    def rows_with(self, change: Callable[[str, "LazyTable"], "LazyTable"]) -> "pd.DataFrame":
        """Return the columns, computed from each original table after `change`."""
        for name in self._names:
            self._engine.con.register(name, change(name, self._engine.table(_full_name(name))).to_pyarrow())
        return self.rows()


def _full_name(name: str) -> str:
    return f"whole_{name}"


def restrict_to_known(table: "LazyTable", contract: Table, known_at: Any, is_strict: bool = False) -> "LazyTable":
    """Return a table as it was known at a time: later events are removed, and values of earlier events that became known later are null.

    Parameters
    ----------
    known_at
        A naive UTC timestamp.
    is_strict
        Whether events at exactly that time are removed too.
    """
    import ibis

    limit = ibis.literal(known_at).cast("timestamp(6)")

    def is_known(column: str) -> Any:
        time = table[column].cast("timestamp(6)")
        return time.isnull() | ((time < limit) if is_strict else (time <= limit))

    known_values = {
        column.name: ibis.ifelse(is_known(column.known), table[column.name], ibis.null(table[column.name].type()))
        for column in contract.columns
        if column.name in table.columns and column.known in table.columns and column.known != contract.event_time
    }
    known = table.mutate(**known_values)
    event_time = contract.event_time
    return known.filter(is_known(event_time)) if event_time is not None and event_time in table.columns else known


def _sample_customers(tables: Mapping[str, "LazyTable"], sample: int, seed: int) -> dict[str, "LazyTable"]:
    """Return the tables restricted to a random sample of customers."""
    customer_table = next((table for table in tables.values() if "customer_id" in table.columns), None)
    if not sample or customer_table is None:
        return dict(tables)
    customers = sorted(set(customer_table.select("customer_id").distinct().to_pyarrow()["customer_id"].to_pylist()) - {None})
    drawn = np.random.default_rng(seed).permutation(len(customers))[:sample]
    chosen = [customers[place] for place in sorted(drawn)]
    return {
        name: table.filter(table.customer_id.isin(chosen)) if "customer_id" in table.columns else table for name, table in tables.items()
    }


# Samples, models and AUCs ------------------------------------------------------------------------------------------------------


def draw_sample(
    frame: "pd.DataFrame",
    names: Sequence[str],
    label: str,
    time_column: str | None,
    group: str | None,
    seed: int,
    most: int = LARGEST_SAMPLE,
) -> Sample:
    """Return at most `most` rows, both outcomes in equal number where possible, split into a later and an earlier part.

    Parameters
    ----------
    frame, names, label
        The feature table, its feature columns, and the column of the outcome.
    time_column
        Column of times that splits the rows; None splits whole groups at random.
    group
        Column with the person of each row; None takes each row as a person.
    seed, most
        Seed of the draw, and largest number of rows.

    Raises
    ------
    ValueError
        For an outcome that is missing or not 0/1.
    """
    outcomes = frame[label].to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isin(outcomes, (0, 1)).all():
        raise ValueError(f"{label} must be 0 or 1 in every row: leave out rows whose outcome is not known")
    target = outcomes.astype(bool)
    draw = np.random.default_rng(seed)
    places = [draw.permutation(np.flatnonzero(target == outcome)) for outcome in (True, False)]
    n_rarer = min(len(part) for part in places)
    chosen = [part[: max(most // 2, most - n_rarer)] for part in places]
    drawn = np.sort(np.concatenate(chosen))
    weights = [len(part) / max(len(taken), 1) for part, taken in zip(places, chosen, strict=True)]
    groups = np.arange(len(drawn)) if group is None else np.unique(frame[group].to_numpy()[drawn].astype(str), return_inverse=True)[1]
    if time_column is None:
        late = draw.random(int(groups.max()) + 1 if len(groups) else 0)[groups] < LATE_SHARE
    else:
        times = frame[time_column].to_numpy()[drawn].astype("datetime64[us]").astype(np.int64)
        late = times >= np.quantile(times, 1 - LATE_SHARE, method="nearest") if len(times) else np.zeros(0, bool)
    rows = frame[list(names)].to_numpy(dtype=np.float64, na_value=np.nan)[drawn]
    rows[~np.isfinite(rows)] = np.nan
    return Sample(rows, target[drawn], groups, late, time_column is not None, weights[0] / weights[1] if weights[1] else 1.0)


class _BoostedTrees:
    """Boosted trees of the columns that have a value in the training rows; scikit-learn fails on a column that has none."""

    def __init__(self, seed: int) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier

        self._trees = HistGradientBoostingClassifier(
            max_iter=30,
            learning_rate=0.2,
            max_leaf_nodes=15,
            min_samples_leaf=20,
            l2_regularization=1.0,
            early_stopping=False,
            random_state=seed,
        )

    def fit(self, rows: Floats, labels: Flags) -> "_BoostedTrees":
        self._used_columns = np.isfinite(rows).any(axis=0)
        if not self._used_columns.any():
            self._used_columns = np.ones(rows.shape[1], bool)
            rows = np.zeros_like(rows)
        self._trees.fit(rows[:, self._used_columns], labels)
        return self

    def decision_function(self, rows: Floats) -> Floats:
        """Return log-odds, shape (n,)."""
        scores: Floats = self._trees.decision_function(rows[:, self._used_columns])
        return scores

    def predict_proba(self, rows: Floats) -> Floats:
        """Return probabilities of both outcomes, shape (n, 2)."""
        probabilities: Floats = self._trees.predict_proba(rows[:, self._used_columns])
        return probabilities


def _cross_score(sample: Sample, score: Callable[[Flags, Flags], Floats]) -> tuple[float, Floats]:
    """Return the AUC of scores of each part by the other, weighted by rows, and its influence; each part is ranked by itself."""
    value, influence = 0.0, np.zeros(len(sample.labels))
    for test in (sample.late, ~sample.late):
        scores, share = score(~test, test), float(test.mean())
        value += share * _auc(sample.labels[test], scores)
        influence[test] = share * _influence(sample.labels[test], scores)
    return value, influence


def _score_single_feature(sample: Sample, place: int, train: Flags, test: Flags) -> Floats:
    """Return the better score of one feature: its order, in the direction of the training rows, or a small tree."""
    from sklearn.tree import DecisionTreeClassifier

    column, labels = sample.rows[:, place], sample.labels
    median = np.nanmedian(column[train]) if np.isfinite(column[train]).any() else 0.0
    filled = np.where(np.isnan(column), median, column)
    sign = 1 if _auc(labels[train], filled[train]) >= 0.5 else -1
    tree = DecisionTreeClassifier(max_leaf_nodes=16, min_samples_leaf=max(5, int(train.sum()) // 200), random_state=0)
    tree_scores: Floats = tree.fit(column[train, None], labels[train]).predict_proba(column[test, None])[:, 1]
    return max(tree_scores, sign * filled[test], key=lambda scores: _auc(labels[test], scores))


def _score_features(sample: Sample, places: NDArray[np.int64], train: Flags, test: Flags) -> Floats:
    """Return the better score of two models of these features; choosing on the test rows favours them, so echoes only get rarer."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import QuantileTransformer

    linear = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True, add_indicator=True),
        QuantileTransformer(n_quantiles=100, random_state=0),
        LogisticRegression(C=0.1, max_iter=300),
    )
    rows, labels = sample.rows[:, places], sample.labels
    candidates = [model.fit(rows[train], labels[train]).predict_proba(rows[test])[:, 1] for model in (_BoostedTrees(0), linear)]
    return max(candidates, key=lambda scores: _auc(labels[test], scores))


def _placements(labels: Flags, scores: ArrayLike) -> tuple[Floats, float]:
    """Return each row's share of rows of the other outcome ranked rightly, a tie counting a half, and the AUC, the mean of that."""
    score = np.asarray(scores, np.float64)
    n_positive, n_negative = int(labels.sum()), int((~labels).sum())
    ranks = _ranks(score)
    placements = np.empty(len(score))
    placements[labels] = (ranks[labels] - _ranks(score[labels])) / n_negative
    placements[~labels] = 1 - (ranks[~labels] - _ranks(score[~labels])) / n_positive
    return placements, float(placements[labels].mean())


def _ranks(values: NDArray[Any]) -> Floats:
    """Return ranks from 1, the mean rank where values tie; shape (n,)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.diff(np.r_[starts, len(values)])
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (counts + 1) / 2, counts)
    return ranks


def _auc(labels: Flags, scores: ArrayLike) -> float:
    n_positive, n_negative = int(labels.sum()), int((~labels).sum())
    above = _ranks(np.asarray(scores, np.float64))[labels].sum() - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * n_negative))


def _influence(labels: Flags, scores: ArrayLike) -> Floats:
    """Return each row's contribution to the AUC's error, shape (n,): they sum to 0, and their squares to DeLong's variance."""
    placements, auc = _placements(labels, scores)
    return (placements - auc) / np.where(labels, labels.sum(), (~labels).sum())


def _standard_error(influence: Floats, groups: NDArray[np.int64]) -> float:
    """Return the standard error of a figure with this influence, all rows of a group as one draw (Obuchowski, *Biometrics* 1997)."""
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], influence)
    return float(np.sqrt((sums**2).sum() * len(sums) / max(len(sums) - 1, 1)))


def _z_value(tail: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(1 - tail)
