"""Loan default as the graph knows it: how a champion is trained and what it must show. The pure parts are beside this file."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from finrisk_assets.classifier import Classifier, with_reference
from finrisk_assets.domain import Domain, Evaluation, Figure
from finrisk_assets.loan_default import decide, features, model, standing
from schemas.features import Feature

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.ledger.sources.base import Source
    from finrisk_assets.modelling.bundle import Bundle, BundleSpec
    from finrisk_assets.settings import Settings


def _features(source: "Source") -> tuple[Feature, ...]:
    filled = {name: tuple(raw.columns) for name, raw in source.tables.items()}
    return features.declared(filled, source.features.get("loan_default", ()))


def _build(tables: "Mapping[str, LazyTable]", source: "Source") -> "LazyTable":
    return features.build({**tables, "loans": standing.applications(tables)}, _features(source))


def _known(frame: "pd.DataFrame", settings: "Settings") -> "pd.DataFrame":
    """The loans that had their time to default, and whose outcome is known at the moment the ledger is read; no standing ones."""
    known_by_now = frame.outcome_known_at.isna() | (frame.outcome_known_at <= settings.now)
    known = frame[frame.is_default.notna() & known_by_now]
    known = known[model.mature(known.applied_at, known.outcome_known_at)].reset_index(drop=True)
    return known.assign(is_default=known.is_default.astype(bool))


def _reference(spec: "BundleSpec", train: "pd.DataFrame", validation: "pd.DataFrame", settings: "Settings") -> "BundleSpec":
    from finrisk_assets.modelling.candidates import matrix

    return with_reference(spec, matrix(validation, spec.features), spec.thresholds["refer_from"])


CLASSIFIER = Classifier(
    domain="loan_default",
    key="loan_id",
    label="is_default",
    moment="applied_at",
    known=_known,
    thresholds=lambda settings: decide.thresholds(),
    candidates=model.candidates,
    outcome="default",
    refine=_reference,
)


def _evaluate(frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> Evaluation:
    from finrisk_assets.modelling import evaluate
    from finrisk_assets.modelling.emp import emp

    window = CLASSIFIER.test(frame, bundle, settings)
    grades = evaluate.jeffreys(window.labels, window.probability, [decide.grade(float(p)) for p in window.probability])
    found = CLASSIFIER.evaluate(frame, bundle, settings)
    figures = [Figure(f"grade_{g.grade}_default_rate", g.defaults / g.n, g.low, g.high, f"mean PD {g.mean_pd:.4f}") for g in grades]
    profit = emp(window.labels, window.probability).profit
    figures.append(Figure("emp", profit, meaning="expected maximum profit per unit lent (Verbraken et al. 2014)"))
    return Evaluation([*found.figures, *figures], found.plots)


def _decide(probability: "np.ndarray", margin: "np.ndarray", thresholds: Mapping[str, float]) -> Sequence[str]:
    return decide.decisions(probability, thresholds)


LOAN_DEFAULT = Domain(
    name="loan_default",
    title="Loan default",
    owner="credit-risk",
    tables=("customers", "accounts", "transactions", "loans", "offers"),
    keys=features.KEYS,
    moment="applied_at",
    features=_features,
    build=_build,
    train=CLASSIFIER.train,
    evaluate=_evaluate,
    gate=CLASSIFIER.gate,
    decide=_decide,
    needs=("loans.is_default",),
    truth="truth_loans",
    oracle=CLASSIFIER.oracle(("loan_id",), "true_pd"),
)
