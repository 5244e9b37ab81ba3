"""The leakage linter: features that carry information from after the decision.

`lint` runs the rules that need a feature table alone: `find_known_later`, which reads declarations; those of `outcome_leaks`, which compare
columns with the outcome; `find_time_collapse` and `find_identifiers`. `look_ahead.find_look_ahead` recomputes features from a ledger that
is cut off at the decision. No rule changes or repairs data.

Thresholds come from false-alarm reasoning. A rule that tests flags a clean table of any size with a probability of at most `ALPHA`,
divided by the number of columns tested, and only beyond a margin that matters: with a million rows every difference is significant, and
most are irrelevant. All rows of one group (a customer) count as one draw.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from finrisk_assets.modelling.evaluation import outcome_leaks
from finrisk_assets.modelling.evaluation.leakage_evidence import (
    ALPHA,
    LARGEST_SAMPLE,
    MIN_ROWS_PER_OUTCOME,
    Flags,
    Floats,
    LeakageFinding,
    QuickTrees,
    Sample,
    compute_auc,
    compute_influence,
    draw_sample,
    rank,
    standard_error,
    z_value,
)
from schemas.ledger import Column

if TYPE_CHECKING:
    import pandas as pd

MIN_AUC_FALL = 0.05
"""AUC; the smallest fall from random folds to out of time that matters: one pair in twenty. Such a fall shows that the table drifts or
leaks, not which of the two.
"""
N_FOLDS = 2
MAX_TIME_SUSPECTS = 5
"""Columns, the most used first, of which each is left out to see whether a fall out of time disappears with it."""
MAX_IDENTIFIER_ROWS = 50_000
"""Rows, drawn in their order, in which `find_identifiers` looks."""
COUNTER_CORRELATION = 0.995
"""Rank correlation with time or with the order of the rows, above which a column is a counter."""

TIME = "time"
"""Name of a fall out of time that no single column causes, among the columns that a person has examined."""
PROVEN = ("known_later", "look_ahead")
"""Rules that no examination excuses: they prove when a value was known."""


def lint(
    frame: "pd.DataFrame",
    features: Sequence[str],
    label: str,
    *,
    decision_time: str | None = None,
    order: str | None = None,
    group: str | None = None,
    columns: Sequence[Column] = (),
    computed: Collection[str] = (),
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
    computed
        Features that the product computes from the ledger. They are no identifiers: a ledger's age or a count may follow time.
    examined
        Features that a person has examined and found free of leakage, or `TIME`. This excuses all but the rules of `PROVEN`.
    most
        Largest number of rows that models are fitted and tested on.
    seed
        Seed of the sample and the folds.

    Returns
    -------
    list of LeakageFinding
        One for each column at most.

    Raises
    ------
    ValueError
        For a column that the table lacks, or labels that are missing or not 0/1.
    """
    absent = [name for name in (*features, label, *(n for n in (decision_time, order, group) if n)) if name not in frame.columns]
    if absent:
        raise ValueError(f"the feature table has no {', '.join(absent)}")
    time_column = decision_time if decision_time and frame[decision_time].notna().all() and len(frame) else None
    late_findings = find_known_later(frame, [column for column in columns if column.name in features], decision_time)
    # A late column would make other columns look harmless, and must not be reported twice.
    remaining = [name for name in features if name not in {finding.column for finding in late_findings}]
    if not remaining:
        return late_findings
    split_column = order if order and time_column is None and frame[order].notna().all() else time_column
    sample = replace(draw_sample(frame, remaining, label, split_column, group, seed, most), is_timed=time_column is not None)
    values, people = frame[remaining], None if group is None else frame[group]
    learned = _keep_surest(
        [
            *outcome_leaks.find_target_echoes(sample, remaining),
            *outcome_leaks.find_own_outcome_means(remaining, values, frame[label]),
            *outcome_leaks.find_one_class_values(sample, remaining, values, frame[label], people),
            *find_time_collapse(sample, remaining, seed),
            *outcome_leaks.find_dominant_features(sample, remaining, seed),
        ]
    )
    possible_identifiers = [name for name in remaining if name not in {finding.column for finding in learned} and name not in computed]
    findings = [*late_findings, *learned, *find_identifiers(frame, possible_identifiers, time_column, group)]
    return [finding for finding in findings if finding.rule in PROVEN or (finding.column or TIME) not in examined]


def _keep_surest(findings: Iterable[LeakageFinding]) -> list[LeakageFinding]:
    """Return one finding for each column: one that blocks before one to examine, else the first."""
    by_column: dict[str, LeakageFinding] = {}
    for finding in sorted(findings, key=lambda finding: finding.severity != "block"):
        by_column.setdefault(finding.column, finding)
    return list(by_column.values())


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
    if not sample.is_timed or not sample.has_enough_in_both_parts():
        return []
    late_labels, groups = sample.labels[sample.late], sample.groups[sample.late]
    all_places = list(range(len(names)))
    random, ordered = _score_random_and_ordered(sample, all_places, seed)
    auc_random, auc_ordered = compute_auc(late_labels, random), compute_auc(late_labels, ordered)
    fall = auc_random - auc_ordered
    margin = z_value(ALPHA) * standard_error(compute_influence(late_labels, random) - compute_influence(late_labels, ordered), groups)
    if fall - margin <= MIN_AUC_FALL:
        return []
    shows = f"in random folds the latest rows have an AUC of {auc_random:.3f}, out of time {auc_ordered:.3f}"
    findings = []
    for place in _rank_columns_by_use(sample, seed)[:MAX_TIME_SUSPECTS]:
        others = [p for p in all_places if p != place]
        if not others:
            break
        random_without, ordered_without = _score_random_and_ordered(sample, others, seed)
        fall_without = compute_auc(late_labels, random_without) - compute_auc(late_labels, ordered_without)
        if fall_without < fall / 2:
            shows_column = f"{shows}; without this column the fall is {fall_without:.3f} instead of {fall:.3f}"
            advice = "Leave it out, or compute it from what was known before each row"
            findings.append(LeakageFinding(names[place], "time_collapse", fall, shows_column, advice, severity="examine"))
    if findings:
        return findings
    advice = "Judge out of time, split by person, and look for a value that only one period has"
    return [LeakageFinding("", "time_collapse", fall, f"{shows}, and no single column makes the fall", advice, severity="examine")]


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
                scores[in_fold] = QuickTrees(rows[train], labels[train], seed).margin(rows[in_fold])
    return random[sample.late], ordered[sample.late]


def _rank_columns_by_use(sample: Sample, seed: int) -> list[int]:
    """Return columns by how much of the loss a model takes away with them, the most used first."""
    return [int(place) for place in np.argsort(-QuickTrees(sample.rows, sample.labels, seed).importance, kind="stable")]


# Identifiers -------------------------------------------------------------------------------------------------------------------


def find_identifiers(
    frame: "pd.DataFrame", names: Sequence[str], decision_time: str | None = None, group: str | None = None
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
    """
    findings = []
    if len(frame) > MAX_IDENTIFIER_ROWS:
        frame = frame.iloc[np.sort(np.random.default_rng(0).permutation(len(frame))[:MAX_IDENTIFIER_ROWS])]
    advice = "Leave it out: it names rows, and what it seems to tell holds for these rows only"
    for name in names:
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
    ranks = rank(values)
    correlations = [float(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1])] if is_whole else []
    if decision_time is not None:
        times = frame[decision_time].to_numpy()[is_finite].astype("datetime64[us]").astype(np.int64)
        if len(np.unique(times)) > len(times) / 2:  # a few month-ends give no ranks
            correlations.append(float(np.corrcoef(ranks, rank(times))[0, 1]))
    return max(correlations, key=abs, default=0.0)
