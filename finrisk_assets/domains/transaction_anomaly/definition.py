"""Transaction anomaly as the graph knows it: how a champion is trained and what it must show. The pure parts are beside this file.

An isolation forest always; where the source has fraud labels also a supervised model, and one score that joins the two.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from finrisk_assets.domains.base import Domain, Evaluation, Fault, Figure, MonitoringSpec, TestWindow, Trained
from finrisk_assets.domains.transaction_anomaly import decide, features, model
from schemas.features import Feature
from schemas.ledger import TRANSACTIONS, Column

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.features.windows import Declaration
    from finrisk_assets.ledger.sources.source_definition import Source
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.scoring.spec import Rows
    from finrisk_assets.settings import Settings

WINDOW_DAYS = 28
"""Days of the validation and of the test window; a sixth of the ledger each where that is less."""

SHAP_ROWS = 600
FOREST_ROWS = 50_000
"""Rows that the isolation forest draws its samples from."""

AP_DRAWS = 40
KEYS: tuple[Column, ...] = tuple(
    TRANSACTIONS[name] for name in ("transaction_id", "customer_id", "occurred_at", "is_fraud", "label_known_at")
)


def _declarations(source: "Source") -> "tuple[Declaration, ...]":
    return features.available(source.tables["transactions"].columns)


def _features(source: "Source") -> tuple[Feature, ...]:
    return tuple(declared.feature for declared in _declarations(source))


def lookback(source: "Source") -> timedelta:
    """How far back the history of a transaction of this source reaches."""
    from finrisk_assets.features.windows import reach_s

    return timedelta(seconds=max(reach_s(_declarations(source)).values()))


@dataclass(frozen=True)
class SplitWindows:
    """Rows to fit on, to choose and calibrate on, and to be judged by, in that order of time.

    Between two windows lies the time that labels take: whatever a window teaches was known when the next one began.
    """

    train: "np.ndarray"
    validation: "np.ndarray"
    test: "np.ndarray"
    reason: str


def _windows(moments: "np.ndarray") -> SplitWindows:
    """Split transactions by time.

    Parameters
    ----------
    moments : ndarray of datetime64, shape (n,)
    """
    import numpy as np

    day, delay = np.timedelta64(1, "D"), np.timedelta64(features.LABEL_DELAY_S, "s")
    test, length = _test_from(moments.min(), moments.max())
    validation = test - length - delay
    return SplitWindows(
        np.flatnonzero(moments < validation - delay),
        np.flatnonzero((moments >= validation) & (moments < test - delay)),
        np.flatnonzero(moments >= test),
        f"by time: validation from {validation}, test from {test}, {delay / day:.0f} days of label delay before each",
    )


def _test_from(first: "np.datetime64", last: "np.datetime64") -> "tuple[np.datetime64, np.timedelta64]":
    """When the test window of a ledger begins, and how long it is."""
    import numpy as np

    day = np.timedelta64(1, "D")
    end = last.astype("datetime64[D]") + day
    length = min(WINDOW_DAYS, max(1, int((end - first) / day) // 6)) * day
    return end - length, length


def _judged(rows: "LazyTable") -> "LazyTable":
    """The test window, and the first transaction of all, which its length follows from."""
    import ibis
    import numpy as np

    ends = rows.aggregate(first=rows.occurred_at.min(), last=rows.occurred_at.max()).to_pyarrow().to_pylist()[0]
    if ends["first"] is None:
        return rows
    begins, _ = _test_from(np.datetime64(ends["first"], "us"), np.datetime64(ends["last"], "us"))
    moments = (begins.astype("datetime64[us]").item(), ends["first"])
    begins_at, first = (ibis.literal(moment, type="timestamp") for moment in moments)
    return rows.filter((rows.occurred_at >= begins_at) | (rows.occurred_at == first))


def _matrix(frame: "pd.DataFrame", declared: Sequence[Feature], picked: "np.ndarray | None" = None) -> "Rows":
    """The features, of the picked rows or all, as float32 of shape (n, d), filled column by column: no second copy of the table."""
    import numpy as np

    rows = np.empty((len(frame if picked is None else picked), len(declared)), np.float32)
    for at, feature in enumerate(declared):
        column = frame[feature.name].to_numpy(np.float32, na_value=np.nan)
        rows[:, at] = column if picked is None else column[picked]
    return rows


def _days(frame: "pd.DataFrame") -> "np.ndarray":
    return frame.occurred_at.to_numpy().astype("datetime64[D]")


def _train(frame: "pd.DataFrame", declared: tuple[Feature, ...], source: "Source", settings: "Settings") -> Trained:
    import numpy as np

    from finrisk_assets.features.windows import to_json
    from finrisk_assets.modelling.training import provenance
    from finrisk_assets.modelling.training.convert import component_from
    from finrisk_assets.modelling.training.model_registry import model_name
    from finrisk_assets.scoring.spec import BundleSpec, Calibration

    moments = frame.occurred_at.to_numpy()
    window = _windows(moments)
    rows, validation = _matrix(frame, declared, window.train), _matrix(frame, declared, window.validation)
    sample = np.sort(np.random.default_rng(settings.seed).permutation(len(rows))[:FOREST_ROWS])
    forest = model.isolation_forest(settings.seed, n_jobs=settings.threads).fit(model.isolation_rows(declared, rows[sample]))
    unusual = component_from(forest, declared, validation[:2_000]).component
    margin = model.isolation_margin(forest, validation)
    spec = BundleSpec(
        name=model_name("transaction_anomaly"),
        domain="transaction_anomaly",
        source=source.name,
        features=declared,
        windows=tuple(to_json(_declarations(source))),
        components=(unusual,),
        calibration=Calibration("exp2"),
        thresholds=decide.thresholds(np.exp2(margin)) | _largest(frame, window.train),
        golden_rows=provenance.golden_rows(validation, margin),
        seed=settings.seed,
        data_sha256=provenance.data_sha256(frame),
        code_sha256=provenance.code_sha256("transaction_anomaly"),
        training_window=(str(moments.min())[:10], str(moments[window.train].max())[:10]),
        libraries=provenance.libraries(),
    )
    sizes = {"n_train": len(rows), "n_validation": len(validation), "n_test": len(window.test)}
    params = {"split": window.reason, "seed": settings.seed, **sizes}
    if frame.is_fraud.isna().all():
        share = float((np.exp2(margin) >= spec.thresholds["anomaly"]).mean())
        return Trained(spec, params | {"champion_candidate": "isolation_forest"}, {"share_anomalous": share})
    return _with_labels(frame, window, rows, validation, margin, spec, params, settings)


def _largest(frame: "pd.DataFrame", train: "np.ndarray") -> dict[str, float]:
    """The largest amount that the model learns from, as its feature has it: to 32 bits."""
    import numpy as np

    return {decide.LARGEST: float(np.float32(np.nanmax(frame.log_amount.to_numpy()[train])))} if "log_amount" in frame else {}


def _with_labels(
    frame: "pd.DataFrame",
    window: SplitWindows,
    rows: "Rows",
    validation: "Rows",
    isolation: "np.ndarray",
    spec: Any,
    params: dict[str, Any],
    settings: "Settings",
) -> Trained:
    """Add the best supervised model and join its score with the isolation forest's."""
    import time

    import numpy as np

    from finrisk_assets.modelling.evaluation import metrics, plots
    from finrisk_assets.modelling.training import calibrate, provenance
    from finrisk_assets.modelling.training.convert import component_from

    fraud = frame.is_fraud.fillna(False).to_numpy(bool)
    known, target = fraud[window.train], fraud[window.validation]
    learned = model.undersample(known, settings.seed)
    margins: dict[str, np.ndarray] = {}
    fitted: dict[str, Any] = {}
    found: list[dict[str, Any]] = []
    for name, estimator in model.candidates(spec.features, settings.seed, n_jobs=settings.threads).items():
        if name not in model.JOINABLE:
            continue
        began = time.perf_counter()
        fitted[name] = estimator.fit(rows[learned], known[learned].astype(int))
        margins[name] = model.log_odds(fitted[name], validation)
        ap, area = metrics.average_precision(target, margins[name]), metrics.auc(target, margins[name])
        found.append({"model": name, "validation AP": ap, "AUC": area.value, "fit s": time.perf_counter() - began})
    found.append({"model": "isolation_forest", "validation AP": metrics.average_precision(target, isolation)})
    best = max(fitted, key=lambda name: float(next(row["validation AP"] for row in found if row["model"] == name)))
    joined = model.join(target, {"supervised": margins[best], "isolation": isolation})
    margin = joined.margin({"supervised": margins[best], "isolation": isolation})
    found.append({"model": "joined", "validation AP": metrics.average_precision(target, margin)})
    supervised = component_from(fitted[best], spec.features, validation[:2_000]).component
    calibrated = calibrate.fit(margin, target)
    probability = calibrated.calibration.apply(margin)
    days = len(np.unique(_days(frame)[window.validation]))
    ap = metrics.average_precision(target, margin)
    spec = replace(
        spec,
        components=(
            replace(supervised, weight=joined.weights["supervised"]),
            replace(spec.components[0], weight=joined.weights["isolation"]),
        ),
        intercept=joined.intercept,
        calibration=calibrated.calibration,
        thresholds=decide.thresholds(probability, capacity_per_day=settings.review_capacity, n_days=days, is_fraud=target)
        | _largest(frame, window.train),
        metrics={"validation_average_precision": ap},
        golden_rows=provenance.golden_rows(validation, margin),
    )
    params |= {
        "champion_candidate": best,
        "weight_supervised": joined.weights["supervised"],
        "weight_isolation": joined.weights["isolation"],
        "calibration": calibrated.form,
        "base_rate": float(known.mean()),
    }
    curves = {"joined": margin, best: margins[best], "isolation forest": isolation}
    return Trained(spec, params, {"average_precision": ap}, found, {"candidates": plots.roc_pr(target, curves)})


def _evaluate(frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> Evaluation:
    import numpy as np

    from finrisk_assets.modelling.evaluation import explain, plots

    test = frame.iloc[_windows(frame.occurred_at.to_numpy()).test]
    rows = _matrix(test, bundle.features)
    margin = bundle.margin(rows)
    probability = bundle.calibration.apply(margin)
    spread = np.argsort(margin, kind="stable")[np.linspace(0, len(margin) - 1, min(SHAP_ROWS, len(margin))).astype(int)]
    scored = bundle.score(rows[spread])
    gap = float(np.abs(scored.base + scored.contributions.sum(axis=1) - margin[spread]).max())
    figures = [
        Figure("share_anomalous", float((probability >= bundle.thresholds["anomaly"]).mean()), meaning="share at or above the threshold"),
        Figure("explanation_gap", gap, meaning="largest distance of base + contributions from the score"),
        Figure("n_test", float(len(test)), meaning="transactions in the test window"),
    ]
    shown = {"shap": plots.shap_summary(scored.contributions, rows[spread], [feature.name for feature in bundle.features])}
    if not test.is_fraud.isna().all():
        fraud = test.is_fraud.fillna(False).to_numpy(bool)
        decision_thresholds = {name: value for name, value in bundle.thresholds.items() if name != decide.LARGEST}
        figures = _fraud_figures(test, fraud, margin, probability, settings) + figures
        shown |= {
            "roc_pr": plots.roc_pr(fraud, {"challenger": margin}),
            "calibration": plots.calibration(fraud, probability),
            "scores": plots.scores(fraud, probability, decision_thresholds),
        }
    shares = explain.importance(bundle, scored.contributions)
    figures += [Figure(f"importance_{one.feature}", one.share, meaning="share of mean |SHAP|") for one in shares[:10]]
    return Evaluation(figures, shown)


def _fraud_figures(
    test: "pd.DataFrame", fraud: "np.ndarray", margin: "np.ndarray", probability: "np.ndarray", settings: "Settings"
) -> list[Figure]:
    """Figures against the labels: over the whole window, and week by week."""
    import numpy as np

    from finrisk_assets.modelling.evaluation import fraud_metrics, metrics

    days, cards = _days(test), test.customer_id.to_numpy()
    whole = fraud_metrics.fraud_scores(days, cards, fraud, margin)
    area = metrics.auc(fraud, margin)
    ap = metrics.bootstrap(metrics.average_precision, fraud, margin, labels=fraud, draws=AP_DRAWS, seed=settings.seed)
    week = (days - days.min()).astype(int) // 7
    weekly = [metrics.average_precision(fraud[week == one], margin[week == one]) for one in np.unique(week) if fraud[week == one].any()]
    figures = [
        Figure("auc", area.value, area.low, area.high, "area under the ROC curve, DeLong"),
        Figure("average_precision", ap.value, ap.low, ap.high, "area under the precision-recall curve, bootstrap"),
        *(Figure(name, value, meaning="mean over the days") for name, value in whole.items() if "_at_" in name),
        Figure("average_precision_weekly", float(np.mean(weekly)), meaning="mean over the weeks, prequential"),
        Figure("average_precision_weekly_sd", float(np.std(weekly)), meaning="standard deviation over the weeks"),
        Figure("brier", metrics.brier(fraud, probability), meaning="mean squared error of the probability"),
        Figure("expected_calibration_error", metrics.expected_calibration_error(fraud, probability)),
        Figure("fraud_rate", float(fraud.mean()), meaning="observed"),
        Figure("mean_probability", float(probability.mean()), meaning="said by the model"),
    ]
    return figures


def _test(frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> TestWindow:
    import numpy as np

    test = frame.iloc[_windows(frame.occurred_at.to_numpy()).test].reset_index(drop=True)
    rows = _matrix(test, bundle.features)
    labels = np.empty(0, bool) if test.is_fraud.isna().all() else test.is_fraud.fillna(False).to_numpy(bool)
    return TestWindow(test, rows, labels, bundle.probability(rows))


def _gain(window: TestWindow, bundle: "Bundle") -> "np.ndarray":
    """What looking at each transaction or blocking it saved; by `_score`, so that amounts never seen count as they are decided."""
    import numpy as np

    decided = np.asarray(_score(window.frame, bundle)["decision"])
    return decide.saved(np.expm1(window.frame.log_amount.to_numpy(np.float64)), window.labels, decided)


def _gate(figures: Mapping[str, Figure]) -> list[Fault]:
    faults = []
    share = figures["share_anomalous"].value
    if not decide.CONTAMINATION / 5 <= share <= decide.CONTAMINATION * 5:
        said = f"{share:.2%} of the transactions are anomalies; the threshold was set for {decide.CONTAMINATION:.0%}"
        faults.append(Fault("calibration", said))
    if "average_precision" in figures:
        ap, rate = figures["average_precision"], figures["fraud_rate"].value
        if (ap.low or 0) <= 2 * rate:
            said = f"the average precision of {ap.value:.3f} is hardly better than chance at a fraud rate of {rate:.4f}"
            faults.append(Fault("discrimination", said))
    return faults


def _decide(probability: "np.ndarray", margin: "np.ndarray", thresholds: Mapping[str, float]) -> Sequence[str]:
    return decide.decide_all(probability, thresholds)


def _score(frame: "pd.DataFrame", champion: "Bundle") -> dict[str, Any]:
    """Margin, probability and decision of each row; an amount beyond all that was learned from is decided as such."""
    import numpy as np

    margin = champion.margin(_matrix(frame, champion.features))
    probability = champion.calibration.apply(margin)
    amounts = frame.log_amount.to_numpy(np.float32) if "log_amount" in frame else None
    return {"score": margin, "probability": probability, "decision": decide.decide_all(probability, champion.thresholds, amounts)}


def _known(frame: "pd.DataFrame", settings: "Settings") -> "pd.DataFrame":
    """The transactions whose label is known at the moment the ledger is read, and would be, were they fraud or not."""
    import pandas as pd

    latest = settings.now - timedelta(seconds=features.LABEL_DELAY_S)
    by_now = frame.label_known_at.isna() | (frame.label_known_at <= settings.now)
    return frame[frame.is_fraud.notna() & by_now & (frame.occurred_at <= pd.Timestamp(latest))].reset_index(drop=True)


def _parity(table: "Callable[[str], LazyTable]", source: "Source") -> list[str]:
    from finrisk_assets.features.parity import certify

    found = certify(table("validated_transactions"), table("features_transaction_anomaly"), _declarations(source))
    return [] if found.equal else [str(found)]


def _oracle(frame: "pd.DataFrame", truth: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> list[Figure]:
    """The comparison with the probability of fraud that each transaction of the test window had; what the truth does not name had none."""
    from finrisk_assets.modelling.evaluation import oracle

    test = frame.iloc[_windows(frame.occurred_at.to_numpy()).test]
    joined = test[["transaction_id"]].merge(truth, on="transaction_id", how="left", validate="one_to_one")
    true = joined.fraud_probability.fillna(0.0).to_numpy(dtype=float)
    said = bundle.probability(_matrix(test, bundle.features))
    found = oracle.compare(test.is_fraud.fillna(False).to_numpy(bool), said, true)
    return [Figure(name, one.value, one.low, one.high, oracle.MEANINGS[name]) for name, one in found.items()]


TRANSACTION_ANOMALY = Domain(
    name="transaction_anomaly",
    title="Transaction anomaly",
    owner="fraud",
    tables=("transactions",),
    keys=KEYS,
    moment="occurred_at",
    months_back=3,
    features=_features,
    build=lambda tables, source: features.build(tables["transactions"], _declarations(source)),
    train=_train,
    evaluate=_evaluate,
    test=_test,
    judged=_judged,
    gate=_gate,
    gain=_gain,
    gain_unit="fraud stopped less the cost of alerts and of blocking by mistake, in currency per transaction",
    cutoffs={"review": False, "block": True},
    decide=_decide,
    parity=_parity,
    watch=MonitoringSpec(
        label="is_fraud",
        matured=_known,
        decision_thresholds=("review", "block"),
        by_construction={"is_weekend": "months differ in their weekends"},
    ),
    known_before=(),
    score=_score,
    truth="truth_transactions",
    oracle=_oracle,
)
