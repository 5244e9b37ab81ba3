"""Loan default as the graph knows it: how a champion is trained and what it must show. The pure parts are beside this file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from finrisk_assets.domains.base import Domain, Evaluation, Figure, MonitoringSpec, TestWindow
from finrisk_assets.domains.classifier import Classifier, with_reference
from finrisk_assets.domains.loan_default import decide, features, model, month_end_applications
from schemas.features import Feature

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.ledger.sources.source_definition import Source
    from finrisk_assets.modelling.training.candidates import Candidate
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.scoring.spec import BundleSpec
    from finrisk_assets.settings import Settings


def _features(source: "Source") -> tuple[Feature, ...]:
    filled = {name: tuple(raw.columns) for name, raw in source.tables.items()}
    return features.declared(filled, source.features.get("loan_default", ()))


def _build(tables: "Mapping[str, LazyTable]", source: "Source") -> "LazyTable":
    return features.build({**tables, "loans": month_end_applications.applications(tables)}, _features(source))


def _known(frame: "pd.DataFrame", settings: "Settings") -> "pd.DataFrame":
    """The loans that had their time to default, and whose outcome is known at the moment the ledger is read; no standing ones."""
    known_by_now = frame.outcome_known_at.isna() | (frame.outcome_known_at <= settings.now)
    known = frame[frame.is_default.notna() & known_by_now]
    known = known[model.mature(known.applied_at, known.outcome_known_at)].reset_index(drop=True)
    return known.assign(is_default=known.is_default.astype(bool))


def _reference(spec: "BundleSpec", train: "pd.DataFrame", validation: "pd.DataFrame", settings: "Settings") -> "BundleSpec":
    """The bundle with what a refusal's reasons compare with, and with what those approved have of all that a person can change."""
    from finrisk_assets.domains.loan_default import actionability
    from finrisk_assets.modelling.training.candidates import matrix
    from finrisk_assets.scoring import recourse
    from finrisk_assets.scoring.bundle import Bundle

    rows, turn = matrix(validation, spec.features), spec.thresholds["refer_from"]
    approved = rows[Bundle(spec, "").probability(rows) < turn]
    known = recourse.quantiles(spec.features, approved, actionability.CHANGEABLE)
    return replace(with_reference(spec, rows, turn), approved=known)


def _export(found: "Sequence[Candidate]") -> Mapping[str, bytes]:
    """The scorecard as a page, a table and a query, whichever candidate was chosen."""
    from finrisk_assets.modelling.training import scorecard

    (card,) = (one.estimator.card_ for one in found if one.name == model.SCORECARD)
    return scorecard.files(card, "analytics.features_loan_default", "loan_id")


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
    export=_export,
)


def _evaluate(frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> Evaluation:
    from finrisk_assets.modelling.evaluation import metrics
    from finrisk_assets.modelling.evaluation.expected_max_profit import expected_max_profit

    window = CLASSIFIER.test(frame, bundle, settings)
    grades = metrics.jeffreys(window.labels, window.probability, [decide.grade(float(p)) for p in window.probability])
    found = CLASSIFIER.evaluate(frame, bundle, settings)
    figures = [Figure(f"grade_{g.grade}_default_rate", g.defaults / g.n, g.low, g.high, f"mean PD {g.mean_pd:.4f}") for g in grades]
    profit = expected_max_profit(window.labels, window.probability).profit
    figures.append(Figure("emp", profit, meaning="expected maximum profit per unit lent (Verbraken et al. 2014)"))
    return Evaluation([*found.figures, *figures], found.plots)


def _gain(window: TestWindow, bundle: "Bundle") -> "np.ndarray":
    import numpy as np

    decided = decide.decisions(window.probability, bundle.thresholds)
    return np.array(decide.realised_profit(window.labels, decided, decide.Costs()))


def _decide(probability: "np.ndarray", margin: "np.ndarray", thresholds: Mapping[str, float]) -> Sequence[str]:
    return decide.decisions(probability, thresholds)


LOAN_DEFAULT = Domain(
    name="loan_default",
    title="Loan default",
    owner="credit-risk",
    tables=("customers", "accounts", "transactions", "loans", "offers"),
    keys=features.KEYS,
    moment="applied_at",
    months_back=12,
    features=_features,
    build=_build,
    train=CLASSIFIER.train,
    evaluate=_evaluate,
    test=CLASSIFIER.test,
    gate=CLASSIFIER.gate,
    gain=_gain,
    gain_unit="profit as a share of the exposure, per loan",
    cutoffs={"refer_from": False, "refuse_from": True},
    decide=_decide,
    needs=("loans.is_default",),
    watch=MonitoringSpec(
        label="is_default",
        matured=_known,
        decision_thresholds=("refer_from", "refuse_from"),
        by_construction={"history_months": "grows as the ledger ages", "customer_months": "grows with every month that a customer stays"},
        population=month_end_applications.applied_for,
    ),
    truth="truth_loans",
    oracle=CLASSIFIER.oracle(("loan_id",), "true_pd"),
)
