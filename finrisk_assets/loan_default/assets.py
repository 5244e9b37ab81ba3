"""Loan default as the graph knows it: how a champion is trained and what it must show. The pure parts are beside this file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from finrisk_assets.domain import Domain, Evaluation, Figure, Trained
from finrisk_assets.loan_default import decide, features, model
from schemas.features import Feature

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from finrisk_assets.ledger.sources.base import Source
    from finrisk_assets.modelling.bundle import Bundle
    from finrisk_assets.modelling.split import Split
    from finrisk_assets.settings import Settings

SHAP_ROWS = 2_000
LARGEST_DRIFT = 0.02
"""By how much the mean PD may leave the interval of the observed default rate."""


def _features(source: "Source") -> tuple[Feature, ...]:
    filled = {name: tuple(raw.columns) for name, raw in source.tables.items()}
    return features.declared(filled, source.features.get("loan_default", ()))


def _split(frame: "pd.DataFrame", seed: int) -> "Split":
    from finrisk_assets.modelling.split import split

    return split(frame.loan_id.tolist(), frame.is_default, frame.applied_at, seed=seed)


def _known(frame: "pd.DataFrame", settings: "Settings") -> "pd.DataFrame":
    """The loans that had their time to default, and whose outcome is known at the moment the ledger is read."""
    known_by_now = frame.outcome_known_at.isna() | (frame.outcome_known_at <= settings.now)
    known = frame[frame.is_default.notna() & known_by_now]
    known = known[model.mature(known.applied_at, known.outcome_known_at)].reset_index(drop=True)
    return known.assign(is_default=known.is_default.astype(bool))


def _train(frame: "pd.DataFrame", declared: tuple[Feature, ...], source: "Source", settings: "Settings") -> Trained:
    from finrisk_assets.modelling import explain, plots, provenance
    from finrisk_assets.modelling.bundle import Bundle, BundleSpec
    from finrisk_assets.modelling.registry import model_name
    from finrisk_assets.modelling.trees import component_from

    known = _known(frame, settings)
    rows, labels, window = model.matrix(known, declared), known.is_default.to_numpy(), _split(known, settings.seed)
    models = model.candidates(declared, settings.seed, settings.threads, len(window.train))
    found = model.fit_all(rows, labels, window, models)
    best, validation = found[0], rows[window.validation]
    first, last = known.applied_at.iloc[window.train].min(), known.applied_at.iloc[window.train].max()
    thresholds = decide.thresholds()
    spec = BundleSpec(
        name=model_name("loan_default"),
        domain="loan_default",
        source=source.name,
        features=declared,
        components=(component_from(best.estimator, declared, validation).component,),
        calibration=best.calibrated.calibration,
        thresholds=thresholds,
        metrics={"validation_auc": best.auc.value, "validation_log_loss": best.log_loss},
        golden_rows=provenance.golden_rows(validation, model.margin(best.estimator, validation)[0]),
        seed=settings.seed,
        data_sha256=provenance.data_sha256(known),
        code_sha256=provenance.code_sha256("loan_default"),
        training_window=None if first is None or first != first else (first.date().isoformat(), last.date().isoformat()),
        libraries=provenance.libraries(),
    )
    spec = replace(spec, reference=explain.just_approved(Bundle(spec, ""), validation, thresholds["refer_from"]))
    target = labels[window.validation]
    return Trained(
        spec,
        params={
            "champion_candidate": best.name,
            "calibration": best.calibrated.form,
            "split": window.reason,
            "seed": settings.seed,
            "n_train": len(window.train),
            "n_validation": len(window.validation),
            "n_test": len(window.test),
            "base_rate": float(labels[window.train].mean()),
            **{f"{best.name}.{key}": value for key, value in _parameters(best.estimator).items()},
        },
        metrics={"auc": best.auc.value, "log_loss": best.log_loss},
        candidates=[
            {
                "model": candidate.name,
                "validation AUC": candidate.auc.value,
                "low": candidate.auc.low,
                "high": candidate.auc.high,
                "log loss": candidate.log_loss,
                "fit s": candidate.seconds,
            }
            for candidate in found
        ],
        plots={"candidates": plots.roc_pr(target, {one.name: one.probability(validation) for one in found})},
    )


def _parameters(estimator: Any) -> Mapping[str, Any]:
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    return {name: value for name, value in last.get_params().items() if value is not None}


def _evaluate(frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> Evaluation:
    import numpy as np

    from finrisk_assets.modelling import evaluate, explain, plots

    known = _known(frame, settings)
    test = known.iloc[_split(known, settings.seed).test]
    rows, labels = model.matrix(test, bundle.features), test.is_default.to_numpy()
    probability = bundle.probability(rows)
    said = [decide.grade(float(p)) for p in probability]
    grades = evaluate.jeffreys(labels, probability, said)
    observed = evaluate.jeffreys(labels, probability, ["all"] * len(labels))[0]
    sample = rows[:SHAP_ROWS]
    scored = bundle.score(sample)
    gap = float(np.abs(scored.base + scored.contributions.sum(axis=1) - bundle.margin(sample)).max())
    meanings = {"auc": "area under the ROC curve, DeLong", "expected_calibration_error": "mean distance of PD and default rate"}
    summary = evaluate.summary(labels, probability, seed=settings.seed)
    figures = [Figure(name, one.value, one.low, one.high, meanings.get(name, "")) for name, one in summary.items()]
    figures += [
        Figure("default_rate", float(labels.mean()), observed.low, observed.high, "observed, Jeffreys interval"),
        Figure("mean_pd", float(probability.mean()), meaning="said by the model"),
        Figure("explanation_gap", gap, meaning="largest distance of base + contributions from the score"),
        Figure("n_test", float(len(labels)), meaning="loans in the test window"),
    ]
    figures += [Figure(f"grade_{g.grade}_default_rate", g.defaults / g.n, g.low, g.high, f"mean PD {g.mean_pd:.4f}") for g in grades]
    shares = explain.importance(bundle, scored.contributions)
    figures += [Figure(f"importance_{one.feature}", one.share, meaning="share of mean |SHAP|") for one in shares[:10]]
    names = [feature.name for feature in bundle.features]
    return Evaluation(
        figures,
        {
            "roc_pr": plots.roc_pr(labels, {"challenger": probability}),
            "calibration": plots.calibration(labels, probability),
            "scores": plots.scores(labels, probability, bundle.thresholds),
            "shap": plots.shap_summary(scored.contributions, sample, names),
        },
    )


def _gate(figures: Mapping[str, Figure]) -> list[str]:
    faults = []
    auc, rate, mean = figures["auc"], figures["default_rate"], figures["mean_pd"]
    if auc.low is None or auc.low <= 0.5:
        faults.append(f"the AUC of {auc.value:.3f} may be chance: its interval begins at {auc.low}")
    if not (rate.low or 0) - LARGEST_DRIFT <= mean.value <= (rate.high or 1) + LARGEST_DRIFT:
        faults.append(f"the mean PD of {mean.value:.4f} is far from the default rate of {rate.value:.4f}")
    if figures["explanation_gap"].value > 1e-4:
        faults.append(f"the explanations miss the score by {figures['explanation_gap'].value:.2g}")
    return faults


def _decide(probability: "np.ndarray", margin: "np.ndarray", thresholds: Mapping[str, float]) -> Sequence[str]:
    return decide.decisions(probability, thresholds)


LOAN_DEFAULT = Domain(
    name="loan_default",
    title="Loan default",
    owner="credit-risk",
    tables=("customers", "accounts", "transactions", "loans"),
    keys=features.KEYS,
    moment="applied_at",
    features=_features,
    build=lambda tables, source: features.build(tables, _features(source)),
    train=_train,
    evaluate=_evaluate,
    gate=_gate,
    decide=_decide,
)
