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

    from finrisk_assets.ledger.sources.base import Source
    from finrisk_assets.modelling.bundle import Bundle, BundleSpec
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
    """

    spec: "BundleSpec"
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    candidates: Sequence[Mapping[str, Any]] = ()
    plots: Mapping[str, bytes] = field(default_factory=dict)


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
    features, build
        The features that a source allows, and the Ibis expression that computes them.
    train, evaluate
        From the feature table to a model; from a bundle and the feature table to figures on the frozen test window.
    gate
        From those figures, by metric, to the reasons why the model may not become champion; none if it may.
    decide
        Probabilities and margins to decisions, by the bundle's thresholds.
    parity
        Where the service computes the features itself: from the stored tables to what differs between batch and service.
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
    gate: "Callable[[Mapping[str, Figure]], Sequence[str]]"
    decide: "Callable[[np.ndarray, np.ndarray, Mapping[str, float]], Sequence[str]]"
    parity: "Callable[[Callable[[str], LazyTable], Source], Sequence[str]] | None" = None

    def feature_contract(self, source: "Source") -> Table:
        return feature_table(self.name, self.keys, self.features(source))

    def score_contract(self) -> Table:
        moment = next(column for column in self.keys if column.name == self.moment)
        return score_table(self.name, self.keys[0], moment)
