"""Fairness figures: decisions and probabilities by the groups of a protected column, each figure with its interval.

A protected column is no feature: it is joined to the scores of a window for these figures only. A finding states whether the window
*supports* that a figure lies within a bound. No bound here is a law, and no finding says that a model is fair or lawful: people judge
which differences matter and why they exist. The bounds come from the policy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.evaluation.metrics import CONFIDENCE_LEVEL, Interval

if TYPE_CHECKING:
    import pandas as pd

MIN_GROUP_SIZE = 30
"""People; a smaller group, or one with fewer good outcomes where a figure counts these, is listed without a verdict."""
MIN_GROUP_SHARE = 0.02
"""Share of the people; a smaller group gets no verdict and is no reference, as in the Uniform Guidelines (29 CFR 1607.15 A)."""
DRAWS = 1_000
"""Draws of the bootstrap."""
AGE_EDGES, NUMBER_EDGES = (30, 45, 60), (1, 3)
"""Edges of the bands of ages in years, and of other protected numbers (dependants)."""
NOT_STATED = "not stated"
PROTECTED_WORDS = frozenset(
    (
        *("age", "birth", "birthday", "citizenship", "disability", "ethnic", "ethnicity", "foreign", "gender"),
        *("marital", "marriage", "married", "nationality", "race", "religion", "sex"),
    )
)
"""Words of a column's name that name a protected attribute (EU Charter of Fundamental Rights, article 21; 15 USC 1691)."""
PEOPLE_WORDS = frozenset(("applicant", "borrower", "client", "customer", "person"))
"""Words before ``age`` that make it the age of a person: the age of an account is no protected attribute."""
SAME_CONTENT = 0.98
"""Association from which a feature holds what a protected column holds: a rank correlation, or the share of rows that each foretells of the
other beyond the most frequent value.
"""

Verdict: TypeAlias = Literal["supports", "speaks against", "leaves open", "too small", "reference"]
AGAINST: Verdict = "speaks against"

Groups: TypeAlias = NDArray[np.str_]


@dataclass(frozen=True)
class FairnessFinding:
    """One figure of one group.

    Attributes
    ----------
    column, group
        The protected column and one of its groups.
    measure
        ``adverse_impact_ratio``, ``opportunity_gap`` or ``calibration_gap``.
    cutoff
        The name of the cutoff that decided; empty for calibration.
    reference
        The group compared with; empty for calibration, which compares with the outcome.
    n, rate
        Number of rows, and the group's own rate: selected, selected among those who repaid, or of the outcome.
    value
        The figure with its interval; None where there is no verdict on it.
    bound
        The bound of the figure.
    verdict
        ``supports`` where the whole interval is within the bound, ``speaks against`` where all of it is beyond, ``leaves open`` where
        the bound lies inside the interval; ``too small`` or ``reference`` where there is no verdict.
    """

    column: str
    group: str
    measure: str
    cutoff: str
    reference: str
    n: int
    rate: float
    value: Interval | None
    bound: float
    verdict: Verdict

    def __str__(self) -> str:
        where = f"{self.column}={self.group}" + (f" at {self.cutoff}" if self.cutoff else "")
        what = self.measure.replace("_", " ")
        if self.value is None:
            return f"{where}: {what} not judged, {self.verdict} ({self.n} rows)"
        against = f" against {self.reference}" if self.reference else ""
        return f"{where}: {what}{against} {self.value} {self.verdict} a bound of {self.bound:g} ({self.n} rows)"


# Groups ------------------------------------------------------------------------------------------------------------------------


def min_group_size(people: ArrayLike) -> int:
    """Return the smallest number of people for a verdict on a group, beside all of these people."""
    return max(MIN_GROUP_SIZE, int(np.ceil(MIN_GROUP_SHARE * len(np.unique(np.asarray(people).astype(str))))))


def group_by_value(values: Sequence[Any] | NDArray[Any]) -> Groups:
    """Return a column of names as groups; missing values are a group of their own."""
    column = np.asarray(values, dtype=object)
    return np.array([NOT_STATED if value is None or value != value or value == "" else str(value) for value in column], dtype=str)


def group_by_band(values: ArrayLike, edges: Sequence[float]) -> Groups:
    """Return numbers as groups between edges: ``(30, 60)`` gives "under 30", "30 to under 60" and "60 or more".

    Raises
    ------
    ValueError
        For edges that do not rise.
    """
    if not len(edges) or any(low >= high for low, high in pairwise(edges)):
        raise ValueError(f"edges rise, one at least: {tuple(edges)}")
    inner_names = [f"{low:g} to under {high:g}" for low, high in pairwise(edges)]
    names = np.array([f"under {edges[0]:g}", *inner_names, f"{edges[-1]:g} or more", NOT_STATED])
    numbers = np.asarray(values, np.float64)
    return names[np.where(np.isnan(numbers), len(names) - 1, np.searchsorted(edges, numbers, side="right"))]


def group_protected(customers: "pd.DataFrame", columns: Sequence[str], decision_times: ArrayLike) -> dict[str, Groups]:
    """Return the groups of each protected column: ages in bands, other numbers in bands, all else by value.

    Parameters
    ----------
    customers
        The protected columns, a row for each row of the window; ``birth_year`` becomes the age.
    columns
        Names of the protected columns among them. A column that is missing in every row is left out.
    decision_times : array-like of datetime64, shape (n,)
        When each row was decided.
    """
    groups_of_column = {}
    for name in columns:
        values = customers[name]
        if values.isna().all():
            continue
        if name == "birth_year":
            years = np.asarray(decision_times).astype("datetime64[Y]").astype(np.int64) + 1970
            groups_of_column["age"] = group_by_band(years - values.to_numpy(np.float64, na_value=np.nan), AGE_EDGES)
        elif values.dtype.kind in "if" or str(values.dtype) in ("Int64", "Float64"):
            groups_of_column[name] = group_by_band(
                values.to_numpy(np.float64, na_value=np.nan), AGE_EDGES if "age" in name else NUMBER_EDGES
            )
        else:
            groups_of_column[name] = group_by_value(values.astype(object).where(values.notna(), None).tolist())
    return groups_of_column


def find_protected_features(frame: "pd.DataFrame", features: Sequence[str], protected: "pd.DataFrame") -> dict[str, str]:
    """Return the features that are a protected attribute by their name or content, each with what shows it.

    Parameters
    ----------
    frame
        Rows with the features.
    features
        Names of the features.
    protected
        The protected columns of the same rows, as the ledger holds them.
    """
    shown: dict[str, str] = {}
    for feature in features:
        words = feature.lower().split("_")
        named = [word for at, word in enumerate(words) if word in PROTECTED_WORDS and (word != "age" or _is_age_of_person(words, at))]
        same = [str(name) for name in protected.columns if _holds_the_same(frame[feature], protected[name])]
        if same:
            shown[feature] = f"its values are those of {same[0]}"
        elif named:
            shown[feature] = f"its name says {named[0]}"
    return shown


def _is_age_of_person(words: Sequence[str], at: int) -> bool:
    return at == 0 or words[at - 1] in PEOPLE_WORDS


def _holds_the_same(feature: "pd.Series", protected: "pd.Series") -> bool:
    """Return whether either column foretells the other: by rank where both are numbers of many values, else value by value."""
    known = (feature.notna() & protected.notna()).to_numpy()
    if known.sum() < MIN_GROUP_SIZE:
        return False
    if feature.dtype.kind not in "iufb":  # the levels of a category, in the order of their names
        feature = feature.astype("category").cat.codes
    first = feature.to_numpy(np.float64, na_value=np.nan)[known]
    values = protected[known]
    n_values = values.nunique()
    distinct, rows = np.unique(first, return_inverse=True)
    if n_values < 2 or len(distinct) < 2:
        return False
    if values.dtype.kind in "if" or str(values.dtype) in ("Int64", "Float64"):
        from scipy.stats import spearmanr

        if abs(float(spearmanr(first, values.to_numpy(np.float64)).statistic)) >= SAME_CONTENT:
            return True
    if n_values > 50 or len(distinct) > 50:
        return False
    counts = np.zeros((len(distinct), n_values))
    columns = np.unique(values.astype(str), return_inverse=True)[1]
    np.add.at(counts, (rows, columns), 1)
    return bool(min(_foretold_share(counts), _foretold_share(counts.T)) >= SAME_CONTENT)


def _foretold_share(counts: NDArray[np.float64]) -> float:
    """Return the share of errors that a row's value spares in guessing its column (lambda of Goodman & Kruskal, JASA 1954)."""
    n, most_frequent = counts.sum(), counts.sum(axis=0).max()
    return float((counts.max(axis=1).sum() - most_frequent) / (n - most_frequent)) if n > most_frequent else 0.0


# Figures -----------------------------------------------------------------------------------------------------------------------


def compare_selection(
    selected: ArrayLike,
    group: ArrayLike,
    *,
    people: ArrayLike | None = None,
    reference: str | None = None,
    column: str = "",
    cutoff: str = "",
    bound: float,
    smallest: int = MIN_GROUP_SIZE,
    draws: int = DRAWS,
    seed: int,
) -> list[FairnessFinding]:
    """Return each group's selection rate divided by that of the reference group, with a bootstrap interval.

    The reference stays the same in every draw. A reference chosen as the most favoured of this window makes ratios a little lower than
    one chosen beforehand.

    Parameters
    ----------
    selected : array-like of bool, shape (n,)
        Whether the row got the favourable decision.
    group : array-like of str, shape (n,)
        The group of each row; see `group_by_value` and `group_by_band`.
    people : array-like, shape (n,), optional
        The person of each row. A person's rows are drawn together, as they are not independent. None takes each row as a person.
    reference
        The group to compare with; None takes the group that the figure favours most among those large enough.
    column, cutoff, bound
        Name of the protected column and of the cutoff, for the findings, and the bound of the figure.
    smallest, draws, seed
        Smallest number of people in a group, draws of the bootstrap, and their seed.

    Raises
    ------
    ValueError
        For arrays of different lengths, or a reference that is no group or too small.
    """
    is_counted = np.ones(len(np.asarray(selected)), dtype=bool)
    compared = _compare_with_reference(selected, is_counted, group, people, reference, smallest, draws, seed, ratio=True)
    return [
        FairnessFinding(
            column,
            name,
            "adverse_impact_ratio",
            cutoff,
            reference_name,
            n,
            rate,
            value,
            bound,
            _judge_bound(value, name, reference_name, low=bound),
        )
        for name, reference_name, n, rate, value in compared
    ]


def compare_opportunity(
    selected: ArrayLike,
    deserving: ArrayLike,
    group: ArrayLike,
    *,
    people: ArrayLike | None = None,
    reference: str | None = None,
    column: str = "",
    cutoff: str = "",
    bound: float,
    smallest: int = MIN_GROUP_SIZE,
    draws: int = DRAWS,
    seed: int,
) -> list[FairnessFinding]:
    """Return each group's true positive rate less the reference group's (equal opportunity; Hardt, Price & Srebro, NeurIPS 2016).

    Parameters
    ----------
    selected, deserving : array-like of bool, shape (n,)
        Whether the row got the favourable decision, and whether its outcome was good. The rate is the selected share of the deserving.
    group, people, reference, smallest, draws, seed
        As in `compare_selection`; a group's size is the number of its deserving people.
    """
    compared = _compare_with_reference(selected, deserving, group, people, reference, smallest, draws, seed, ratio=False)
    return [
        FairnessFinding(
            column,
            name,
            "opportunity_gap",
            cutoff,
            reference_name,
            n,
            rate,
            value,
            bound,
            _judge_bound(value, name, reference_name, low=-bound),
        )
        for name, reference_name, n, rate, value in compared
    ]


def compare_calibration(
    labels: ArrayLike,
    probability: ArrayLike,
    group: ArrayLike,
    people: ArrayLike | None = None,
    *,
    column: str = "",
    bound: float,
    smallest: int = MIN_GROUP_SIZE,
) -> list[FairnessFinding]:
    """Return each group's mean probability less its rate of the outcome; the interval is the rate's Jeffreys interval, reversed.

    Rows count as independent: of a panel, in which a person returns month after month, give one row of each person.
    """
    names = np.asarray(group).astype(str)
    row_people = np.arange(len(names)) if people is None else np.asarray(people)
    findings = []
    for grade in sorted(metrics.jeffreys_test(labels, probability, names), key=lambda item: item.grade):
        rate, is_large_enough = grade.defaults / grade.n, len(np.unique(row_people[names == grade.grade])) >= smallest
        value = Interval(grade.mean_pd - rate, grade.mean_pd - grade.high, grade.mean_pd - grade.low) if is_large_enough else None
        verdict = _judge_bound(value, grade.grade, "", low=-bound, high=bound)
        findings.append(FairnessFinding(column, grade.grade, "calibration_gap", "", "", grade.n, rate, value, bound, verdict))
    return findings


def judge_together(findings: Sequence[FairnessFinding]) -> list[FairnessFinding]:
    """Return the findings of one model with verdicts that hold for all of them together.

    A finding speaks against its bound where its interval, widened for the number of figures (Bonferroni, by the normal distribution), lies
    beyond the bound; else it leaves the bound open. Of forty figures with intervals of 95 %, chance alone would break one or two.
    """
    n = sum(finding.value is not None for finding in findings)
    tail = (1 - CONFIDENCE_LEVEL) / 2
    widening = NormalDist().inv_cdf(1 - tail / max(n, 1)) / NormalDist().inv_cdf(1 - tail)

    def judge(finding: FairnessFinding) -> FairnessFinding:
        if finding.verdict != AGAINST or finding.value is None:
            return finding
        at, low, high = finding.value.value, finding.value.low, finding.value.high
        widened = Interval(at, at - widening * (at - low), at + widening * (high - at))
        least, most = _EDGES[finding.measure](finding.bound)
        verdict = _judge_bound(widened, finding.group, finding.reference, low=least, high=most)
        return finding if verdict == AGAINST else replace(finding, verdict="leaves open")

    return [judge(finding) for finding in findings]


_EDGES: Mapping[str, Callable[[float], tuple[float, float]]] = {
    "adverse_impact_ratio": lambda bound: (bound, np.inf),
    "opportunity_gap": lambda bound: (-bound, np.inf),
    "calibration_gap": lambda bound: (-bound, bound),
}
"""Measure -> the smallest and largest value within a bound."""


def _judge_bound(value: Interval | None, group: str, reference: str, *, low: float, high: float = np.inf) -> Verdict:
    """Return the verdict on an interval by its bounds."""
    if value is None:
        return "reference" if group == reference else "too small"
    if value.high < low or value.low > high:
        return "speaks against"
    return "supports" if value.low >= low and value.high <= high else "leaves open"


def _compare_with_reference(
    selected: ArrayLike,
    among: ArrayLike,
    group: ArrayLike,
    people: ArrayLike | None,
    reference: str | None,
    smallest: int,
    draws: int,
    seed: int,
    *,
    ratio: bool,
) -> list[tuple[str, str, int, float, Interval | None]]:
    """Return, by group name: group, reference, rows, selection rate, and its ratio to (or difference from) the reference's."""
    chosen, counted = np.asarray(selected).astype(bool), np.asarray(among).astype(bool)
    names = np.asarray(group).astype(str)
    row_people = np.arange(len(names)) if people is None else np.asarray(people)
    if not (chosen.shape == counted.shape == names.shape == row_people.shape) or chosen.ndim != 1:
        raise ValueError(f"{len(chosen)} decisions, {len(names)} groups and {len(row_people)} people: one of each per row is needed")
    parts = {str(name): (names == name) & counted for name in np.unique(names)}
    large_groups = [name for name, part in parts.items() if len(np.unique(row_people[part])) >= smallest]
    rates = {name: float(chosen[part].mean()) if part.any() else float("nan") for name, part in parts.items()}
    if reference is not None and reference not in large_groups:
        fault = "too small a group" if reference in parts else "no group"
        raise ValueError(f"reference {reference!r} is {fault}; those large enough are {', '.join(large_groups) or 'none'}")
    reference_name = reference if reference is not None else max(large_groups, key=lambda name: rates[name], default="")
    compared: list[tuple[str, str, int, float, Interval | None]] = []
    rng = np.random.default_rng(seed)
    rates_of_draws = {name: _draw_rates(chosen[parts[name]], row_people[parts[name]], draws, rng) for name in large_groups}
    for name, part in parts.items():
        value = None
        if name in rates_of_draws and name != reference_name and not (ratio and rates[reference_name] == 0):
            with np.errstate(divide="ignore", invalid="ignore"):
                sample = (
                    rates_of_draws[name] / rates_of_draws[reference_name]
                    if ratio
                    else rates_of_draws[name] - rates_of_draws[reference_name]
                )
            tail = (1 - CONFIDENCE_LEVEL) / 2
            low, high = np.quantile(sample[np.isfinite(sample)], [tail, 1 - tail]).tolist()
            estimate = rates[name] / rates[reference_name] if ratio else rates[name] - rates[reference_name]
            value = Interval(estimate, low, high)
        compared.append((name, reference_name, int(part.sum()), rates[name], value))
    return compared


def _draw_rates(selected: NDArray[np.bool_], people: NDArray[Any], draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return selection rates of as many people drawn with replacement, each with all of their rows; shape (draws,).

    People with as many rows, as many of them selected, are equal: a draw is the number of people of each kind, which is multinomial.
    """
    _, person = np.unique(people, return_inverse=True)
    rows, chosen = np.bincount(person), np.bincount(person, selected).astype(np.int64)
    kinds, n = np.unique(np.stack([chosen, rows], axis=1), axis=0, return_counts=True)
    sums = rng.multinomial(n.sum(), n / n.sum(), size=draws) @ kinds
    rates: NDArray[np.float64] = sums[:, 0] / sums[:, 1]
    return rates
