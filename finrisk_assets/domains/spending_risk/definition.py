"""Spending risk as the graph knows it: two models on one feature table, one of all features and one of the eight that a client may send."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from finrisk_assets.domains.base import Domain, MonitoringSpec, TestWindow
from finrisk_assets.domains.classifier import Classifier, net_benefit, with_reference
from finrisk_assets.domains.spending_risk import decide, features, model, target
from schemas.features import Feature

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from finrisk_assets.ledger.sources.source_definition import Source
    from finrisk_assets.modelling.training.split import Split
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.scoring.spec import BundleSpec
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


def _reference(spec: "BundleSpec", train: "pd.DataFrame", validation: "pd.DataFrame", settings: "Settings") -> "BundleSpec":
    """The bundle with what the reasons of a HIGH risk compare with: those just below it."""
    from finrisk_assets.modelling.training.candidates import matrix

    return with_reference(spec, matrix(validation, spec.features), spec.thresholds["high_from"])


CLASSIFIER = _MonthEnds(
    domain="spending_risk",
    key="customer_month",
    label="is_trouble",
    moment="as_of",
    known=_known,
    thresholds=lambda settings: decide.thresholds(settings.medium_risk_from, settings.high_risk_from),
    candidates=model.candidates,
    outcome="trouble",
    refine=_reference,
)

CLASSIFIER_EIGHT = replace(CLASSIFIER, domain="spending_risk_eight", package="spending_risk")

WITHOUT = {"berka": features.SEASON}
"""Source -> features that it leaves out. What may teach on Berka is one year, in which each month comes once: no season can be told."""


def _features(source: "Source") -> tuple[Feature, ...]:
    columns = {name: raw.columns for name, raw in source.tables.items()}
    return features.declared(columns, WITHOUT.get(source.name, ()))


def _decide(probability: "np.ndarray", margin: "np.ndarray", thresholds: Mapping[str, float]) -> Sequence[str]:
    return decide.decisions(probability, thresholds)


def _gain(window: TestWindow, bundle: "Bundle") -> "np.ndarray":
    return net_benefit(window, [bundle.thresholds[name] for name in ("medium_from", "high_from")])


SPENDING_RISK = Domain(
    name="spending_risk",
    title="Spending risk",
    owner="personal-finance",
    tables=("customers", "transactions"),
    keys=features.KEYS,
    moment="as_of",
    months_back=6,
    months_ahead=3,
    features=_features,
    build=lambda tables, source: features.build(tables, _features(source), target.rule(source.name)),
    train=CLASSIFIER.train,
    evaluate=CLASSIFIER.evaluate,
    test=CLASSIFIER.test,
    gate=CLASSIFIER.gate,
    decide=_decide,
    gain=_gain,
    gain_unit="troubles found, less false alarms at the odds of the threshold, per person and month",
    cutoffs={"medium_from": False, "high_from": True},
    needs=("transactions.customer_id", "transactions.category", "transactions.balance_amount"),
    watch=MonitoringSpec(
        label="is_trouble",
        matured=_known,
        decision_thresholds=("medium_from", "high_from"),
        by_construction=dict.fromkeys(features.SEASON, "the month of the year"),
    ),
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
    test=CLASSIFIER_EIGHT.test,
    gate=CLASSIFIER_EIGHT.gate,
    oracle=CLASSIFIER_EIGHT.oracle(("customer_id", "as_of"), "true_probability"),
)
