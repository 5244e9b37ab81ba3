"""What a domain gives to the graph: pure functions and a few names. `stages` turns them into the same assets in all domains."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from schemas.features import Feature, feature_table
from schemas.ledger import Column, Table
from schemas.scores import score_table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.ledger.sources.source_definition import Source
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.scoring.spec import BundleSpec
    from finrisk_assets.settings import Settings


@dataclass(frozen=True)
class Trained:
    """What training gives: a bundle to write, and what is to be known of how it came about.

    Attributes
    ----------
    spec
        The bundle.
    params
        What was chosen or set, by name.
    metrics
        Figures on the validation window, on which the choice was made.
    candidates
        One row per model that was tried.
    plots
        PNG pictures by name.
    files
        What else is to be kept with the version, by file name; not part of the bundle.
    """

    spec: "BundleSpec"
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    candidates: Sequence[Mapping[str, Any]] = ()
    plots: Mapping[str, bytes] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """One figure of an evaluation, with its 95 % interval where there is one."""

    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    meaning: str = ""


@dataclass(frozen=True)
class Evaluation:
    """What one bundle shows on the frozen test window: figures, and PNG pictures by name."""

    figures: Sequence[Figure]
    plots: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class TestWindow:
    """The frozen test window as one bundle sees it.

    Attributes
    ----------
    frame
        Its rows of the feature table, with ``customer_id``.
    rows : ndarray of float32, shape (n, d)
        The bundle's input.
    labels : ndarray of bool, shape (n,)
        What happened; shape (0,) where the source has no outcomes.
    probability : ndarray, shape (n,)
        What the bundle says.
    """

    frame: "pd.DataFrame"
    rows: "np.ndarray"
    labels: "np.ndarray"
    probability: "np.ndarray"


@dataclass(frozen=True)
class Fault:
    """A demand on a model that it does not meet: its name, one of `promotion.DEMANDS`, and what was seen."""

    demand: str
    reason: str

    def __str__(self) -> str:
        return f"{self.demand}: {self.reason}"


@dataclass(frozen=True)
class MonitoringSpec:
    """What is watched once the champion of a domain decides.

    Attributes
    ----------
    label
        The column of the feature table that says what happened.
    matured
        The rows of the feature table whose outcome is known by now and had its time.
    turns
        The names of the thresholds that are probabilities of the outcome.
    by_construction
        Feature to the reason why it is left out of the drift test: a calendar or the length of a history moves by itself.
    population
        The rows of the kind that taught, where the feature table holds others too.
    is_scored_as_it_stands
        Whether the batch scores hold the probability of the very row; False where they hold that of better terms.
    """

    label: str
    matured: "Callable[[pd.DataFrame, Settings], pd.DataFrame]"
    decision_thresholds: tuple[str, ...] = ()
    by_construction: Mapping[str, str] = field(default_factory=dict)
    population: "Callable[[LazyTable], LazyTable] | None" = None
    is_scored_as_it_stands: bool = True


@dataclass(frozen=True)
class Domain:
    """One of the five decisions.

    Attributes
    ----------
    name, title, owner
        ``loan_default``, how a person calls it, and the team that answers for it.
    tables
        Canonical tables that its features read, where the source has them.
    keys
        Columns that identify a row of the feature table: first what is scored; `moment` names when.
    moment
        The key column that says when the decision falls.
    months_back, months_ahead
        The ledger's months that a month of the feature table is made of: as many before it as the windows reach back to, and as many
        after it as tell its outcomes. A change beyond them, of an account's first movement say, waits for the next training.
    features, build
        The features that a source allows, and the Ibis expression that computes them.
    train, evaluate
        From the feature table to a model; from a bundle and the feature table to figures on the frozen test window.
    test, gain
        The frozen test window as a bundle sees it; and from that window and the bundle to what each row's decision earned, shape (n,),
        in the unit that `gain_unit` names. None where nothing says what a decision earns.
    judged
        The rows of the feature table that `evaluate`, `test` and `oracle` look at, where reading all of them would take long: the test
        window, and what its bounds follow from.
    cutoffs
        The thresholds at which groups of people are compared, and whether a decision from there on goes against the person, so that the
        gate minds: a refusal does, a referral to somebody who looks does not.
    gate
        From the figures, by metric, to the domain's own demands that the model does not meet; none if it meets all.
    decide
        Probabilities and margins to decisions, by the bundle's thresholds.
    parity
        Where the service computes the features itself: from the stored tables to what differs between batch and service.
    needs
        Canonical columns (``table.column``) without which a source has no such domain.
    upstream
        Scores of other domains that `build` reads beside the canonical tables, where the source has those domains.
    features_of
        For a second model of a domain: the domain whose feature table it reads.
    more_scores
        Columns that the batch scores hold beside the usual ones.
    score
        From a chunk of the feature table and the champion to the columns of the scores, where a decision is more than a threshold:
        ``score``, ``probability``, ``decision`` and those of `more_scores`.
    watch
        What is watched once its champion decides; nothing where None.
    known_before
        The tables of which only what came strictly before its moment is known to a decision; of the others, what came at that very
        moment is part of it.
    truth, oracle
        The simulator's table of true probabilities, and the comparison of a champion with it on the test window.
    """

    name: str
    title: str
    owner: str
    tables: tuple[str, ...]
    keys: tuple[Column, ...]
    moment: str
    features: "Callable[[Source], tuple[Feature, ...]]"
    build: "Callable[[Mapping[str, LazyTable], Source], LazyTable]"
    train: "Callable[[pd.DataFrame, tuple[Feature, ...], Source, Settings], Trained]"
    evaluate: "Callable[[pd.DataFrame, Bundle, Settings], Evaluation]"
    test: "Callable[[pd.DataFrame, Bundle, Settings], TestWindow]"
    gate: "Callable[[Mapping[str, Figure]], Sequence[Fault]]"
    decide: "Callable[[np.ndarray, np.ndarray, Mapping[str, float]], Sequence[str]]"
    parity: "Callable[[Callable[[str], LazyTable], Source], Sequence[str]] | None" = None
    judged: "Callable[[LazyTable], LazyTable] | None" = None
    gain: "Callable[[TestWindow, Bundle], np.ndarray] | None" = None
    gain_unit: str = ""
    cutoffs: Mapping[str, bool] = field(default_factory=dict)
    months_back: int = 12
    months_ahead: int = 0
    needs: tuple[str, ...] = ()
    upstream: tuple[str, ...] = ()
    features_of: str = ""
    more_scores: tuple[Column, ...] = ()
    score: "Callable[[pd.DataFrame, Bundle], Mapping[str, Any]] | None" = None
    watch: MonitoringSpec | None = None
    known_before: tuple[str, ...] = ("transactions",)
    truth: str = ""
    oracle: "Callable[[pd.DataFrame, pd.DataFrame, Bundle, Settings], Sequence[Figure]] | None" = None

    @property
    def group(self) -> str:
        """The domain that it belongs to, which gives the features and the name of the asset group."""
        return self.features_of or self.name

    def unavailable_reason(self, source: "Source") -> str | None:
        """Why a source has no such domain; None if it has."""
        if self.group in source.without:
            return source.without[self.group]
        for need in self.needs:
            table, column = need.split(".")
            if table not in source.tables:
                return f"the source has no {table}"
            if column not in source.tables[table].columns:
                return f"the source's {table} have no {column}"
        return None

    def feature_contract(self, source: "Source") -> Table:
        return feature_table(self.group, self.keys, self.features(source))

    def score_contract(self) -> Table:
        moment = next(column for column in self.keys if column.name == self.moment)
        return score_table(self.name, self.keys[0], moment, self.more_scores)
