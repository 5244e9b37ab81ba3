"""Spending risk as the graph knows it: two models on one feature table, one of all features and one of the eight that a client may send."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from finrisk_assets.classifier import Classifier
from finrisk_assets.domain import Domain
from finrisk_assets.spending_risk import decide, features, model, target
from schemas.features import Feature

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from finrisk_assets.ledger.sources.base import Source
    from finrisk_assets.modelling.split import Split
    from finrisk_assets.settings import Settings


def _known(frame: "pd.DataFrame", settings: "Settings") -> "pd.DataFrame":
    """The month-ends whose outcome is known at the moment the ledger is read."""
    known = frame[frame.is_trouble.notna() & (frame.outcome_known_at <= settings.now)].reset_index(drop=True)
    return known.assign(is_trouble=known.is_trouble.astype(bool))


@dataclass(frozen=True)
class _MonthEnds(Classifier):
    """A classifier that splits month-ends as `model.windows` says."""

    def split(self, known: "pd.DataFrame", settings: "Settings") -> "Split":
        keys, customers = known.customer_month.tolist(), known.customer_id.tolist()
        return model.windows(keys, known.is_trouble, known.as_of, customers, known.outcome_known_at, settings.seed)


CLASSIFIER = _MonthEnds(
    domain="spending_risk",
    key="customer_month",
    label="is_trouble",
    moment="as_of",
    known=_known,
    thresholds=lambda settings: decide.thresholds(settings.medium_risk_from, settings.high_risk_from),
    candidates=model.candidates,
    outcome="trouble",
)

CLASSIFIER_EIGHT = replace(CLASSIFIER, domain="spending_risk_eight", package="spending_risk")

WITHOUT = {"berka": features.SEASON}
"""Source -> features that it leaves out. What may teach on Berka is one year, in which each month comes once: no season can be told."""


def _features(source: "Source") -> tuple[Feature, ...]:
    columns = {name: raw.columns for name, raw in source.tables.items()}
    return features.declared(columns, WITHOUT.get(source.name, ()))


def _decide(probability: "np.ndarray", margin: "np.ndarray", thresholds: Mapping[str, float]) -> Sequence[str]:
    return decide.decisions(probability, thresholds)


SPENDING_RISK = Domain(
    name="spending_risk",
    title="Spending risk",
    owner="personal-finance",
    tables=("customers", "transactions"),
    keys=features.KEYS,
    moment="as_of",
    features=_features,
    build=lambda tables, source: features.build(tables, _features(source), target.rule(source.name)),
    train=CLASSIFIER.train,
    evaluate=CLASSIFIER.evaluate,
    gate=CLASSIFIER.gate,
    decide=_decide,
    needs=("transactions.customer_id", "transactions.category", "transactions.balance_amount"),
    truth="truth_spending_risk",
    oracle=CLASSIFIER.oracle(("customer_id", "as_of"), "true_probability"),
)

SPENDING_RISK_EIGHT = replace(
    SPENDING_RISK,
    name="spending_risk_eight",
    title="Spending risk, eight fields",
    features_of="spending_risk",
    features=lambda source: features.EIGHT_FEATURES,
    train=CLASSIFIER_EIGHT.train,
    evaluate=CLASSIFIER_EIGHT.evaluate,
    gate=CLASSIFIER_EIGHT.gate,
    oracle=CLASSIFIER_EIGHT.oracle(("customer_id", "as_of"), "true_probability"),
)
