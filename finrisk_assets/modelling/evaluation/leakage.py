"""The leakage linter: which features tell what nobody could know when the decision falls.

Five rules, each a pure function that returns findings: `known_later` reads declarations; `echoes`, `time_collapse` and `identifiers` read
a feature table; `looks_ahead` computes features again from a ledger cut off at the decision. `lint` runs the first four. None of them
changes or repairs anything.

Thresholds come from false-alarm reasoning. A rule that tests draws its line so that a clean table of any size is flagged with
a probability of at most `ALPHA`, divided by the number of columns that it looks at, and only beyond a margin that matters: with a
million rows every difference is certain, and most mean nothing. Rows of one group (a customer) count as one draw.
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
Build = Callable[[Mapping[str, "LazyTable"]], "LazyTable"]

ALPHA = 0.01
"""Largest probability that a rule flags a clean table by chance."""
PERFECT = 0.99
"""An AUC beyond which one feature is the label itself, but for noise: it ranks no more than one pair in a hundred wrongly."""
FEWER_WRONG = 1 / 3
"""A single feature is an echo if it ranks this share fewer pairs wrongly than a model of all the others. Many views of one person overlap,
so that the best of them beats the others together by little, if at all."""
FEWEST_OTHERS = 5
"""With fewer other features than this, that one tells more than the others together says nothing."""
MOST_ECHOES = 5
"""So many features at once are tried as copies of one leak, each of which would excuse the others."""
SURE = 0.9
"""A label's rate among rows with (or without) a value, beyond which having one tells the label."""
UNSURE = 0.5
"""What the other features may say of those rows at most, for the absence to be news."""
FALL = 0.05
"""A fall of the AUC from random folds to out of time that matters: one pair in twenty. That it is there says that the table changes
or leaks, not which of the two."""
LARGEST_SAMPLE = 16_000
"""Rows that models are fitted on and judged by, half of either outcome as far as there are: an AUC does not depend on the base rate."""
FEWEST_OF_EACH = 50
"""With fewer rows of either outcome, in the part that judges, no claim is made."""
LATE = 0.4
"""Share of the rows in the later part."""
FOLDS = 2
MOST_NUMBERED = 50_000
"""Rows, drawn in their order, in which identifiers are looked for."""
ORDERED = 0.995
"""Rank correlation with the order of time or of the rows, beyond which a column is a counter."""
SPAN_DAYS = 31
"""Rows decided so shortly before the cut are compared by `looks_ahead`; what looks no further ahead than a day still shows."""


@dataclass(frozen=True)
class LeakageFinding:
    """One column that may leak.

    Attributes
    ----------
    column
        Its name; empty where the table as a whole is meant.
    rule, evidence
        Which rule, and its number: the share of rows known late or changed (`known_later`, `look_ahead`), an AUC or a rate
        (`target_echo`), a fall of the AUC (`time_collapse`), a share of different values or a correlation (`identifier`).
    shows, advice
        What was seen, and what to do; plain sentences without any value of a row.
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
    """The rows that models are fitted on and judged by.

    Attributes
    ----------
    rows, labels, groups
        Features float64, shape (n, d), NaN where missing; outcomes, bool, shape (n,); numbers of the groups, from 0, shape (n,).
    late
        The later part of the rows, shape (n,); where rows have no time, whole groups at random. What one part teaches, the other judges.
    is_timed
        Whether rows have a time.
    odds
        What the odds of the sample are to be multiplied by to have those of the table.
    """

    rows: Floats
    labels: Flags
    groups: NDArray[np.int64]
    late: Flags
    is_timed: bool
    odds: float

    def enough(self) -> bool:
        """Whether both parts have enough rows of either outcome for a claim."""
        parts = (self.labels[self.late], self.labels[~self.late])
        return all(min(part.sum(), (~part).sum()) >= FEWEST_OF_EACH for part in parts)


def lint(
    frame: "pd.DataFrame",
    features: Sequence[str],
    label: str,
    *,
    moment: str | None = None,
    order: str | None = None,
    group: str | None = None,
    columns: Sequence[Column] = (),
    examined: Collection[str] = (),
    most: int = LARGEST_SAMPLE,
    seed: int = 0,
) -> list[LeakageFinding]:
    """Run the rules that need no more than a feature table.

    Parameters
    ----------
    frame
        Rows with a known outcome, of any base rate.
    features, label
        Columns of numbers (NaN where missing), and the outcome, 0/1 or boolean.
    moment
        The column that says when each row is decided. None, or a column with gaps: nothing is said of time.
    order
        A time that rows are halved by where nothing says when they are decided: what one half teaches, the other judges.
    group
        Whose rows they are, where one person has several.
    columns
        Declarations of the features, as far as there are any; see `known_later`.
    examined
        Features that a person has looked into and found honest: they may tell more than all others, or number the rows. A column
        known later, or a fall out of time, is not excused by this.
    most
        Rows that models are fitted on and judged by, at most.
    seed
        Of the sample and the folds.

    Raises
    ------
    ValueError
        For a column that the table lacks, or labels that are missing or not 0/1.
    """
    absent = [name for name in (*features, label, *(n for n in (moment, order, group) if n)) if name not in frame.columns]
    if absent:
        raise ValueError(f"the feature table has no {', '.join(absent)}")
    timed = moment if moment and frame[moment].notna().all() and len(frame) else None
    found = known_later(frame, [column for column in columns if column.name in features], moment)
    late = {finding.column for finding in found}
    # What is known too late is found: it must not make other columns look harmless, or be found twice.
    rest = [name for name in features if name not in late]
    if not rest:
        return found
    halved = order if order and timed is None and frame[order].notna().all() else timed
    sample = replace(draw_sample(frame, rest, label, halved, group, seed, most), is_timed=timed is not None)
    echoed = echoes(sample, rest, frame[rest], frame[label], examined)
    alike = [name for name in rest if name not in {finding.column for finding in echoed}]
    numbered = identifiers(frame, alike, timed, group, examined)
    return [*found, *echoed, *time_collapse(sample, rest, seed), *numbered]


# Known later -------------------------------------------------------------------------------------------------------------------


def known_later(frame: "pd.DataFrame", columns: Iterable[Column], moment: str | None) -> list[LeakageFinding]:
    """Flag columns that are declared as known after the decision.

    `Column.known` is ``always``, the moment of the decision, or another column of the table. Of that, each row is asked; one row
    that was known after its decision is enough. A column that no row shows to be known in time is flagged as well.
    """
    found = []
    for column in columns:
        if column.known in ("always", moment):
            continue
        share, shows = 1.0, f"it is known at {column.known}, and no row shows that this is before the decision"
        if moment in frame.columns and column.known in frame.columns:
            both = frame[[column.known, moment]].dropna()
            if len(both):
                share = float((both[column.known] > both[moment]).mean())
                shows = f"it is known at {column.known}, after the decision in {share:.1%} of the rows"
        if share > 0:
            found.append(LeakageFinding(column.name, "known_later", share, shows, "Leave it out, or take its value as of the decision"))
    return found


# Echoes of the target ----------------------------------------------------------------------------------------------------------


def echoes(
    sample: Sample, names: Sequence[str], values: "pd.DataFrame", labels: "pd.Series", examined: Collection[str] = ()
) -> list[LeakageFinding]:
    """Flag features that alone tell what all others together cannot.

    The earlier rows judge what was learned from the later ones, and the later ones the reverse, so that no row is judged by the
    company of its own time. What one feature tells is the better of its own order and of a small tree, with missing values as a
    branch. It is an echo where its AUC is certainly above `PERFECT`, or where it ranks certainly a third (`FEWER_WRONG`) fewer pairs
    wrongly than the better of boosted trees and a logistic regression of all the others. Copies of one leak would excuse each other,
    so the strongest one to five are held against the rest. Last, having a value at all: where nearly all rows with (or without) one
    have the rarer outcome, and the others do not expect it.
    """
    if not sample.enough():
        return []
    alone = [_across(sample, partial(_alone, sample, place)) for place in range(len(names))]
    aucs = np.array([auc for auc, _ in alone])
    z = _z(ALPHA / (2 * len(names) * MOST_ECHOES))  # two ways to read each feature, and so many rivals
    echoed: dict[int, tuple[float, str]] = {}
    for place, (auc, influence) in enumerate(alone):
        if auc - z * _deviation(influence, sample.groups) >= PERFECT:
            echoed[place] = auc, f"alone it has an AUC of {auc:.3f}: it is the label, but for noise"
    order = np.argsort(-aucs, kind="stable")
    for count in range(1, min(MOST_ECHOES, len(names) - FEWEST_OTHERS) + 1):
        strongest, others = order[:count], order[count:]
        weakest, next_best = strongest[-1], others[0]
        # The others together are hardly worse than the best of them: what does not clear that need not be tried.
        if 1 - aucs[weakest] > (1 - FEWER_WRONG) * (1 - aucs[next_best]):
            continue
        rest, of_rest = _across(sample, partial(_together, sample, others))
        for place in strongest.tolist():
            gain = (1 - FEWER_WRONG) * (1 - rest) - (1 - aucs[place])
            if gain > z * _deviation(alone[place][1] - (1 - FEWER_WRONG) * of_rest, sample.groups):
                shows = f"alone it has an AUC of {aucs[place]:.3f} on held-out rows, {len(others)} other features together {rest:.3f}"
                echoed.setdefault(int(place), (float(aucs[place]), shows))
    for place, evidence in _telling_gaps(sample, values, labels, [p for p in range(len(names)) if p not in echoed]).items():
        echoed[place] = evidence
    advice = "Find out when it is known: leave it out if that is after the decision, else say that it was examined"
    return [
        LeakageFinding(names[place], "target_echo", number, shows, advice)
        for place, (number, shows) in sorted(echoed.items())
        if names[place] not in examined
    ]


def _telling_gaps(sample: Sample, values: "pd.DataFrame", labels: "pd.Series", places: Sequence[int]) -> dict[int, tuple[float, str]]:
    """Columns whose having a value, or lacking one, tells the label when nothing else does."""
    from scipy.stats import beta

    target = labels.to_numpy(dtype=bool)
    rarer = target if target.mean() <= 0.5 else ~target
    found: dict[int, tuple[float, str]] = {}
    for place in places:
        missing = values.iloc[:, place].isna().to_numpy()
        for where, word in ((missing, "without"), (~missing, "with")):
            n, events = int(where.sum()), int(rarer[where].sum())
            if min(events, len(where) - n) < FEWEST_OF_EACH:
                continue
            if beta.ppf(ALPHA / (2 * len(values.columns)), events, n - events + 1) < SURE:  # Clopper & Pearson (Biometrika 1934), exact
                continue
            others = [p for p in range(values.shape[1]) if p != place]
            said = _expected(sample, others, np.isnan(sample.rows[:, place]) == (word == "without"))
            said = said if said is None or rarer is target else 1 - said
            if said is not None and said < UNSURE:
                shows = f"{events / n:.1%} of the rows {word} a value have the rarer outcome; the other features expect {said:.1%}"
                found[place] = events / n, shows
    return found


def _expected(sample: Sample, places: Sequence[int], where: Flags) -> float | None:
    """The mean probability that the model of some features gives to the late rows of a kind, at the whole table's base rate."""
    asked = where & sample.late
    if not places or not asked.any():
        return None
    model = _Boosted(0).fit(sample.rows[~sample.late][:, places], sample.labels[~sample.late])
    said = model.predict_proba(sample.rows[asked][:, places])[:, 1]
    return float(np.mean(said * sample.odds / (said * sample.odds + 1 - said)))


# Collapse out of time ----------------------------------------------------------------------------------------------------------


def time_collapse(sample: Sample, names: Sequence[str], seed: int = 0) -> list[LeakageFinding]:
    """Flag a score in random folds that is far above the one out of time, and the columns that make it so.

    The latest rows are scored twice, by models of the same kind and of as many rows: of the rows before them, and of rows of any
    time. Neither learns from the group that it scores. Only the company of their own time differs, so the paired difference of AUCs
    is its worth. It is flagged where it certainly exceeds `FALL`. Columns are then taken out, the most used first, and those are
    named without which half of the fall is gone; where none is, the fall is the table's own: drift, or a leak spread over many.
    """
    if not sample.is_timed or not sample.enough():
        return []
    judged, groups = sample.labels[sample.late], sample.groups[sample.late]
    everything = list(range(len(names)))
    random, ordered = _both_ways(sample, everything, seed)
    fall = _auc(judged, random) - _auc(judged, ordered)
    half = _z(ALPHA) * _deviation(_influence(judged, random) - _influence(judged, ordered), groups)
    if fall - half <= FALL:
        return []
    shows = f"in random folds the latest rows have an AUC of {_auc(judged, random):.3f}, out of time {_auc(judged, ordered):.3f}"
    found = []
    for place in _most_used(sample, seed)[:MOST_ECHOES]:
        kept = [p for p in everything if p != place]
        if not kept:
            break
        one, other = _both_ways(sample, kept, seed)
        left = _auc(judged, one) - _auc(judged, other)
        if left < fall / 2:
            told = f"{shows}; without this column the fall is {left:.3f} instead of {fall:.3f}"
            advice = "Leave it out, or compute it from what was known before each row"
            found.append(LeakageFinding(names[place], "time_collapse", fall, told, advice))
    if found:
        return found
    advice = "Judge out of time, split by person, and look for a value that only one period has"
    return [LeakageFinding("", "time_collapse", fall, f"{shows}, and no single column makes the fall", advice)]


def _both_ways(sample: Sample, places: Sequence[int], seed: int) -> tuple[Floats, Floats]:
    """Log-odds of the late rows, by models of rows of any time and by models of the rows before them."""
    rows, labels = sample.rows[:, places], sample.labels
    draw = np.random.default_rng(seed)
    fold = draw.integers(0, FOLDS, sample.groups.max() + 1)[sample.groups]
    random, ordered = np.zeros(len(labels)), np.zeros(len(labels))
    for number in range(FOLDS):
        asked = sample.late & (fold == number)
        others = np.flatnonzero(fold != number)
        before = others[~sample.late[others]]
        for into, taught in ((ordered, before), (random, draw.choice(others, len(before), replace=False))):
            if asked.any():
                into[asked] = _Boosted(seed).fit(rows[taught], labels[taught]).decision_function(rows[asked])
    return random[sample.late], ordered[sample.late]


def _most_used(sample: Sample, seed: int) -> list[int]:
    """Columns by what mixing their values costs a model of all the rows on those rows, the costliest first: what it memorised counts."""
    draw = np.random.default_rng(seed)
    model = _Boosted(seed).fit(sample.rows, sample.labels)
    losses = []
    for place in range(sample.rows.shape[1]):
        mixed = sample.rows.copy()
        mixed[:, place] = draw.permutation(mixed[:, place])
        losses.append(_auc(sample.labels, model.decision_function(mixed)))
    return [int(place) for place in np.argsort(losses, kind="stable")]


# Identifiers -------------------------------------------------------------------------------------------------------------------


def identifiers(
    frame: "pd.DataFrame", names: Sequence[str], moment: str | None = None, group: str | None = None, examined: Collection[str] = ()
) -> list[LeakageFinding]:
    """Flag columns that number the rows or the groups.

    Whole numbers that were drawn would meet: among n of them within a range of R, n(n-1)/2R pairs or more (the birthday problem;
    fewest where they are drawn evenly). A column whose values meet far less often was handed out. Numbers too wide to meet are taken
    as codes where they fill their range as evenly as drawn ones (Kolmogorov-Smirnov), which amounts of money do not. Last, a column
    of mostly different values that rises or falls with time, or whole numbers that do with the rows' order, is a counter. Amounts
    with a fraction are never codes.
    """
    found = []
    if len(frame) > MOST_NUMBERED:
        frame = frame.iloc[np.sort(np.random.default_rng(0).permutation(len(frame))[:MOST_NUMBERED])]
    advice = "Leave it out: it names rows, and what it seems to tell holds for these rows only"
    for name in (name for name in names if name not in examined):
        values = frame[name].to_numpy(dtype=np.float64)
        held = np.isfinite(values)
        whole = bool(held.any()) and bool((values[held] == np.round(values[held])).all())
        codes = values[held]
        if group is not None:  # a number of the person repeats with the person
            codes = frame.loc[held, [group, name]].drop_duplicates()[name].to_numpy(dtype=np.float64)
        different = len(np.unique(codes)) / max(len(codes), 1)
        correlation = _order(frame, name, moment, held, whole)
        if whole and _handed_out(codes):
            shows = f"whole numbers, {different:.1%} of them different: had they been drawn from their range, more would meet"
            found.append(LeakageFinding(name, "identifier", different, shows, advice))
        elif abs(correlation) >= ORDERED:
            shows = f"its rank follows the order of the rows or of time, with a correlation of {correlation:.4f}"
            found.append(LeakageFinding(name, "identifier", abs(correlation), shows, advice))
    return found


def _handed_out(codes: Floats) -> bool:
    from scipy.stats import kstest, poisson

    n = len(codes)
    if n < FEWEST_OF_EACH:
        return False
    low, high = float(codes.min()), float(codes.max())
    if high <= low:
        return False
    counts = np.unique(codes, return_counts=True)[1].astype(np.float64)
    met = float((counts * (counts - 1) / 2).sum())
    expected = n * (n - 1) / 2 / (high - low + 1)
    if met <= expected / 10 and poisson.cdf(met, expected) < ALPHA / 100:  # as many columns as a wide table has share ALPHA
        return True
    wide = high - low > 1e9 and met <= 0.01 * n
    return bool(wide and kstest((codes - low) / (high - low), "uniform").pvalue > ALPHA)


def _order(frame: "pd.DataFrame", name: str, moment: str | None, held: Flags, whole: bool) -> float:
    """The strongest rank correlation of mostly different values with time, or of whole numbers with the rows' order; else 0."""
    values = frame[name].to_numpy(dtype=np.float64)[held]
    if len(values) < FEWEST_OF_EACH or len(np.unique(values)) < len(values) / 2:
        return 0.0
    ranks = _ranks(values)
    found = [float(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1])] if whole else []
    if moment is not None:
        times = frame[moment].to_numpy()[held].astype("datetime64[us]").astype(np.int64)
        if len(np.unique(times)) > len(times) / 2:  # against a few month-ends, no rank is certain
            found.append(float(np.corrcoef(ranks, _ranks(times))[0, 1]))
    return max(found, key=abs, default=0.0)


# Look-ahead --------------------------------------------------------------------------------------------------------------------


def looks_ahead(
    build: Build,
    tables: Mapping[str, "LazyTable"],
    features: Sequence[str],
    *,
    key: str,
    moment: str,
    at: Sequence[Any] = (),
    shares: Sequence[float] = (0.5, 0.9),
    before: Collection[str] = ("transactions",),
    contracts: Mapping[str, Table] = TABLES,
    sample: int = 300,
    seed: int = 0,
) -> list[LeakageFinding]:
    """Flag features that change when what happened at or after the decision is taken away.

    The features are computed from the ledger and again from the ledger as it was known at a moment T (`as_known`). Rows decided
    within `SPAN_DAYS` days up to T must be equal in both; one that is not has looked ahead. No distribution is assumed, so there is
    no false alarm but a feature that truly differs; what looks ahead without any event there to be seen goes unseen. All is computed
    in a DuckDB of its own in memory, whatever engine the tables are of.

    Parameters
    ----------
    build
        From tables by name to the feature table; pure, as `Domain.build` of one source.
    tables
        What `build` reads, as lazy Ibis tables.
    features, key, moment
        Columns of what it returns: the features, what names a row, and when it is decided.
    at, shares
        The moments T. None given: those at which such shares of the rows are decided.
    before
        Tables of which only what is strictly before T is known at T. Of the others, what happened at T itself is part of
        the decision (a loan applied for, the transaction that is judged).
    contracts
        What `tables` are; one without a contract is handed on whole.
    sample, seed
        So many customers, drawn by the seed; every table that has ``customer_id`` is cut down to them. 0 takes all.

    Raises
    ------
    ValueError
        Where no row has a moment, or no row is decided in the span.
    """
    import pandas as pd

    replay = _Replay(build, _of_customers(tables, sample, seed), (key, moment, *features))
    whole = replay.rows().set_index(key)
    dated = whole[whole[moment].notna()]
    if dated.empty:
        raise ValueError(f"no row says when it is decided ({moment}): a look ahead cannot be told")
    cuts = [pd.Timestamp(one) for one in at] or [dated[moment].sort_values().iloc[int(len(dated) * share)] for share in shares]
    changed, compared = np.zeros(len(features)), 0
    for cut in dict.fromkeys(cuts):
        again = replay.rows_after(partial(_cut_off, moment=cut, before=before, contracts=contracts))
        again = again[again[moment] <= cut].set_index(key)
        near = dated[(dated[moment] <= cut) & (dated[moment] > cut - pd.Timedelta(days=SPAN_DAYS))]
        near = near[near.index.isin(again.index)]
        first = near[list(features)].to_numpy(dtype=np.float64)
        second = again.loc[near.index, list(features)].to_numpy(dtype=np.float64)
        changed += (~np.isclose(first, second, rtol=1e-9, atol=1e-9, equal_nan=True)).sum(axis=0)
        compared += len(near)
    if not compared:
        raise ValueError(f"no row is decided in the {SPAN_DAYS} days up to any of the cuts: choose others")
    advice = "Let its window end before the decision, and delay outcomes until they are known"
    return [
        LeakageFinding(name, "look_ahead", count / compared, f"{int(count)} of {compared} rows change without what came after them", advice)
        for name, count in zip(features, changed.tolist(), strict=True)
        if count
    ]


def _cut_off(name: str, table: "LazyTable", *, moment: Any, before: Collection[str], contracts: Mapping[str, Table]) -> "LazyTable":
    return as_known(table, contracts[name], moment, name in before) if name in contracts else table


class _Replay:
    """A feature table that is computed again and again from changed tables, and put into SQL once: that takes longest of all."""

    def __init__(self, build: Build, tables: Mapping[str, "LazyTable"], columns: Sequence[str]) -> None:
        import ibis

        self._engine = ibis.duckdb.connect()
        self._names = tuple(tables)
        for name, table in tables.items():
            rows = table.to_pyarrow()
            self._engine.con.register(_whole(name), rows)
            self._engine.con.register(name, rows)
        fused = ibis.options.sql.fuse_selects
        ibis.options.sql.fuse_selects = False  # the SQL is longer, and written in half the time
        try:
            self._sql = self._engine.compile(build({name: self._engine.table(name) for name in tables}).select(*columns))
        finally:
            ibis.options.sql.fuse_selects = fused

    def rows(self) -> "pd.DataFrame":
        """The columns, computed from the tables as they stand."""
        frame: pd.DataFrame = self._engine.con.execute(self._sql).to_arrow_table().to_pandas()
        return frame

    def rows_after(self, change: Callable[[str, "LazyTable"], "LazyTable"]) -> "pd.DataFrame":
        """The columns, computed from what `change` makes of the tables as they were."""
        for name in self._names:
            self._engine.con.register(name, change(name, self._engine.table(_whole(name))).to_pyarrow())
        return self.rows()


def _whole(name: str) -> str:
    return f"whole_{name}"


def as_known(table: "LazyTable", contract: Table, moment: Any, strictly: bool = False) -> "LazyTable":
    """A table as it was known at a moment: later events are gone, and of earlier ones what became known later is null.

    Parameters
    ----------
    moment
        A naive UTC timestamp. `strictly`: what happened at that very moment is gone too.
    """
    import ibis

    limit = ibis.literal(moment).cast("timestamp(6)")

    def is_known(column: str) -> Any:
        when = table[column].cast("timestamp(6)")
        return when.isnull() | ((when < limit) if strictly else (when <= limit))

    later = {
        column.name: ibis.ifelse(is_known(column.known), table[column.name], ibis.null(table[column.name].type()))
        for column in contract.columns
        if column.name in table.columns and column.known in table.columns and column.known != contract.event_time
    }
    shown = table.mutate(**later)
    happened = contract.event_time
    return shown.filter(is_known(happened)) if happened is not None and happened in table.columns else shown


def _of_customers(tables: Mapping[str, "LazyTable"], sample: int, seed: int) -> dict[str, "LazyTable"]:
    whose = next((table for table in tables.values() if "customer_id" in table.columns), None)
    if not sample or whose is None:
        return dict(tables)
    names = sorted(set(whose.select("customer_id").distinct().to_pyarrow()["customer_id"].to_pylist()) - {None})
    drawn = np.random.default_rng(seed).permutation(len(names))[:sample]
    kept = [names[place] for place in sorted(drawn)]
    return {name: t.filter(t.customer_id.isin(kept)) if "customer_id" in t.columns else t for name, t in tables.items()}


# Samples, models and AUCs ------------------------------------------------------------------------------------------------------


def draw_sample(
    frame: "pd.DataFrame",
    names: Sequence[str],
    label: str,
    moment: str | None,
    group: str | None,
    seed: int,
    most: int = LARGEST_SAMPLE,
) -> Sample:
    given = frame[label].to_numpy(dtype=np.float64, na_value=np.nan)
    if not np.isin(given, (0, 1)).all():
        raise ValueError(f"{label} must be 0 or 1 in every row: leave out rows whose outcome is not known")
    target = given.astype(bool)
    draw = np.random.default_rng(seed)
    places = [draw.permutation(np.flatnonzero(target == outcome)) for outcome in (True, False)]
    fewer = min(len(part) for part in places)
    kept = [part[: max(most // 2, most - fewer)] for part in places]
    drawn = np.sort(np.concatenate(kept))
    weights = [len(part) / max(len(some), 1) for part, some in zip(places, kept, strict=True)]
    groups = np.arange(len(drawn)) if group is None else np.unique(frame[group].to_numpy()[drawn].astype(str), return_inverse=True)[1]
    if moment is None:
        late = draw.random(int(groups.max()) + 1 if len(groups) else 0)[groups] < LATE
    else:
        times = frame[moment].to_numpy()[drawn].astype("datetime64[us]").astype(np.int64)
        late = times >= np.quantile(times, 1 - LATE, method="nearest") if len(times) else np.zeros(0, bool)
    rows = frame[list(names)].to_numpy(dtype=np.float64, na_value=np.nan)[drawn]
    rows[~np.isfinite(rows)] = np.nan
    return Sample(rows, target[drawn], groups, late, moment is not None, weights[0] / weights[1] if weights[1] else 1.0)


class _Boosted:
    """Boosted trees of the columns that have a value in the rows that teach; scikit-learn's fail on one that has none."""

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

    def fit(self, rows: Floats, labels: Flags) -> "_Boosted":
        self._told = np.isfinite(rows).any(axis=0)
        if not self._told.any():
            self._told = np.ones(rows.shape[1], bool)
            rows = np.zeros_like(rows)
        self._trees.fit(rows[:, self._told], labels)
        return self

    def decision_function(self, rows: Floats) -> Floats:
        """Log-odds, shape (n,)."""
        said: Floats = self._trees.decision_function(rows[:, self._told])
        return said

    def predict_proba(self, rows: Floats) -> Floats:
        """Probabilities of both outcomes, shape (n, 2)."""
        said: Floats = self._trees.predict_proba(rows[:, self._told])
        return said


def _across(sample: Sample, said_of: Callable[[Flags, Flags], Floats]) -> tuple[float, Floats]:
    """The AUC of what is said of either part from the other, by share of the rows, and its influence; each part is ranked by itself."""
    value, influence = 0.0, np.zeros(len(sample.labels))
    for asked in (sample.late, ~sample.late):
        said, share = said_of(~asked, asked), float(asked.mean())
        value += share * _auc(sample.labels[asked], said)
        influence[asked] = share * _influence(sample.labels[asked], said)
    return value, influence


def _alone(sample: Sample, place: int, taught: Flags, asked: Flags) -> Floats:
    """What one feature says: its order, in the direction that it was taught, or a small tree; whichever tells more."""
    from sklearn.tree import DecisionTreeClassifier

    column, labels = sample.rows[:, place], sample.labels
    middle = np.nanmedian(column[taught]) if np.isfinite(column[taught]).any() else 0.0
    ordered = np.where(np.isnan(column), middle, column)
    sign = 1 if _auc(labels[taught], ordered[taught]) >= 0.5 else -1
    tree = DecisionTreeClassifier(max_leaf_nodes=16, min_samples_leaf=max(5, int(taught.sum()) // 200), random_state=0)
    said: Floats = tree.fit(column[taught, None], labels[taught]).predict_proba(column[asked, None])[:, 1]
    return max(said, sign * ordered[asked], key=lambda one: _auc(labels[asked], one))


def _together(sample: Sample, places: NDArray[np.int64], taught: Flags, asked: Flags) -> Floats:
    """What the better of two models of these features says; that the choice flatters them only makes an echo rarer."""
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
    said = [model.fit(rows[taught], labels[taught]).predict_proba(rows[asked])[:, 1] for model in (_Boosted(0), linear)]
    return max(said, key=lambda one: _auc(labels[asked], one))


def _placements(labels: Flags, scores: ArrayLike) -> tuple[Floats, float]:
    """How often each row is ranked rightly against the rows of the other outcome, a tie counting a half, and the mean of that: the AUC."""
    score = np.asarray(scores, np.float64)
    n_positive, n_negative = int(labels.sum()), int((~labels).sum())
    everyone = _ranks(score)
    right = np.empty(len(score))
    right[labels] = (everyone[labels] - _ranks(score[labels])) / n_negative
    right[~labels] = 1 - (everyone[~labels] - _ranks(score[~labels])) / n_positive
    return right, float(right[labels].mean())


def _ranks(values: NDArray[Any]) -> Floats:
    """Ranks from 1, the mean of them where values tie; shape (n,)."""
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
    """Each row's share in the AUC's error, shape (n,): they add up to 0, and their squares to DeLong's variance."""
    right, value = _placements(labels, scores)
    return (right - value) / np.where(labels, labels.sum(), (~labels).sum())


def _deviation(influence: Floats, groups: NDArray[np.int64]) -> float:
    """The standard error of what has this influence, rows of one group as one draw (Obuchowski, *Biometrics* 1997)."""
    sums = np.bincount(np.unique(groups, return_inverse=True)[1], influence)
    return float(np.sqrt((sums**2).sum() * len(sums) / max(len(sums) - 1, 1)))


def _z(tail: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(1 - tail)
