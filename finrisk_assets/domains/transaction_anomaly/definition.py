"""Transaction anomaly as the graph knows it: how a champion is trained and what it must show. The pure parts are beside this file.

An isolation forest always; where the source has enough fraud labels also a supervised model, and one score that joins the two.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from finrisk_assets.domains.base import Domain, Evaluation, Fault, Figure, MonitoringSpec, ScoredWindow, TrainingResult
from finrisk_assets.domains.transaction_anomaly import catalogue, decide, features, ledger_rules, model, time_split
from finrisk_assets.features.time_span import ALL_TIMES, TimeSpan
from schemas.features import Feature
from schemas.ledger import TRANSACTIONS, Column

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.domains.ledger_fit import LedgerFit, TeachingRows
    from finrisk_assets.domains.transaction_anomaly.time_split import TimeSplit
    from finrisk_assets.features.windows import Declaration
    from finrisk_assets.ledger.sources.source_definition import Source
    from finrisk_assets.policy.document import Policy
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.scoring.spec import BundleSpec, Rows
    from finrisk_assets.settings import Settings

SHAP_ROWS = 600
"""Rows of the test window whose contributions the figures and the picture of importance show."""
FOREST_ROWS = 50_000
"""Rows that the isolation forest draws its samples from."""
AP_DRAWS = 40
"""Bootstrap draws of the average precision's interval."""
MIN_FRAUDS = 5
"""Frauds of the training, the validation and the test window each from which on labels are learned from and judged by. With fewer, as on
the ledger of some dozens of people, the isolation forest decides alone."""


class TransactionAnomaly(Domain):
    """The risk that a transaction is unusual for its customer, or fraud."""

    name = "transaction_anomaly"
    title = "Transaction anomaly"
    owner = "fraud"
    tables = ("transactions",)
    keys = tuple(TRANSACTIONS[name] for name in ("transaction_id", "customer_id", "occurred_at", "is_fraud", "label_known_at"))
    reference_group = "other transactions"
    decision_time = "occurred_at"
    months_back = 3
    label = "is_fraud"
    cutoffs = ("review", "block")
    utility_unit = "fraud stopped less the cost of alerts and of blocking by mistake, in currency per transaction"
    truth = "truth_transactions"
    more_scores = (Column("fired_rules", "string", "Names of the policy's rules that fired, with spaces between them.", nullable=True),)
    known_before = ()
    is_computed_in_service = True
    monitoring = MonitoringSpec(
        decision_thresholds=("anomaly", "block"),
        by_construction={
            "is_weekend": "months differ in their weekends",
            **dict.fromkeys(catalogue.OF_ALL_CUSTOMERS, "of all customers of one merchant together: customers are no independent draws"),
        },
    )

    # Features ------------------------------------------------------------------------------------------------------------------

    def select_features(self, source: "Source") -> tuple[Feature, ...]:
        return tuple(declaration.feature for declaration in _declarations(source))

    def build_features(self, tables: "Mapping[str, LazyTable]", source: "Source", span: TimeSpan = ALL_TIMES) -> "LazyTable":
        return features.build(tables["transactions"], _declarations(source), span)

    def compute_features(self, tables: "Mapping[str, LazyTable]", source: "Source", span: TimeSpan) -> "LazyTable":
        return features.build(tables["transactions"], _declarations(source), span, in_passes=True)

    def declare_features(self, source: "Source") -> "Sequence[Declaration]":
        return _declarations(source)

    def find_parity_faults(self, table: "Callable[[str], LazyTable]", source: "Source") -> Sequence[str]:
        from finrisk_assets.features.parity import certify

        certificate = certify(table("validated_transactions"), table("features_transaction_anomaly"), _declarations(source))
        return [] if certificate.equal else [str(certificate)]

    # Model ---------------------------------------------------------------------------------------------------------------------

    def labelled_rows(self, frame: "pd.DataFrame", settings: "Settings") -> "pd.DataFrame":
        """Return the transactions whose label is known when the ledger is read, and would be known whether they are fraud or not."""
        import pandas as pd

        latest = settings.now - timedelta(seconds=catalogue.LABEL_DELAY_S)
        is_known = frame.label_known_at.isna() | (frame.label_known_at <= settings.now)
        return frame[frame.is_fraud.notna() & is_known & (frame.occurred_at <= pd.Timestamp(latest))].reset_index(drop=True)

    def train(
        self,
        frame: "pd.DataFrame",
        features: tuple[Feature, ...],
        source: "Source",
        settings: "Settings",
        ledger_fit: "LedgerFit | None" = None,
    ) -> TrainingResult:
        """Fit an isolation forest; where each window has `MIN_FRAUDS`, join it with the best supervised model."""
        import numpy as np

        from finrisk_assets.features.windows import to_json
        from finrisk_assets.modelling.training import provenance
        from finrisk_assets.modelling.training.convert import convert_estimator
        from finrisk_assets.modelling.training.model_registry import model_name
        from finrisk_assets.policy.policy_file import load_policy
        from finrisk_assets.scoring.bundle import Bundle
        from finrisk_assets.scoring.score_curve import draw_score_curve
        from finrisk_assets.scoring.spec import BundleSpec, Calibration

        moments = frame.occurred_at.to_numpy()
        window = time_split.split_by_time(moments)
        rows, validation = _matrix(frame, features, window.train), _matrix(frame, features, window.validation)
        sample = np.sort(np.random.default_rng(settings.seed).permutation(len(rows))[:FOREST_ROWS])
        forest = model.isolation_forest(settings.seed, n_jobs=settings.threads).fit(model.isolate_features(features, rows[sample]))
        margin = model.compute_isolation_margin(forest, validation)
        spec = BundleSpec(
            name=model_name(self.name),
            domain=self.name,
            source=source.name,
            features=features,
            windows=tuple(to_json(_declarations(source))),
            components=(convert_estimator(forest, features, validation[:2_000]).component,),
            calibration=Calibration("exp2"),
            thresholds=_largest_amount(frame, window.train),
            score_curve=draw_score_curve(np.exp2(margin), None, len(np.unique(_days(frame)[window.validation]))),
            golden_rows=provenance.pick_golden_rows(validation, margin),
            seed=settings.seed,
            data_sha256=provenance.data_sha256(frame),
            code_sha256=provenance.code_sha256(self.name),
            training_window=(str(moments.min())[:10], str(moments[window.train].max())[:10]),
            libraries=provenance.library_versions(),
        )
        sizes = {"n_train": len(rows), "n_validation": len(validation), "n_test": len(window.test)}
        params = {"split": window.reason, "seed": settings.seed, **sizes}
        if min(_count_frauds(frame.is_fraud.iloc[part]) for part in (window.train, window.validation, window.test)) < MIN_FRAUDS:
            share = float((np.exp2(margin) >= Bundle(spec, "", policy=load_policy(settings)).thresholds["anomaly"]).mean())
            spec = _with_values(spec, rows, validation)
            return TrainingResult(spec, params | {"champion_candidate": "isolation_forest"}, {"share_anomalous": share})
        return _train_supervised(frame, window, rows, validation, margin, spec, params, settings, ledger_fit)

    def score(self, frame: "pd.DataFrame", champion: "Bundle") -> dict[str, Any]:
        """Return margin, probability, decision and fired rules of each row; an amount larger than any in training is decided as such,
        and a transaction of which too little is known is reviewed.

        Rules decide on rows that `join_rules` has joined them to. Others are decided by the model alone, as its evaluation asks.
        """
        import numpy as np
        import pyarrow as pa

        rows = _matrix(frame, champion.features)
        margin = champion.margin(rows)
        probability = champion.calibration.apply(margin)
        amounts = frame.log_amount.to_numpy(np.float32) if "log_amount" in frame else None
        decisions = np.array(decide.decide_all(probability, champion.thresholds, amounts), object)
        decisions[champion.is_doubtful(rows) & (decisions == "allow")] = "review"
        fired = [None] * len(rows) if ledger_rules.FIRED not in frame else frame[ledger_rules.FIRED].tolist()
        decided = ledger_rules.escalate_all(decisions.tolist(), fired, champion.policy.transaction_anomaly.rules)
        return {
            "score": margin,
            "probability": probability,
            "decision": decided,
            "fired_rules": pa.array(fired, pa.string(), from_pandas=True),
        }

    def join_rules(self, rows: "LazyTable", table: "Callable[[str], LazyTable]", policy: "Policy") -> "LazyTable":
        return ledger_rules.join_fired(rows, table("validated_transactions"), policy.transaction_anomaly.rules)

    def value_decisions(self, frame: "pd.DataFrame", scored: Mapping[str, Any], policy: "Policy") -> "np.ndarray | None":
        """Return what reviews and blocks are expected to save less what they cost; None where the score is no probability of fraud."""
        import numpy as np

        if frame.is_fraud.isna().all() or "log_amount" not in frame:
            return None
        amount, p = np.expm1(frame.log_amount.to_numpy(np.float64)), np.asarray(scored["probability"], float)
        decisions, rules = scored["decision"], policy.transaction_anomaly
        stopped, passed = (decide.compute_savings(amount, np.full(len(p), fraud), decisions, rules) for fraud in (True, False))
        return p * stopped + (1 - p) * passed

    # Evaluation ----------------------------------------------------------------------------------------------------------------

    def evaluation_rows(self, table: "LazyTable") -> "LazyTable":
        return time_split.select_test_rows(table)

    def score_test_window(self, frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> ScoredWindow:
        """Score the test window; its labels have shape (0,) where they do not judge the bundle."""
        import numpy as np

        test = _test_window(frame).reset_index(drop=True)
        rows = _matrix(test, bundle.features)
        labels = np.empty(0, bool) if not _is_judged_by_labels(test, bundle) else test.is_fraud.fillna(False).to_numpy(bool)
        return ScoredWindow(test, rows, labels, bundle.probability(rows))

    def evaluate(self, frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> Evaluation:
        """Return figures and pictures of the test window, against the labels where there are enough."""
        import numpy as np

        from finrisk_assets.modelling.evaluation import explain, plots
        from finrisk_assets.modelling.packs import evidence

        test = _test_window(frame)
        rows = _matrix(test, bundle.features)
        margin = bundle.margin(rows)
        probability = bundle.calibration.apply(margin)
        spread = np.argsort(margin, kind="stable")[np.linspace(0, len(margin) - 1, min(SHAP_ROWS, len(margin))).astype(int)]
        scored = bundle.score(rows[spread])
        gap = float(np.abs(scored.base + scored.contributions.sum(axis=1) - margin[spread]).max())
        is_anomalous = probability >= bundle.thresholds["anomaly"]
        is_reviewed = np.asarray(self.score(test, bundle)["decision"]) == "review"
        figures = [
            Figure("share_anomalous", float(is_anomalous.mean()), meaning="share at or above the threshold"),
            Figure("share_planned", bundle.policy.transaction_anomaly.contamination, meaning="share that the policy calls anomalies"),
            Figure("share_reviewed", float(is_reviewed.mean()), meaning="share of the transactions that a person reviews"),
            Figure("explanation_gap", gap, meaning="largest distance of base + contributions from the score"),
            Figure("n_test", float(len(test)), meaning="transactions in the test window"),
        ]
        names = [feature.name for feature in bundle.features]
        pictures = {"shap": plots.plot_shap_summary(scored.contributions, rows[spread], names)}
        shown = {"rows": len(test), "scores": evidence.measure_scores(probability)}
        shown |= {"effects": evidence.measure_effects(scored.contributions, rows[spread], names)}
        if _is_judged_by_labels(test, bundle):
            fraud = test.is_fraud.fillna(False).to_numpy(bool)
            decision_thresholds = {name: value for name, value in bundle.thresholds.items() if name in ("anomaly", "review", "block")}
            figures = _fraud_figures(test, fraud, margin, probability, settings) + figures
            figures += _review_figures(test, fraud, probability, bundle)
            pictures |= {
                "roc_pr": plots.plot_roc_pr(fraud, {"challenger": margin}),
                "calibration": plots.plot_calibration(fraud, probability),
                "scores": plots.plot_scores(fraud, probability, decision_thresholds),
            }
            shown |= evidence.measure_outcomes(fraud, margin, probability, test.customer_id)
        shares = explain.rank_features(bundle, scored.contributions)
        figures += [Figure(f"importance_{share.feature}", share.share, meaning="share of mean |SHAP|") for share in shares[:10]]
        return Evaluation(figures, pictures, shown)

    def find_faults(self, figures: Mapping[str, Figure]) -> list[Fault]:
        """Return a fault where the share of anomalies is far from the one planned, or the ranking hardly better than chance."""
        faults = []
        share, planned = figures["share_anomalous"].value, figures["share_planned"].value
        if not planned / 5 <= share <= planned * 5:
            reason = f"{share:.2%} of the transactions are anomalies; the threshold was set for {planned:.1%}"
            faults.append(Fault("calibration", reason))
        if "average_precision" in figures:
            ap, rate = figures["average_precision"], figures["fraud_rate"].value
            if (ap.low or 0) <= 2 * rate:
                reason = f"the average precision of {ap.value:.3f} is hardly better than chance at a fraud rate of {rate:.4f}"
                faults.append(Fault("discrimination", reason))
        return faults

    def find_favourable(self, window: ScoredWindow, bundle: "Bundle") -> "Mapping[str, np.ndarray]":
        """Return whether each transaction is allowed, and where the bundle blocks whether it is not blocked."""
        import numpy as np

        amounts = window.frame.log_amount.to_numpy(np.float32) if "log_amount" in window.frame else None
        decisions = np.asarray(decide.decide_all(window.probability, bundle.thresholds, amounts), str)
        return {"review": decisions == "allow"} | ({"block": decisions != "block"} if "block" in bundle.thresholds else {})

    def utility(self, window: ScoredWindow, bundle: "Bundle") -> "np.ndarray":
        """Return what looking at each transaction or blocking it saved, decided by `score` so that unseen amounts count as they are."""
        import numpy as np

        decisions = np.asarray(self.score(window.frame, bundle)["decision"])
        amounts = np.expm1(window.frame.log_amount.to_numpy(np.float64))
        return decide.compute_savings(amounts, window.labels, decisions, bundle.policy.transaction_anomaly)

    def select_truth(self, name: str, truth: "LazyTable", rows: "LazyTable") -> "LazyTable":
        return truth.semi_join(rows, "transaction_id")

    def compare_with_truth(
        self, frame: "pd.DataFrame", truth: "Mapping[str, pd.DataFrame]", bundle: "Bundle", settings: "Settings"
    ) -> Sequence[Figure]:
        """Compare with the probability of fraud that each transaction of the test window had; one that the truth does not name had none."""
        from finrisk_assets.modelling.evaluation import oracle

        test = _test_window(frame)
        joined = test[["transaction_id"]].merge(truth[self.truth], on="transaction_id", how="left", validate="one_to_one")
        true = joined.fraud_probability.fillna(0.0).to_numpy(dtype=float)
        probability = bundle.probability(_matrix(test, bundle.features))
        compared = oracle.compare(test.is_fraud.fillna(False).to_numpy(bool), probability, true)
        return [Figure(name, one.value, one.low, one.high, oracle.MEANINGS[name]) for name, one in compared.items()]


def lookback(source: "Source") -> timedelta:
    """Return how far back the history of a transaction of this source reaches."""
    from finrisk_assets.features.windows import find_reach_s

    return timedelta(seconds=max(find_reach_s(_declarations(source)).values()))


def _declarations(source: "Source") -> "tuple[Declaration, ...]":
    return features.select_features(source.tables["transactions"].columns)


def _test_window(frame: "pd.DataFrame") -> "pd.DataFrame":
    return frame.iloc[time_split.split_by_time(frame.occurred_at.to_numpy()).test]


def _matrix(frame: "pd.DataFrame", features: Sequence[Feature], positions: "np.ndarray | None" = None) -> "Rows":
    """Return the features of the rows at `positions`, or of all, as float32 of shape (n, d), without a second copy of the table."""
    import numpy as np

    rows = np.empty((len(frame if positions is None else positions), len(features)), np.float32)
    for at, feature in enumerate(features):
        column = frame[feature.name].to_numpy(np.float32, na_value=np.nan)
        rows[:, at] = column if positions is None else column[positions]
    return rows


def _days(frame: "pd.DataFrame") -> "np.ndarray":
    return frame.occurred_at.to_numpy().astype("datetime64[D]")


def _count_frauds(is_fraud: "pd.Series") -> int:
    """Return the number of known frauds; 0 where the source has no labels."""
    return int(is_fraud.fillna(False).sum())


def _is_judged_by_labels(test: "pd.DataFrame", bundle: "Bundle") -> bool:
    """Return whether the labels of the test window judge a bundle: they are enough, and its score is a probability of fraud."""
    is_probability = bundle.score_curve is not None and bool(bundle.score_curve.events)
    return is_probability and _count_frauds(test.is_fraud) >= MIN_FRAUDS


def _largest_amount(frame: "pd.DataFrame", train: "np.ndarray") -> dict[str, float]:
    """Return the largest amount that the model learns from, in 32 bits as its feature has it."""
    import numpy as np

    return {decide.LARGEST_LEARNED: float(np.float32(np.nanmax(frame.log_amount.to_numpy()[train])))} if "log_amount" in frame else {}


def _train_supervised(
    frame: "pd.DataFrame",
    window: "TimeSplit",
    rows: "Rows",
    validation: "Rows",
    isolation: "np.ndarray",
    spec: "BundleSpec",
    params: dict[str, Any],
    settings: "Settings",
    ledger_fit: "LedgerFit | None",
) -> TrainingResult:
    """Add the best supervised model and join its score with the isolation forest's."""
    import time

    import numpy as np

    from finrisk_assets.modelling.evaluation import metrics, plots
    from finrisk_assets.modelling.training import calibrate, provenance
    from finrisk_assets.modelling.training.candidates import place_on_device
    from finrisk_assets.modelling.training.convert import convert_estimator
    from finrisk_assets.scoring.score_curve import draw_score_curve

    fraud = frame.is_fraud.fillna(False).to_numpy(bool)
    labels, target = fraud[window.train], fraud[window.validation]
    sample = model.undersample(labels, settings.seed)
    margins: dict[str, np.ndarray] = {}
    fitted: dict[str, Any] = {}
    candidates: list[dict[str, Any]] = []
    estimators = model.candidates(spec.features, settings.seed, n_jobs=settings.threads)
    place_on_device(estimators, settings.device)
    seconds: dict[str, float] = {}
    for name in (name for name in estimators if name in model.JOINABLE):
        began = time.perf_counter()
        fitted[name] = estimators[name].fit(rows[sample], labels[sample].astype(int))
        seconds[name] = time.perf_counter() - began
    if ledger_fit is not None:
        boosted = {name: estimator for name, estimator in fitted.items() if hasattr(estimator, "get_booster")}
        fitted |= ledger_fit(boosted, _teaching_rows(frame.iloc[window.train], sample, labels, rows, spec.features))
    for name, estimator in fitted.items():
        margins[name] = model.compute_log_odds(estimator, validation)
        ap, area = metrics.average_precision(target, margins[name]), metrics.auc(target, margins[name])
        candidates.append({"model": name, "validation AP": ap, "AUC": area.value, "fit s": seconds[name]})
    candidates.append({"model": "isolation_forest", "validation AP": metrics.average_precision(target, isolation)})
    best = max(fitted, key=lambda name: float(next(row["validation AP"] for row in candidates if row["model"] == name)))
    joined = model.fit_join(target, {"supervised": margins[best], "isolation": isolation})
    margin = joined.margin({"supervised": margins[best], "isolation": isolation})
    candidates.append({"model": "joined", "validation AP": metrics.average_precision(target, margin)})
    supervised = convert_estimator(fitted[best], spec.features, validation[:2_000]).component
    calibrated = calibrate.fit(margin, target)
    probability = calibrated.calibration.apply(margin)
    days = len(np.unique(_days(frame)[window.validation]))
    ap = metrics.average_precision(target, margin)
    amounts = frame.log_amount.to_numpy(np.float32)[window.validation] if "log_amount" in frame else None
    losses = None if amounts is None else decide.expect_loss(probability, amounts)
    spec = replace(
        spec,
        components=(
            replace(supervised, weight=joined.weights["supervised"]),
            replace(spec.components[0], weight=joined.weights["isolation"]),
        ),
        intercept=joined.intercept,
        calibration=calibrated.calibration,
        score_curve=draw_score_curve(probability, target, days),
        loss_curve=None if losses is None else draw_score_curve(losses, target, days),
        metrics={"validation_average_precision": ap},
        golden_rows=provenance.pick_golden_rows(validation, margin),
    )
    params |= {
        "champion_candidate": best,
        "weight_supervised": joined.weights["supervised"],
        "weight_isolation": joined.weights["isolation"],
        "calibration": calibrated.form,
        "base_rate": float(labels.mean()),
    }
    spec = _with_values(spec, rows, validation)
    curves = {"joined": margin, best: margins[best], "isolation forest": isolation}
    return TrainingResult(spec, params, {"average_precision": ap}, candidates, {"candidates": plots.plot_roc_pr(target, curves)})


def _teaching_rows(
    taught: "pd.DataFrame", sample: "np.ndarray", labels: "np.ndarray", rows: "Rows", features: Sequence[Feature]
) -> "TeachingRows":
    """Return the drawn rows of the training window, and how to find and draw those of its time among other customers' transactions."""
    from finrisk_assets.domains.ledger_fit import RowEncoder, TeachingRows, select_known, to_batch

    encoder = RowEncoder(TransactionAnomaly.keys[0].name, TransactionAnomaly.label, features, quiet_share=model.GENUINE_SHARE)

    def select(table: "LazyTable") -> "LazyTable":
        known = table.mutate(is_fraud=table.is_fraud.fill_null(False))
        return select_known(known, encoder.label, taught, (TransactionAnomaly.decision_time,))

    return TeachingRows(to_batch(taught[encoder.key][sample], labels[sample], rows[sample]), select, encoder)


def _with_values(spec: "BundleSpec", train: "Rows", validation: "Rows") -> "BundleSpec":
    """Return the bundle with what training saw of each feature."""
    from finrisk_assets.modelling.evaluation.explain import with_values

    group = TransactionAnomaly.reference_group
    return with_values(spec, train, validation, group_name=group, is_safer_half=TransactionAnomaly.is_reference_safer)


def _fraud_figures(
    test: "pd.DataFrame", fraud: "np.ndarray", margin: "np.ndarray", probability: "np.ndarray", settings: "Settings"
) -> list[Figure]:
    """Return the figures against the labels: over the whole window, and week by week."""
    import numpy as np

    from finrisk_assets.modelling.evaluation import fraud_metrics, metrics

    days, cards = _days(test), test.customer_id.to_numpy()
    daily = fraud_metrics.fraud_scores(days, cards, fraud, margin)
    area = metrics.auc(fraud, margin)
    ap = metrics.bootstrap_interval(metrics.average_precision, fraud, margin, labels=fraud, draws=AP_DRAWS, seed=settings.seed)
    weeks = (days - days.min()).astype(int) // 7
    weekly = [
        metrics.average_precision(fraud[weeks == week], margin[weeks == week]) for week in np.unique(weeks) if fraud[weeks == week].any()
    ]
    return [
        Figure("auc", area.value, area.low, area.high, "area under the ROC curve, DeLong"),
        Figure("average_precision", ap.value, ap.low, ap.high, "area under the precision-recall curve, bootstrap"),
        *(Figure(name, value, meaning="mean over the days") for name, value in daily.items() if "_at_" in name),
        Figure("average_precision_weekly", float(np.mean(weekly)), meaning="mean over the weeks, prequential"),
        Figure("average_precision_weekly_sd", float(np.std(weekly)), meaning="standard deviation over the weeks"),
        Figure("brier", metrics.brier(fraud, probability), meaning="mean squared error of the probability"),
        Figure("expected_calibration_error", metrics.expected_calibration_error(fraud, probability)),
        Figure("fraud_rate", float(fraud.mean()), meaning="observed"),
        Figure("mean_probability", float(probability.mean()), meaning="said by the model"),
    ]


def _review_figures(test: "pd.DataFrame", fraud: "np.ndarray", probability: "np.ndarray", bundle: "Bundle") -> list[Figure]:
    """Return what review by worth saves beside review of the highest scores; nothing where the source states no amounts."""
    import numpy as np

    from finrisk_assets.modelling.evaluation.review_worth import PERIOD_DAYS, compare_review_rules

    if bundle.loss_curve is None:
        return []
    amount, people = np.expm1(test.log_amount.to_numpy(np.float64)), test.customer_id.to_numpy()
    compared = compare_review_rules(probability, amount, fraud, people, len(np.unique(_days(test))), bundle, seed=bundle.seed)
    of, gain = f"in {PERIOD_DAYS} days", compared.gain
    return [
        Figure("review_gain", gain.value, gain.low, gain.high, f"currency {of} by which review by worth saves more than by score"),
        Figure("review_saved_by_worth", compared.saved_by_worth, meaning=f"currency {of}: frauds found less the cost of the reviews"),
        Figure("review_saved_by_score", compared.saved_by_score, meaning=f"currency {of}, with the highest scores to capacity"),
        Figure("reviews_by_worth", compared.reviews_by_worth, meaning=f"reviews {of}"),
        Figure("reviews_by_score", compared.reviews_by_score, meaning=f"reviews {of}, with the highest scores to capacity"),
    ]


TRANSACTION_ANOMALY = TransactionAnomaly()
