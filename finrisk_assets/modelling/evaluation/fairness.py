"""How decisions and probabilities differ between the groups of a protected column, each figure with its interval.

A protected column is no feature: it is joined to the scores of a window here, to be looked at and for nothing else. A finding says
whether the window *supports* that a figure lies within a bound. No bound here is a law, and no finding says that a model is fair or
lawful: which differences matter, and why they are there, is for people to judge.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.evaluation.metrics import LEVEL, Interval

if TYPE_CHECKING:
    import pandas as pd

SMALLEST = 30
"""A group of fewer people, or of fewer who would have repaid where the figure is of these, is named and not judged."""
LEAST_SHARE = 0.02
"""A group of a smaller share of the people is not judged either, and no reference: so the Uniform Guidelines (29 CFR 1607.15 A)."""
DRAWS = 1_000
AGES, NUMBERS = (30, 45, 60), (1, 3)
"""Edges of the bands of ages, and of other protected numbers (dependants)."""
NOT_STATED = "not stated"

SUPPORTS, AGAINST, OPEN, TOO_SMALL, REFERENCE = "supports", "speaks against", "leaves open", "too small", "reference"
Verdict: TypeAlias = Literal["supports", "speaks against", "leaves open", "too small", "reference"]

Groups: TypeAlias = NDArray[np.str_]


@dataclass(frozen=True)
class Bounds:
    """Within what a figure is to lie.

    Attributes
    ----------
    impact_ratio
        Least ratio of selection rates. 0.8 is the "four-fifths rule" of the US Uniform Guidelines on Employee Selection Procedures
        (1978): a convention to decide what to look at, made for hiring and known for ignoring the sample's size.
    opportunity_gap
        Most by which the rate of approval among those who repaid may lie below the reference group's.
    calibration_gap
        Most by which a group's mean probability may miss its rate, in either direction.
    """

    impact_ratio: float = 0.8
    opportunity_gap: float = 0.1
    calibration_gap: float = 0.05


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
        The name of the cutoff that decided; empty where none did.
    reference
        The group compared with; empty for calibration, which compares with what happened.
    n, rate
        Rows the figure is of, and the group's own rate: selected, selected among those who repaid, or of the outcome.
    value
        The figure with its interval; None where it is not judged.
    bound
        Within which it is to lie.
    verdict
        ``supports`` where the whole interval is within the bound, ``speaks against`` where all of it is beyond, ``leaves open`` where
        the bound lies inside it; ``too small`` or ``reference`` where nothing is judged.
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


def fairness(
    labels: ArrayLike,
    probability: ArrayLike,
    protected: Mapping[str, ArrayLike],
    cutoffs: Mapping[str, float],
    *,
    people: ArrayLike | None = None,
    references: Mapping[str, str] | None = None,
    bounds: Bounds | None = None,
    smallest: int = SMALLEST,
    draws: int = DRAWS,
    seed: int,
) -> list[FairnessFinding]:
    """Return every finding on one window: of each protected column, its impact and opportunity at each cutoff, and its calibration.

    Parameters
    ----------
    labels, probability : array-like, shape (n,)
        Whether the bad outcome came, and its probability. A row is selected (approved) where it lies below a cutoff.
    protected
        Column -> group of each row as text, shape (n,); `groups` makes them of a column, `bands` of numbers.
    cutoffs
        Name -> probability.
    people : array-like, shape (n,), optional
        Who each row is of: a person's rows are drawn together, as they are not independent. None takes each row as a person.
    references
        Column -> the group to compare with; where none is named, the one that the figure favours most among those
        large enough, cutoff by cutoff.
    smallest, draws, seed
        Least people in a group, draws of the bootstrap, and their seed.

    Raises
    ------
    ValueError
        For arrays of different lengths, or a reference that is no group or too small.
    """
    target, said = np.asarray(labels).astype(bool), np.asarray(probability, np.float64)
    who = np.arange(len(said)) if people is None else np.asarray(people)
    limits, named = bounds or Bounds(), references or {}
    found = []
    for column, held in protected.items():
        group = np.asarray(held).astype(str)
        if not (target.shape == said.shape == group.shape == who.shape) or not len(said):
            raise ValueError(f"{column}: one label, probability, group and person per row is needed, and one row at least")
        for cutoff, at in cutoffs.items():
            settings: dict[str, Any] = {"people": who, "reference": named.get(column), "smallest": smallest, "draws": draws, "seed": seed}
            found += adverse_impact(said < at, group, column=column, cutoff=cutoff, bound=limits.impact_ratio, **settings)
            found += opportunity(said < at, ~target, group, column=column, cutoff=cutoff, bound=limits.opportunity_gap, **settings)
        found += calibration(target, said, group, who, column=column, bound=limits.calibration_gap, smallest=smallest)
    return found


def faults(findings: Sequence[FairnessFinding]) -> list[str]:
    """Say which findings speak against a bound, with their figures; empty where none does. What is left open is no fault."""
    return [str(one) for one in findings if one.verdict == AGAINST]


# Groups ------------------------------------------------------------------------------------------------------------------------


def least(people: ArrayLike) -> int:
    """Return how many people a group needs to be judged beside all of these."""
    return max(SMALLEST, int(np.ceil(LEAST_SHARE * len(np.unique(np.asarray(people).astype(str))))))


def groups(values: Sequence[Any] | NDArray[Any]) -> Groups:
    """Return a column of names as groups; what is missing is a group of its own."""
    held = np.asarray(values, dtype=object)
    return np.array([NOT_STATED if value is None or value != value or value == "" else str(value) for value in held], dtype=str)


def bands(values: ArrayLike, edges: Sequence[float]) -> Groups:
    """Return numbers as groups between edges: ``(30, 60)`` gives "under 30", "30 to under 60" and "60 or more".

    Raises
    ------
    ValueError
        For edges that do not rise.
    """
    if not len(edges) or any(low >= high for low, high in pairwise(edges)):
        raise ValueError(f"edges rise, one at least: {tuple(edges)}")
    between = [f"{low:g} to under {high:g}" for low, high in pairwise(edges)]
    names = np.array([f"under {edges[0]:g}", *between, f"{edges[-1]:g} or more", NOT_STATED])
    numbers = np.asarray(values, np.float64)
    return names[np.where(np.isnan(numbers), len(names) - 1, np.searchsorted(edges, numbers, side="right"))]


def protected(customers: "pd.DataFrame", columns: Sequence[str], moments: ArrayLike) -> dict[str, Groups]:
    """Return the groups of each protected column: an age in bands, other numbers in bands, all else as it stands.

    Parameters
    ----------
    customers
        The protected columns, a row for each row of the window; ``birth_year`` becomes the age.
    columns
        The names of the protected columns among them. One that is missing in every row is left out.
    moments : array-like of datetime64, shape (n,)
        When each row was decided.
    """
    found = {}
    for name in columns:
        held = customers[name]
        if held.isna().all():
            continue
        if name == "birth_year":
            years = np.asarray(moments).astype("datetime64[Y]").astype(np.int64) + 1970
            found["age"] = bands(years - held.to_numpy(np.float64, na_value=np.nan), AGES)
        elif held.dtype.kind in "if" or str(held.dtype) in ("Int64", "Float64"):
            found[name] = bands(held.to_numpy(np.float64, na_value=np.nan), AGES if "age" in name else NUMBERS)
        else:
            found[name] = groups(held.astype(object).where(held.notna(), None).tolist())
    return found


# Figures -----------------------------------------------------------------------------------------------------------------------


def adverse_impact(
    selected: ArrayLike,
    group: ArrayLike,
    *,
    people: ArrayLike | None = None,
    reference: str | None = None,
    column: str = "",
    cutoff: str = "",
    bound: float = Bounds.impact_ratio,
    smallest: int = SMALLEST,
    draws: int = DRAWS,
    seed: int,
) -> list[FairnessFinding]:
    """Return each group's selection rate over that of the reference group, with a bootstrap interval.

    The reference stays the same in every draw. Where it is chosen as the most favoured of this window, ratios lie a little lower than
    they would against a group chosen before.

    Parameters
    ----------
    selected : array-like of bool, shape (n,)
        Who got the favourable decision.
    group, people, reference, smallest, draws, seed
        As in `fairness`.
    """
    everyone = np.ones(len(np.asarray(selected)), dtype=bool)
    found = _against_reference(selected, everyone, group, people, reference, smallest, draws, seed, ratio=True)
    return [
        FairnessFinding(
            column, name, "adverse_impact_ratio", cutoff, against, n, rate, value, bound, _verdict(value, name, against, low=bound)
        )
        for name, against, n, rate, value in found
    ]


def opportunity(
    selected: ArrayLike,
    deserving: ArrayLike,
    group: ArrayLike,
    *,
    people: ArrayLike | None = None,
    reference: str | None = None,
    column: str = "",
    cutoff: str = "",
    bound: float = Bounds.opportunity_gap,
    smallest: int = SMALLEST,
    draws: int = DRAWS,
    seed: int,
) -> list[FairnessFinding]:
    """Return each group's true positive rate less the reference group's (equal opportunity; Hardt, Price & Srebro, NeurIPS 2016).

    Parameters
    ----------
    selected, deserving : array-like of bool, shape (n,)
        Who got the favourable decision, and whose outcome was good. The rate is the share of these that were selected.
    group, people, reference, smallest, draws, seed
        As in `fairness`; a group's size is that of its deserving.
    """
    found = _against_reference(selected, deserving, group, people, reference, smallest, draws, seed, ratio=False)
    return [
        FairnessFinding(column, name, "opportunity_gap", cutoff, against, n, rate, value, bound, _verdict(value, name, against, low=-bound))
        for name, against, n, rate, value in found
    ]


def calibration(
    labels: ArrayLike,
    probability: ArrayLike,
    group: ArrayLike,
    people: ArrayLike | None = None,
    *,
    column: str = "",
    bound: float = Bounds.calibration_gap,
    smallest: int = SMALLEST,
) -> list[FairnessFinding]:
    """Return each group's mean probability less its rate of the outcome; the interval is the rate's Jeffreys interval turned over.

    Rows are taken as independent: of a panel, where a person comes back month after month, give one row of each.
    """
    names = np.asarray(group).astype(str)
    who = np.arange(len(names)) if people is None else np.asarray(people)
    found = []
    for one in sorted(metrics.jeffreys(labels, probability, names), key=lambda grade: grade.grade):
        rate, enough = one.defaults / one.n, len(np.unique(who[names == one.grade])) >= smallest
        value = Interval(one.mean_pd - rate, one.mean_pd - one.high, one.mean_pd - one.low) if enough else None
        verdict = _verdict(value, one.grade, "", low=-bound, high=bound)
        found.append(FairnessFinding(column, one.grade, "calibration_gap", "", "", one.n, rate, value, bound, verdict))
    return found


def _verdict(value: Interval | None, name: str, reference: str, *, low: float, high: float = np.inf) -> Verdict:
    if value is None:
        return "reference" if name == reference else "too small"
    if value.high < low or value.low > high:
        return "speaks against"
    return "supports" if value.low >= low and value.high <= high else "leaves open"


def _against_reference(
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
    """Group, reference, rows, selection rate, and its ratio to (or difference from) the reference's, by the name of the group."""
    chosen, counted = np.asarray(selected).astype(bool), np.asarray(among).astype(bool)
    names = np.asarray(group).astype(str)
    who = np.arange(len(names)) if people is None else np.asarray(people)
    if not (chosen.shape == counted.shape == names.shape == who.shape) or chosen.ndim != 1:
        raise ValueError(f"{len(chosen)} decisions, {len(names)} groups and {len(who)} people: one of each per row is needed")
    parts = {str(name): (names == name) & counted for name in np.unique(names)}
    enough = [name for name, part in parts.items() if len(np.unique(who[part])) >= smallest]
    rates = {name: float(chosen[part].mean()) if part.any() else float("nan") for name, part in parts.items()}
    if reference is not None and reference not in enough:
        sort = "too small a group" if reference in parts else "no group"
        raise ValueError(f"reference {reference!r} is {sort}; those large enough are {', '.join(enough) or 'none'}")
    against = reference if reference is not None else max(enough, key=lambda name: rates[name], default="")
    found: list[tuple[str, str, int, float, Interval | None]] = []
    rng = np.random.default_rng(seed)
    drawn = {name: _drawn_rates(chosen[parts[name]], who[parts[name]], draws, rng) for name in enough}
    for name, part in parts.items():
        value = None
        if name in drawn and name != against and not (ratio and rates[against] == 0):
            with np.errstate(divide="ignore", invalid="ignore"):
                sample = drawn[name] / drawn[against] if ratio else drawn[name] - drawn[against]
            tail = (1 - LEVEL) / 2
            low, high = np.quantile(sample[np.isfinite(sample)], [tail, 1 - tail]).tolist()
            middle = rates[name] / rates[against] if ratio else rates[name] - rates[against]
            value = Interval(middle, low, high)
        found.append((name, against, int(part.sum()), rates[name], value))
    return found


def _drawn_rates(selected: NDArray[np.bool_], people: NDArray[Any], draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Selection rates of as many people drawn with replacement, each with all of their rows; shape (draws,).

    People with as many rows, as many of them selected, are alike: a draw is how many of each kind it holds, which is multinomial.
    """
    _, person = np.unique(people, return_inverse=True)
    rows, chosen = np.bincount(person), np.bincount(person, selected).astype(np.int64)
    kinds, n = np.unique(np.stack([chosen, rows], axis=1), axis=0, return_counts=True)
    sums = rng.multinomial(n.sum(), n / n.sum(), size=draws) @ kinds
    drawn: NDArray[np.float64] = sums[:, 0] / sums[:, 1]
    return drawn
