"""The domains that answer yes or no: they train candidates on a frozen split, and evaluate one bundle on its test window.

A subclass names its label and the rows that may teach.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from finrisk_assets.domains.base import Domain, Evaluation, Fault, Figure, ScoredWindow, TooFewRowsError, TrainingResult
from schemas.features import Feature
from schemas.ledger import IS_TEST

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.domains.ledger_fit import LedgerFit
    from finrisk_assets.ledger.sources.source_definition import Source
    from finrisk_assets.modelling.training.candidates import Candidate
    from finrisk_assets.modelling.training.split import Split
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.scoring.feature_values import LevelWeights
    from finrisk_assets.scoring.spec import BundleSpec
    from finrisk_assets.settings import Settings

SHAP_ROWS = 2_000
"""Rows of the test window whose contributions the figures and the picture of importance show."""
MIN_TRAINING_ROWS = 10
"""Rows of the rarer outcome in each window, below which no model is trained."""
MIN_JUDGED_ROWS, MIN_JUDGED_PEOPLE = 20, 50
"""Rows of the rarer outcome, and people, in the test window, below which the gate cannot judge a model: an AUC's interval is then .2 wide
and more, and the errors of few people's months do not average out.
"""
MAX_CALIBRATION_GAP = 0.02
"""Probability: by how much the mean probability may miss the observed rate, beyond what chance explains."""
SLOPE_BOUNDS = (0.8, 1.25)
"""Bounds of the calibration slope: at 0.8 the model is a quarter surer than its outcomes allow, at 1.25 a fifth less sure."""
MAX_APPROVED_GAP = 0.01
"""Probability: by how much the mean probability of the approved may miss their rate, beyond what chance explains. It is half of what is
allowed for all, because the approved are the ones whose losses are paid for.
"""
MIN_APPROVED_ROWS = 30
"""Approved rows, in the test and the validation window, below which their calibration is not judged."""
INTERVAL_WIDENING = 1.3
"""Factor by which the gate widens an interval, from 95 % to 99 %: of twenty demands at 95 %, chance would break one."""
MAX_HALF_WIDTH = 0.05
"""Half the width of an AUC's interval up to which a window is large enough to prove an advantage; a smaller window can only disprove it."""


class ClassifierDomain(Domain):
    """A domain that learns the probability of its label.

    Attributes
    ----------
    outcome
        Name of the label in figures: ``default`` gives ``default_rate`` and ``mean_default``.
    panel
        The column that names who comes back month after month. A third of them is kept for validation and test alone, and rows whose
        outcome was not known when the next window began are left out. Empty where nobody comes back.
    truth_key, truth_probability
        Columns of the table `truth`: those that name a row (columns of the feature table too), and the true probability.
    """

    outcome: ClassVar[str]
    panel: ClassVar[str] = ""
    truth_key: ClassVar[tuple[str, ...]]
    truth_probability: ClassVar[str] = "true_probability"

    @property
    def key(self) -> str:
        """The column that names a row of the feature table."""
        return self.keys[0].name

    # What a subclass decides ---------------------------------------------------------------------------------------------------

    def candidates(self, features: Sequence[Feature], seed: int, threads: int, n_rows: int) -> dict[str, Any]:
        """Return unfitted estimators by name; `n_rows` of them train."""
        from finrisk_assets.modelling.training import candidates

        return candidates.build_candidates(features, seed, threads, n_rows)

    def find_unlearned(self, features: Sequence[Feature]) -> Collection[str]:
        """Return the features that stay in the model's rows but from which no candidate learns."""
        return ()

    def complete_spec(self, spec: "BundleSpec", train: "pd.DataFrame", validation: "pd.DataFrame", settings: "Settings") -> "BundleSpec":
        """Return the bundle with what the domain's decisions need beside the probability, from the training and validation window."""
        return spec

    def export_files(self, candidates: "Sequence[Candidate]", spec: "BundleSpec") -> Mapping[str, bytes]:
        """Return files, by name, of the fitted candidates for people and other systems; `spec` has the levels of their categories."""
        return {}

    # Training ------------------------------------------------------------------------------------------------------------------

    def split(self, labelled: "pd.DataFrame", settings: "Settings") -> "Split":
        """Return the frozen split of the rows that `labelled_rows` returned."""
        from finrisk_assets.modelling.training.split import split

        times = labelled[self.decision_time]
        rules: dict[str, Any] = {}
        if self.panel:
            rules = {"groups": labelled[self.panel].tolist(), "holdout": 1 / 3, "known": labelled.outcome_known_at}
        elif times.isna().all() and labelled.customer_id.duplicated().any():  # a person's rows without times stay on one side
            rules = {"groups": labelled.customer_id.tolist()}
        if IS_TEST.name in labelled:
            rules["is_test"] = labelled[IS_TEST.name].fillna(False).astype(bool)
        return split(labelled[self.key].tolist(), labelled[self.label], times, **rules, seed=settings.seed)

    def _split_enough(self, labelled: "pd.DataFrame", settings: "Settings") -> "Split":
        """Return the split, or raise where a window has too few rows of either outcome."""
        try:
            windows = self.split(labelled, settings)
        except ValueError as error:
            raise TooFewRowsError(f"{len(labelled)} rows with a known outcome cannot be split: {error}") from error
        for name, part in (("training", windows.train), ("validation", windows.validation), ("test", windows.test)):
            n_rarer = _count_rarer(labelled[self.label].to_numpy(dtype=bool)[part])
            if n_rarer < MIN_TRAINING_ROWS:
                raise TooFewRowsError(
                    f"the {name} window has {n_rarer} rows of the rarer outcome among {len(part)}, and {MIN_TRAINING_ROWS} are needed: "
                    "wait for more outcomes or map a longer ledger"
                )
        return windows

    def select_teaching_rows(self, table: "LazyTable", taught: "pd.DataFrame") -> "LazyTable":
        """Return the rows of other customers that may teach beside a training window: of its times, with outcomes known by then."""
        from finrisk_assets.domains.ledger_fit import select_known

        rows = select_known(self.training_population(table), self.label, taught, (self.decision_time, "outcome_known_at"))
        return rows.filter(~rows[IS_TEST.name].fill_null(False)) if IS_TEST.name in rows.columns else rows

    def train(
        self,
        frame: "pd.DataFrame",
        features: tuple[Feature, ...],
        source: "Source",
        settings: "Settings",
        ledger_fit: "LedgerFit | None" = None,
    ) -> TrainingResult:
        """Fit the candidates, choose on the validation window, where they are calibrated, and describe the bundle of the choice."""
        from finrisk_assets.domains.ledger_fit import RowEncoder, TeachingRows, to_batch
        from finrisk_assets.modelling.evaluation import plots
        from finrisk_assets.modelling.evaluation.explain import with_values
        from finrisk_assets.modelling.training import provenance
        from finrisk_assets.modelling.training.binning import cross_fit_levels
        from finrisk_assets.modelling.training.candidates import compute_margin, convert_model, fit_candidates, place_on_device, to_matrix
        from finrisk_assets.modelling.training.model_registry import model_name
        from finrisk_assets.scoring.spec import BundleSpec

        labelled = self.labelled_rows(frame, settings)
        labels, window = labelled[self.label].to_numpy(dtype=bool), self._split_enough(labelled, settings)
        filled = _with_values_in(labelled.iloc[window.train], features)
        empty, features = [feature.name for feature in features if feature not in filled], filled
        features, categories = _fit_categories(labelled.iloc[window.train], features, labels[window.train])
        rows = to_matrix(labelled, features)
        estimators = self.candidates(features, settings.seed, 1, len(window.train))
        place_on_device(estimators, settings.device)
        weighed, taught, unlearned = rows.copy(), rows.copy(), set(self.find_unlearned(features))
        outcomes, people = labels[window.train], labelled.customer_id.iloc[window.train]
        for column, weights in _category_columns(features, categories):
            weighed[:, column] = taught[:, column] = weights.encode(rows[:, column])
            taught[window.train, column] = cross_fit_levels(weights, rows[window.train, column], outcomes, people, settings.seed)
        # A constant teaches nothing: its weight is 0, and no tree splits on it.
        blank = tuple(column for column, feature in enumerate(features) if feature.name in unlearned)
        taught[:, list(blank)] = 0.0

        def refit(models: Mapping[str, Any]) -> Mapping[str, Any]:
            if ledger_fit is None or not models:
                return {}
            teaching = labelled.iloc[window.train]
            encoder = RowEncoder(self.key, self.label, features, dict(_category_columns(features, categories)), blank)
            sample = to_batch(teaching[self.key], labels[window.train], taught[window.train])
            return ledger_fit(models, TeachingRows(sample, lambda table: self.select_teaching_rows(table, teaching), encoder))

        candidates = fit_candidates(taught, labels, window, estimators, settings.threads, labelled.customer_id, refit)
        best, validation = candidates[0], weighed[window.validation]
        components, intercept = convert_model(best.estimator, features, validation)
        times = labelled[self.decision_time].iloc[window.train]
        first, last = times.min(), times.max()
        spec = BundleSpec(
            name=model_name(self.name),
            domain=self.name,
            source=source.name,
            features=features,
            components=components,
            intercept=intercept,
            calibration=best.fitted_calibration.calibration,
            metrics={"validation_auc": best.auc.value, "validation_log_loss": best.log_loss},
            golden_rows=provenance.pick_golden_rows(rows[window.validation], compute_margin(best.estimator, validation)[0]),
            seed=settings.seed,
            data_sha256=provenance.data_sha256(labelled),
            code_sha256=provenance.code_sha256(self.group),
            training_window=None if first is None or first != first else (first.date().isoformat(), last.date().isoformat()),
            libraries=provenance.library_versions(),
            categories=categories,
        )
        completed = self.complete_spec(spec, labelled.iloc[window.train], labelled.iloc[window.validation], settings)
        return TrainingResult(
            with_values(
                completed,
                rows[window.train],
                rows[window.validation],
                group_name=self.reference_group,
                is_safer_half=self.is_reference_safer,
            ),
            params={
                "champion_candidate": best.name,
                "calibration": best.fitted_calibration.form,
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
                    "above the best": candidate.excess_loss.value,
                    "above, at least": candidate.excess_loss.low,
                    "above, at most": candidate.excess_loss.high,
                    "fit s": candidate.seconds,
                }
                for candidate in candidates
            ],
            plots={
                "candidates": plots.plot_roc_pr(
                    labels[window.validation], {candidate.name: candidate.probability(validation) for candidate in candidates}
                )
            },
            files=self.export_files(candidates, spec),
            notes=[
                *(f"the model does without {name}: no row of the training window has a value" for name in empty),
                *(_describe_levels(name, weights) for name, weights in categories.items()),
            ],
        )

    # Evaluation ----------------------------------------------------------------------------------------------------------------

    def evaluation_rows(self, table: "LazyTable") -> "LazyTable":
        return table.filter(table[self.label].notnull())

    def score_test_window(self, frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> ScoredWindow:
        """Score the frozen test window."""
        return self._score_window("test", frame, bundle, settings)

    def _score_window(self, name: str, frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> ScoredWindow:
        from finrisk_assets.modelling.training.candidates import to_matrix

        labelled = self.labelled_rows(frame, settings)
        window = labelled.iloc[getattr(self.split(labelled, settings), name)].reset_index(drop=True)
        rows = to_matrix(window, bundle.features)
        return ScoredWindow(window, rows, window[self.label].to_numpy(dtype=bool), bundle.probability(rows))

    def evaluate(self, frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> Evaluation:
        """Return figures and pictures of a bundle on the frozen test window."""
        import numpy as np

        from finrisk_assets.modelling.evaluation import explain, metrics, plots
        from finrisk_assets.modelling.packs import evidence

        window = self.score_test_window(frame, bundle, settings)
        validation = self._score_window("validation", frame, bundle, settings)
        labels, probability = window.labels, window.probability
        observed = metrics.jeffreys_test(labels, probability, ["all"] * len(labels))[0]
        sample = window.rows[:SHAP_ROWS]
        scored = bundle.score(sample)
        gap = float(np.abs(scored.base + scored.contributions.sum(axis=1) - bundle.margin(sample)).max())
        meanings = {"auc": "area under the ROC curve, DeLong", "expected_calibration_error": "mean distance of probability and rate"}
        summary = metrics.compute_metrics(labels, probability, seed=settings.seed)
        figures = [Figure(name, interval.value, interval.low, interval.high, meanings.get(name, "")) for name, interval in summary.items()]
        figures += [
            Figure(f"{self.outcome}_rate", float(labels.mean()), observed.low, observed.high, "observed, Jeffreys interval"),
            Figure(f"mean_{self.outcome}", float(probability.mean()), meaning="said by the model"),
            calibration_in_the_large(window, validation),
            *calibration_of_approved(self._select_approved(window, bundle), self._select_approved(validation, bundle), self.outcome),
            Figure("explanation_gap", gap, meaning="largest distance of base + contributions from the score"),
            Figure("n_test", float(len(labels)), meaning="rows in the test window"),
            Figure("n_rarer", float(_count_rarer(labels)), meaning="rows of the rarer outcome in the test window"),
            Figure("n_people", float(window.frame.customer_id.nunique()), meaning="people in the test window"),
        ]
        shares = explain.rank_features(bundle, scored.contributions)
        figures += [Figure(f"importance_{share.feature}", share.share, meaning="share of mean |SHAP|") for share in shares[:10]]
        names = [feature.name for feature in bundle.features]
        decision_thresholds = {name: value for name, value in bundle.thresholds.items() if name.endswith("_from")}
        return Evaluation(
            figures,
            {
                "roc_pr": plots.plot_roc_pr(labels, {"challenger": probability}),
                "calibration": plots.plot_calibration(labels, probability),
                "scores": plots.plot_scores(labels, probability, decision_thresholds),
                "shap": plots.plot_shap_summary(scored.contributions, sample, names),
            },
            {
                "rows": len(labels),
                # Where batch and service decide at better terms than the row's, what is served has another distribution.
                "scores": evidence.measure_scores(probability) if self.monitoring.is_scored_as_it_stands else [],
                "effects": evidence.measure_effects(scored.contributions, sample, names),
                **evidence.measure_outcomes(labels, probability, probability, window.frame.customer_id),
            },
        )

    def _select_approved(self, window: ScoredWindow, bundle: "Bundle") -> ScoredWindow | None:
        """Return the rows that are decided for the person without a referral; None where no decision goes for or against a person."""
        import numpy as np

        favourable = list(self.find_favourable(window, bundle).values())
        return window.select(np.logical_and.reduce(favourable)) if favourable else None

    def find_faults(self, figures: Mapping[str, Figure]) -> list[Fault]:
        """Return the demands of ranking and calibration that a model with these figures does not meet.

        The mean probability must follow the rate, among all and among the approved: the demand fails where the interval of the gap lies
        beyond `MAX_CALIBRATION_GAP` or `MAX_APPROVED_GAP`. So a small window fails only for what chance does not explain, and a large one
        for little more than the gap that is allowed. The slope's interval must not lie outside of `SLOPE_BOUNDS`.
        """
        for metric, least, what in (
            ("n_rarer", MIN_JUDGED_ROWS, "rows of the rarer outcome"),
            ("n_people", MIN_JUDGED_PEOPLE, "people"),
        ):
            if metric in figures and figures[metric].value < least:
                seen = f"the test window has {figures[metric].value:.0f} {what}, and {least} are needed to judge a model"
                return [Fault("rows", f"{seen}: wait for more outcomes or map a longer ledger")]
        faults = []
        auc, rate, mean = figures["auc"], figures[f"{self.outcome}_rate"], figures[f"mean_{self.outcome}"]
        gap = figures["calibration_in_the_large"]
        if auc.low is None or auc.low <= 0.5:
            faults.append(Fault("discrimination", f"the AUC of {auc.value:.3f} may be chance: its interval begins at {auc.low}"))
        if excludes(gap, -MAX_CALIBRATION_GAP, MAX_CALIBRATION_GAP):
            faults.append(Fault("calibration", f"the mean probability of {mean.value:.4f} is far from the rate of {rate.value:.4f}"))
        approved = figures.get("approved_gap")
        if approved is not None and excludes(approved, -MAX_APPROVED_GAP, MAX_APPROVED_GAP):
            rate, mean = figures[f"approved_{self.outcome}_rate"], figures[f"approved_mean_{self.outcome}"]
            faults.append(
                Fault("calibration", f"among the approved the mean probability is {mean.value:.4f} and the rate {rate.value:.4f}")
            )
        slope = figures.get("calibration_slope")
        if slope is not None and excludes(slope, *SLOPE_BOUNDS):
            low, high = SLOPE_BOUNDS
            faults.append(Fault("calibration", f"the calibration slope of {slope.value:.2f} is far from 1: {low:g} to {high:g} is allowed"))
        return faults

    def select_truth(self, name: str, truth: "LazyTable", rows: "LazyTable") -> "LazyTable":
        return truth.semi_join(rows, [*self.truth_key]) if name == self.truth else truth

    def compare_with_truth(
        self, frame: "pd.DataFrame", truth: "Mapping[str, pd.DataFrame]", bundle: "Bundle", settings: "Settings"
    ) -> Sequence[Figure]:
        """Compare a bundle with the true probabilities, on the rows of the test window whose truth is known."""
        from finrisk_assets.modelling.evaluation import oracle

        window = self.score_test_window(frame, bundle, settings)
        joined = window.frame[[*self.truth_key]].merge(truth[self.truth], on=[*self.truth_key], how="left", validate="one_to_one")
        true = joined[self.truth_probability].to_numpy(dtype=float)
        has_truth = true == true
        compared = oracle.compare(window.labels[has_truth], window.probability[has_truth], true[has_truth])
        return [
            Figure(name, figure.value, meaning=oracle.MEANINGS[name])
            if name in oracle.WITHOUT_INTERVAL
            else Figure(name, figure.value, figure.low, figure.high, oracle.MEANINGS[name])
            for name, figure in compared.items()
        ]


def score_by_threshold(
    frame: "pd.DataFrame", champion: "Bundle", decide: "Callable[[np.ndarray, Mapping[str, float]], Sequence[str]]"
) -> dict[str, Any]:
    """Return margin, probability and decision of each row, where a decision is no more than a threshold."""
    from finrisk_assets.modelling.training.candidates import to_matrix

    margin = champion.margin(to_matrix(frame, champion.features))
    probability = champion.calibration.apply(margin)
    return {"score": margin, "probability": probability, "decision": decide(probability, champion.thresholds)}


def excludes(figure: Figure, low: float, high: float) -> bool:
    """Return whether the figure's interval, widened by `INTERVAL_WIDENING`, lies below `low` or above `high`."""
    lower, upper = (figure.value if bound is None else bound for bound in (figure.low, figure.high))
    return (
        figure.value + INTERVAL_WIDENING * (upper - figure.value) < low or figure.value - INTERVAL_WIDENING * (figure.value - lower) > high
    )


def is_advantage(figure: Figure) -> bool:
    """Return whether a difference of AUCs is above 0, as far as its sample can tell.

    Where the interval is no wider than `MAX_HALF_WIDTH` allows, all of it must lie above 0: a large sample proves an advantage that
    exists. A wider interval could not prove an advantage worth having; it must not lie below 0.
    """
    if figure.low is None or figure.high is None:
        return False
    return figure.low > 0 if figure.high - figure.low <= 2 * MAX_HALF_WIDTH else figure.high > 0


def net_benefit(window: ScoredWindow, decision_thresholds: Sequence[float]) -> "np.ndarray":
    """Return the net benefit of acting on each row, shape (n,), in events found: the mean over `decision_thresholds`.

    A found event counts 1 and a false alarm costs ``t / (1 - t)``, the odds at which a threshold t says that acting begins to pay
    (Vickers & Elkin, *Medical Decision Making* 26, 2006).
    """
    import numpy as np

    p, labels = window.probability, window.labels
    benefit: np.ndarray = np.mean([np.where(p >= t, np.where(labels, 1.0, -t / (1 - t)), 0.0) for t in decision_thresholds], axis=0)
    return benefit


def _with_values_in(rows: "pd.DataFrame", features: Sequence[Feature]) -> tuple[Feature, ...]:
    """Return the features of which a row of the training window has a value: an estimator cannot bin a column without one.

    Raises
    ------
    TooFewRowsError
        If no feature has a value.
    """
    filled = tuple(feature for feature in features if rows[feature.name].notna().any())
    if not filled:
        raise TooFewRowsError("no feature has a value in the training window: map columns that are filled")
    return filled


def _fit_categories(
    rows: "pd.DataFrame", features: Sequence[Feature], labels: "np.ndarray"
) -> "tuple[tuple[Feature, ...], dict[str, LevelWeights]]":
    """Return the features with the levels that the training rows have, and the weights of the levels of each category."""
    from finrisk_assets.modelling.training.binning import fit_levels

    fitted = {feature.name: fit_levels(feature, rows[feature.name], labels) for feature in features if feature.is_category}
    with_levels = tuple(fitted[feature.name][0] if feature.name in fitted else feature for feature in features)
    return with_levels, {name: weights for name, (_, weights) in fitted.items()}


def _category_columns(features: Sequence[Feature], categories: "Mapping[str, LevelWeights]") -> "list[tuple[int, LevelWeights]]":
    return [(column, categories[feature.name]) for column, feature in enumerate(features) if feature.is_category]


def _describe_levels(name: str, weights: "LevelWeights") -> str:
    n_rare = sum(rows < weights.min_rows for rows in weights.rows)
    return f"{name} has {len(weights.rows)} levels, of which {n_rare} with fewer than {weights.min_rows} training rows weigh as one"


def _count_rarer(labels: "np.ndarray") -> int:
    """Return the number of rows with the rarer outcome."""
    return min(int(labels.sum()), int((~labels).sum()))


def calibration_in_the_large(test: ScoredWindow, validation: ScoredWindow) -> Figure:
    """Return the mean probability less the rate on the test window, with the interval of a calibration that is right.

    Rows of one customer are not independent: they count as one draw (Liang & Zeger, *Biometrika* 1986). The calibration was learned on
    the validation window, which is a sample too: its error adds to that of the test window.
    """
    from statistics import NormalDist

    from finrisk_assets.modelling.evaluation.metrics import CONFIDENCE_LEVEL

    value = float((test.probability - test.labels).mean())
    half = NormalDist().inv_cdf(0.5 + CONFIDENCE_LEVEL / 2) * (_variance(test) + _variance(validation)) ** 0.5
    meaning = "mean probability less the rate; the interval counts a customer once, and the calibration's own error"
    return Figure("calibration_in_the_large", value, value - half, value + half, meaning)


def calibration_of_approved(test: ScoredWindow | None, validation: ScoredWindow | None, outcome: str) -> list[Figure]:
    """Return the rate and the mean probability of the approved rows, and their gap; nothing where too few are approved.

    The rate has Jeffreys' interval, Beta(D + 1/2, N - D + 1/2). N and D shrink by the design effect, the factor by which rows of one
    customer widen the variance of a mean (Kish, *Survey Sampling* 1965), and once more because the calibration was learned on the
    approved rows of the validation window, which are a sample too.

    Parameters
    ----------
    test, validation
        The approved rows of the windows, scored by the bundle; None where the domain approves nobody.
    outcome
        The outcome's name in figures.
    """
    from scipy.stats import beta

    from finrisk_assets.modelling.evaluation.metrics import CONFIDENCE_LEVEL

    if test is None or validation is None:
        return []
    n, n_learned = len(test.labels), len(validation.labels)
    if min(n, n_learned) < MIN_APPROVED_ROWS:
        return []
    probability = test.probability
    rate, mean = float(test.labels.mean()), float(probability.mean())
    design_effect = _variance(test) / max(float((probability * (1 - probability)).sum()) / n**2, 1e-300)
    size = n / max(design_effect, 1.0) / (1 + n / n_learned)
    tails = ((1 - CONFIDENCE_LEVEL) / 2, (1 + CONFIDENCE_LEVEL) / 2)
    low, high = (float(beta.ppf(tail, rate * size + 0.5, (1 - rate) * size + 0.5)) for tail in tails)
    return [
        Figure(f"approved_{outcome}_rate", rate, low, high, "observed, Jeffreys interval of independent people"),
        Figure(f"approved_mean_{outcome}", mean, meaning="said by the model"),
        Figure("approved_gap", mean - rate, min(mean - high, mean - rate), max(mean - low, mean - rate), "said less observed"),
    ]


def _variance(window: ScoredWindow) -> float:
    """Return the variance of the window's mean gap by customer, and no less than that of independent outcomes of these probabilities."""
    from finrisk_assets.modelling.evaluation.metrics import clustered_variance

    p = window.probability
    by_customer = clustered_variance(p - window.labels, window.frame.customer_id)
    return max(by_customer, float((p * (1 - p)).sum()) / len(p) ** 2)


def _parameters(estimator: Any) -> Mapping[str, Any]:
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    return {name: value for name, value in last.get_params().items() if value is not None}
