"""The interface between a domain and the graph: the stages of the graph make the same assets of every `Domain`.

Pure of Dagster and MLflow. What the domains that answer yes or no share is in `classifier`; the list of all domains is in `registry`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from schemas.features import Feature, feature_table
from schemas.ledger import IS_TEST, Column, Table
from schemas.scores import score_table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.domains.ledger_fit import LedgerFit
    from finrisk_assets.features.windows import Declaration
    from finrisk_assets.ledger.sources.source_definition import Source
    from finrisk_assets.policy.document import Policy
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.scoring.spec import BundleSpec
    from finrisk_assets.settings import Settings


class TooFewRowsError(ValueError):
    """A feature table with too few rows to train or calibrate a model; the domain is left out and the others go on."""


@dataclass(frozen=True)
class TrainingResult:
    """The bundle that a training made, and its record.

    Attributes
    ----------
    spec
        The bundle.
    params
        Choices and settings of the training, by name.
    metrics
        Figures on the validation window, on which the choice was made.
    candidates
        One row per model that was tried.
    plots
        PNG pictures by name.
    files
        Further files to store with the version, by file name; not part of the bundle.
    notes
        Sentences about what the training did without.
    """

    spec: "BundleSpec"
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    candidates: Sequence[Mapping[str, Any]] = ()
    plots: Mapping[str, bytes] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Figure:
    """One figure of an evaluation, with its 95 % interval where the figure has one."""

    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    meaning: str = ""


@dataclass(frozen=True)
class Evaluation:
    """Figures of one bundle on the frozen test window, PNG pictures by name, and what the pictures show as aggregated values for JSON."""

    figures: Sequence[Figure]
    plots: Mapping[str, bytes] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredWindow:
    """The frozen test window, scored by one bundle.

    Attributes
    ----------
    frame
        The window's rows of the feature table, with ``customer_id``.
    rows : ndarray of float32, shape (n, d)
        The bundle's input.
    labels : ndarray of bool, shape (n,)
        The outcomes; shape (0,) where the source has none.
    probability : ndarray, shape (n,)
        The bundle's probabilities.
    """

    frame: "pd.DataFrame"
    rows: "np.ndarray"
    labels: "np.ndarray"
    probability: "np.ndarray"

    def select(self, is_selected: "np.ndarray") -> "ScoredWindow":
        """Return the rows where `is_selected`, bool of shape (n,), is true."""
        return ScoredWindow(self.frame[is_selected], self.rows[is_selected], self.labels[is_selected], self.probability[is_selected])


@dataclass(frozen=True)
class Fault:
    """A demand on a model that the model does not meet: its name, one of `gate.DEMANDS`, and the evidence."""

    demand: str
    reason: str

    def __str__(self) -> str:
        return f"{self.demand}: {self.reason}"


@dataclass(frozen=True)
class MonitoringSpec:
    """Settings of the monitoring of a domain's champion.

    Attributes
    ----------
    decision_thresholds
        Names of the bundle's thresholds that are probabilities of the outcome.
    by_construction
        Feature to the reason why it is left out of the drift test: a calendar or the length of a history moves by itself.
    is_scored_as_it_stands
        Whether the batch scores hold the probability of the very row; False where they hold that of better terms.
    """

    decision_thresholds: tuple[str, ...] = ()
    by_construction: Mapping[str, str] = field(default_factory=dict)
    is_scored_as_it_stands: bool = True


class Domain(ABC):
    """One of the five decisions.

    Attributes
    ----------
    name, title, owner
        ``loan_default``, its name for people, and the team that answers for the domain.
    tables
        Canonical tables that the features read, where the source has them.
    keys
        Columns that identify a row of the feature table: the first names what is scored.
    decision_time
        The key column that says when the decision falls.
    label
        The column of the feature table that says what happened.
    monitoring
        What is watched once the champion decides.
    utility_unit
        The unit of `utility`.
    truth, more_truth
        The simulator's table of true probabilities, and further tables of its truth that `compare_with_truth` reads.
    months_back, months_ahead
        The months of the ledger that a month of the feature table is made of: as many before it as the windows reach back to, and as
        many after it as tell its outcomes. A change beyond them, of an account's first movement say, waits for the next training.
    cutoffs
        The thresholds from which a decision goes against the person, by a referral or a refusal: groups of people are compared at each.
    needs
        Canonical columns (``table.column``) without which a source has no such domain.
    totals, reads_movements
        Totals of the ledger's months (`ledger.month_totals`) that the features are made from, and whether they are made from single
        transactions too. Where the totals are not among the tables, they are added up from the transactions.
    upstream
        Scores of other domains that `build_features` reads beside the canonical tables, where the source has those domains.
    companions
        Domains whose champions a decision asks too, where the source has them: they stand in the bundle's `companions`.
    features_of
        For a second model of a domain: the domain whose feature table it reads.
    more_scores
        Columns that the batch scores hold beside the usual ones.
    known_before
        The tables of which a decision knows only what came strictly before its time; of the others, what came at that very time is part
        of the decision.
    examined
        Feature to the reason why it may dominate the model without being a leak.
    reference_group, is_reference_safer
        The group in words (a plural) whose usual values reasons compare with, and whether it is the half with the lower scores, not all.
    is_computed_in_service
        Whether the service computes the features itself from the event and its history; else it reads stored snapshots.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    owner: ClassVar[str]
    tables: ClassVar[tuple[str, ...]]
    keys: ClassVar[tuple[Column, ...]]
    decision_time: ClassVar[str]
    label: ClassVar[str]
    monitoring: ClassVar[MonitoringSpec]
    utility_unit: ClassVar[str]
    truth: ClassVar[str]
    more_truth: ClassVar[tuple[str, ...]] = ()
    months_back: ClassVar[int] = 12
    months_ahead: ClassVar[int] = 0
    cutoffs: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[tuple[str, ...]] = ()
    totals: ClassVar[tuple[str, ...]] = ()
    reads_movements: ClassVar[bool] = True
    upstream: ClassVar[tuple[str, ...]] = ()
    companions: ClassVar[tuple[str, ...]] = ()
    features_of: ClassVar[str] = ""
    more_scores: ClassVar[tuple[Column, ...]] = ()
    known_before: ClassVar[tuple[str, ...]] = ("transactions",)
    examined: ClassVar[Mapping[str, str]] = {}
    reference_group: ClassVar[str] = "others"
    is_reference_safer: ClassVar[bool] = False
    is_computed_in_service: ClassVar[bool] = False

    # Features ------------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def select_features(self, source: "Source") -> tuple[Feature, ...]:
        """Return the features that a source allows."""

    def list_inputs(self, source: "Source") -> dict[str, str]:
        """Return the stored tables of the ledger that features are made from: the name that `build_features` reads -> asset."""
        totals = self.totals if "transactions" in source.tables else ()
        given = [name for name in self.tables if name in source.tables and (self.reads_movements or name != "transactions")]
        return {name: f"validated_{name}" for name in given} | {name: name for name in totals}

    @abstractmethod
    def build_features(self, tables: "Mapping[str, LazyTable]", source: "Source", span: TimeSpan = ALL_TIMES) -> "LazyTable":
        """Return the Ibis expression that computes the feature table.

        Parameters
        ----------
        tables
            The canonical tables, or those of `list_inputs`, and the `upstream` scores, with all their months.
        span
            Whole months: the rows to return are those decided in them. Of the tables only what these rows are made of is read.
        """

    def compute_features(self, tables: "Mapping[str, LazyTable]", source: "Source", span: TimeSpan) -> "LazyTable":
        """Return the rows of stored tables that `build_features` declares; an engine may compute them at once."""
        return self.build_features(tables, source, span)

    def declare_features(self, source: "Source") -> "Sequence[Declaration]":
        """Return the declarations of the features that the service computes itself."""
        return ()

    def find_parity_faults(self, table: "Callable[[str], LazyTable]", source: "Source") -> Sequence[str]:
        """Compare stored features with those of the service, where the service computes them; return the differences."""
        return ()

    # Model ---------------------------------------------------------------------------------------------------------------------

    @abstractmethod
    def labelled_rows(self, frame: "pd.DataFrame", settings: "Settings") -> "pd.DataFrame":
        """Return the rows of the feature table whose outcome is known when the ledger is read and had its time."""

    @abstractmethod
    def train(
        self,
        frame: "pd.DataFrame",
        features: tuple[Feature, ...],
        source: "Source",
        settings: "Settings",
        ledger_fit: "LedgerFit | None" = None,
    ) -> TrainingResult:
        """Train a model on the feature table; with `ledger_fit`, its boosted candidates on the rows of other customers too."""

    @abstractmethod
    def score(self, frame: "pd.DataFrame", champion: "Bundle") -> Mapping[str, Any]:
        """Return ``score``, ``probability``, ``decision`` and the `more_scores` of rows of the feature table, each of shape (n,)."""

    def join_companions(self, rows: "LazyTable", table: "Callable[[str], LazyTable | None]") -> "LazyTable":
        """Join what the `companions` know of rows of the feature table; `table` returns a stored table, None where there is none."""
        return rows

    def join_rules(self, rows: "LazyTable", table: "Callable[[str], LazyTable]", policy: "Policy") -> "LazyTable":
        """Join which rules of a policy fire on rows of the feature table; the rows as they are where the domain has no rules."""
        return rows

    def value_decisions(self, frame: "pd.DataFrame", scored: Mapping[str, Any], policy: "Policy") -> "np.ndarray | None":
        """Return what decisions are expected to be worth, in currency, shape (n,); None where money does not measure them.

        Parameters
        ----------
        frame, scored
            Rows of the feature table, and what `score` returned for them under the policy.
        """
        return None

    # Evaluation ----------------------------------------------------------------------------------------------------------------

    def evaluation_rows(self, table: "LazyTable") -> "LazyTable":
        """Return the rows of the feature table that an evaluation reads, where all of them would take long or much memory."""
        return table

    @abstractmethod
    def score_test_window(self, frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> ScoredWindow:
        """Score the frozen test window."""

    @abstractmethod
    def evaluate(self, frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> Evaluation:
        """Return figures and pictures of a bundle on the frozen test window."""

    @abstractmethod
    def find_faults(self, figures: Mapping[str, Figure]) -> list[Fault]:
        """Return the domain's own demands that a model with these figures, by metric, does not meet."""

    def find_favourable(self, window: ScoredWindow, bundle: "Bundle") -> "Mapping[str, np.ndarray]":
        """Return for each of `cutoffs` whether the rows' decisions stay below it, shape (n,): in favour of the person."""
        return {name: window.probability < bundle.thresholds[name] for name in self.cutoffs if name in bundle.thresholds}

    @abstractmethod
    def utility(self, window: ScoredWindow, bundle: "Bundle") -> "np.ndarray":
        """Return what each row's decision earned, shape (n,), in `utility_unit`."""

    @abstractmethod
    def compare_with_truth(
        self, frame: "pd.DataFrame", truth: "Mapping[str, pd.DataFrame]", bundle: "Bundle", settings: "Settings"
    ) -> Sequence[Figure]:
        """Compare a bundle with the true probabilities on the test window; `truth` holds the `truth_tables` by name."""

    def select_truth(self, name: str, truth: "LazyTable", rows: "LazyTable") -> "LazyTable":
        """Return what `compare_with_truth` needs of one of the `truth_tables` for rows of the feature table."""
        return truth

    def training_population(self, table: "LazyTable") -> "LazyTable":
        """Return the rows of the kind that taught, where the feature table holds others too."""
        return table

    @property
    def truth_tables(self) -> tuple[str, ...]:
        """The names of the tables that `compare_with_truth` reads."""
        return (self.truth, *self.more_truth)

    # Contracts -----------------------------------------------------------------------------------------------------------------

    @property
    def group(self) -> str:
        """The domain whose features this one reads, which also names the asset group."""
        return self.features_of or self.name

    def unavailable_reason(self, source: "Source") -> str | None:
        """Return why a source has no such domain; None if the source has it."""
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
        """Return the contract of the feature table."""
        states_test = any(raw.table.event_time == self.decision_time and IS_TEST in raw.table.columns for raw in source.tables.values())
        return feature_table(self.group, (*self.keys, IS_TEST) if states_test else self.keys, self.select_features(source))

    def score_contract(self) -> Table:
        """Return the contract of the batch scores."""
        decided_at = next(column for column in self.keys if column.name == self.decision_time)
        return score_table(self.name, self.keys[0], decided_at, self.more_scores)
