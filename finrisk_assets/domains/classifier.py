"""What the domains that answer yes or no have in common: train candidates on a frozen split, judge one bundle, hold it against the truth.

A domain says which rows may teach, what its label is and where its decisions turn; the rest is the same in all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from finrisk_assets.domains.base import Evaluation, Fault, Figure, TestWindow, Trained
from schemas.features import Feature

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from finrisk_assets.ledger.sources.source_definition import Source
    from finrisk_assets.modelling.training.candidates import Candidate
    from finrisk_assets.modelling.training.split import Split
    from finrisk_assets.scoring.bundle import Bundle
    from finrisk_assets.scoring.spec import BundleSpec
    from finrisk_assets.settings import Settings

SHAP_ROWS = 2_000
LARGEST_DRIFT = 0.02
"""By how much the mean probability may miss the observed rate, beyond what chance explains."""
SLOPE = (0.5, 2.0)
"""Within what the slope of the calibration is to lie: a half is a model twice as sure of itself as it may be, two one half as sure."""
INTERVAL_WIDENING = 1.3
"""By how much the gate widens an interval, 95 % to 99 %: it makes many demands, and chance would break one of twenty."""
TELLING = 0.05
"""Half the width of an AUC's interval up to which a window is large enough to prove an advantage; a smaller one can only disprove it."""


@dataclass(frozen=True)
class Classifier:
    """How one domain learns a probability.

    Attributes
    ----------
    domain, package
        The domain's name, and the package of its code where that has another name.
    key, label, moment
        The columns that name a row, say what happened, and when the decision fell.
    known
        The rows of the feature table that may teach and test: those whose outcome is known and had its time.
    thresholds
        Where decisions turn, from the settings.
    candidates
        From (features, seed, threads, rows to train on) to unfitted models by name; `modelling.candidates.candidates` unless said.
    panel
        The column that names who comes back month after month. A third of them is kept for validation and test alone, and rows whose
        outcome was not known when the next window began are left out.
    outcome
        What the label is called in figures: ``default`` gives ``default_rate`` and ``mean_default``.
    refine
        Adds to the bundle what the domain's decisions need beside the probability; takes the specification, the rows of the
        training and of the validation window as frames, and the settings.
    export
        From the fitted candidates to files that people and other systems use, by name.
    """

    domain: str
    key: str
    label: str
    moment: str
    known: "Callable[[pd.DataFrame, Settings], pd.DataFrame]"
    thresholds: "Callable[[Settings], Mapping[str, float]]"
    candidates: "Callable[[Sequence[Feature], int, int, int], dict[str, Any]] | None" = None
    package: str = ""
    panel: str = ""
    outcome: str = "event"
    refine: "Callable[[BundleSpec, pd.DataFrame, pd.DataFrame, Settings], BundleSpec] | None" = None
    export: "Callable[[Sequence[Candidate]], Mapping[str, bytes]] | None" = None

    def split(self, known: "pd.DataFrame", settings: "Settings") -> "Split":
        """The frozen split of the rows that `known` returned."""
        from finrisk_assets.modelling.training.split import split

        panel: dict[str, Any] = {}
        if self.panel:
            panel = {"groups": known[self.panel].tolist(), "holdout": 1 / 3, "known": known.outcome_known_at}
        return split(known[self.key].tolist(), known[self.label], known[self.moment], **panel, seed=settings.seed)

    def train(self, frame: "pd.DataFrame", declared: tuple[Feature, ...], source: "Source", settings: "Settings") -> Trained:
        """Fit the candidates, take the best of the validation window, calibrate it there, and describe its bundle."""
        from finrisk_assets.modelling.evaluation import plots
        from finrisk_assets.modelling.training import candidates as tried
        from finrisk_assets.modelling.training import provenance
        from finrisk_assets.modelling.training.convert import component_from
        from finrisk_assets.modelling.training.model_registry import model_name
        from finrisk_assets.scoring.spec import BundleSpec

        known = self.known(frame, settings)
        rows, labels, window = tried.matrix(known, declared), known[self.label].to_numpy(dtype=bool), self.split(known, settings)
        models = (self.candidates or tried.candidates)(declared, settings.seed, 1, len(window.train))
        found = tried.fit_all(rows, labels, window, models, settings.threads)
        best, validation = found[0], rows[window.validation]
        first, last = known[self.moment].iloc[window.train].min(), known[self.moment].iloc[window.train].max()
        spec = BundleSpec(
            name=model_name(self.domain),
            domain=self.domain,
            source=source.name,
            features=declared,
            components=(component_from(best.estimator, declared, validation).component,),
            calibration=best.calibrated.calibration,
            thresholds=self.thresholds(settings),
            metrics={"validation_auc": best.auc.value, "validation_log_loss": best.log_loss},
            golden_rows=provenance.golden_rows(validation, tried.margin(best.estimator, validation)[0]),
            seed=settings.seed,
            data_sha256=provenance.data_sha256(known),
            code_sha256=provenance.code_sha256(self.package or self.domain),
            training_window=None if first is None or first != first else (first.date().isoformat(), last.date().isoformat()),
            libraries=provenance.libraries(),
        )
        if self.refine is not None:
            spec = self.refine(spec, known.iloc[window.train], known.iloc[window.validation], settings)
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
            plots={"candidates": plots.roc_pr(labels[window.validation], {one.name: one.probability(validation) for one in found})},
            files=self.export(found) if self.export else {},
        )

    def test(self, frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> TestWindow:
        """The frozen test window, scored by a bundle."""
        return self._window("test", frame, bundle, settings)

    def _window(self, name: str, frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> TestWindow:
        from finrisk_assets.modelling.training.candidates import matrix

        known = self.known(frame, settings)
        held = known.iloc[getattr(self.split(known, settings), name)].reset_index(drop=True)
        rows = matrix(held, bundle.features)
        return TestWindow(held, rows, held[self.label].to_numpy(dtype=bool), bundle.probability(rows))

    def evaluate(self, frame: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> Evaluation:
        """Figures and pictures of a bundle on the frozen test window."""
        import numpy as np

        from finrisk_assets.modelling.evaluation import explain, plots
        from finrisk_assets.modelling.evaluation import metrics as evaluate

        window = self.test(frame, bundle, settings)
        labels, probability = window.labels, window.probability
        observed = evaluate.jeffreys(labels, probability, ["all"] * len(labels))[0]
        sample = window.rows[:SHAP_ROWS]
        scored = bundle.score(sample)
        gap = float(np.abs(scored.base + scored.contributions.sum(axis=1) - bundle.margin(sample)).max())
        meanings = {"auc": "area under the ROC curve, DeLong", "expected_calibration_error": "mean distance of probability and rate"}
        summary = evaluate.summary(labels, probability, seed=settings.seed)
        figures = [Figure(name, one.value, one.low, one.high, meanings.get(name, "")) for name, one in summary.items()]
        figures += [
            Figure(f"{self.outcome}_rate", float(labels.mean()), observed.low, observed.high, "observed, Jeffreys interval"),
            Figure(f"mean_{self.outcome}", float(probability.mean()), meaning="said by the model"),
            _in_the_large(window, self._window("validation", frame, bundle, settings)),
            Figure("explanation_gap", gap, meaning="largest distance of base + contributions from the score"),
            Figure("n_test", float(len(labels)), meaning="rows in the test window"),
        ]
        shares = explain.importance(bundle, scored.contributions)
        figures += [Figure(f"importance_{one.feature}", one.share, meaning="share of mean |SHAP|") for one in shares[:10]]
        names = [feature.name for feature in bundle.features]
        decision_thresholds = {name: value for name, value in bundle.thresholds.items() if name.endswith("_from")}
        return Evaluation(
            figures,
            {
                "roc_pr": plots.roc_pr(labels, {"challenger": probability}),
                "calibration": plots.calibration(labels, probability),
                "scores": plots.scores(labels, probability, decision_thresholds),
                "shap": plots.shap_summary(scored.contributions, sample, names),
            },
        )

    def gate(self, figures: Mapping[str, Figure]) -> list[Fault]:
        """Why a model with these figures may not decide; empty if it may.

        A probability must follow the rate: that fails where the interval of its miss lies beyond `LARGEST_DRIFT`. So a small window fails
        only for what chance does not explain, and a large one for little more than the miss that is allowed.
        """
        faults = []
        auc, rate, mean = figures["auc"], figures[f"{self.outcome}_rate"], figures[f"mean_{self.outcome}"]
        drift = figures["calibration_in_the_large"]
        if auc.low is None or auc.low <= 0.5:
            faults.append(Fault("discrimination", f"the AUC of {auc.value:.3f} may be chance: its interval begins at {auc.low}"))
        if excludes(drift, -LARGEST_DRIFT, LARGEST_DRIFT):
            faults.append(Fault("calibration", f"the mean probability of {mean.value:.4f} is far from the rate of {rate.value:.4f}"))
        slope = figures.get("calibration_slope")
        if slope is not None and excludes(slope, *SLOPE):
            faults.append(
                Fault("calibration", f"the calibration slope of {slope.value:.2f} is far from 1: {SLOPE[0]:g} to {SLOPE[1]:g} is allowed")
            )
        return faults

    def oracle(
        self, truth_key: Sequence[str], probability: str
    ) -> "Callable[[pd.DataFrame, pd.DataFrame, Bundle, Settings], Sequence[Figure]]":
        """The comparison with the true probabilities, on the rows of the test window whose truth is known.

        Parameters
        ----------
        truth_key, probability
            Columns of the truth table: what names a row (columns of the feature table too), and the true probability.
        """

        def compare(frame: "pd.DataFrame", truth: "pd.DataFrame", bundle: "Bundle", settings: "Settings") -> Sequence[Figure]:
            from finrisk_assets.modelling.evaluation import oracle

            window = self.test(frame, bundle, settings)
            joined = window.frame[[*truth_key]].merge(truth, on=[*truth_key], how="left", validate="one_to_one")
            true = joined[probability].to_numpy(dtype=float)
            held = true == true
            found = oracle.compare(window.labels[held], window.probability[held], true[held])
            return [Figure(name, one.value, one.low, one.high, oracle.MEANINGS[name]) for name, one in found.items()]

        return compare


def excludes(figure: Figure, low: float, high: float) -> bool:
    """Whether the figure's interval, made wider by `INTERVAL_WIDENING`, lies below `low` or above `high`: chance does not explain that."""
    least, most = (figure.value if bound is None else bound for bound in (figure.low, figure.high))
    return (
        figure.value + INTERVAL_WIDENING * (most - figure.value) < low or figure.value - INTERVAL_WIDENING * (figure.value - least) > high
    )


def is_advantage(figure: Figure) -> bool:
    """Whether a difference of AUCs is above 0, as far as its sample can tell.

    Where the interval is no wider than `TELLING` allows, all of it must lie above 0: what a large sample does not prove is not there. A
    wider interval could not prove an advantage worth having; it must not lie below 0.
    """
    if figure.low is None or figure.high is None:
        return False
    return figure.low > 0 if figure.high - figure.low <= 2 * TELLING else figure.high > 0


def net_benefit(window: TestWindow, decision_thresholds: Sequence[float]) -> "np.ndarray":
    """What acting on each row at these probabilities is worth, shape (n,), in events found: the mean over `decision_thresholds`.

    A found event counts 1 and a false alarm costs ``t / (1 - t)``, the odds at which a threshold t says that acting begins to pay
    (Vickers & Elkin, *Medical Decision Making* 26, 2006).
    """
    import numpy as np

    said, came = window.probability, window.labels
    worth: np.ndarray = np.mean([np.where(said >= t, np.where(came, 1.0, -t / (1 - t)), 0.0) for t in decision_thresholds], axis=0)
    return worth


def _in_the_large(test: TestWindow, validation: TestWindow) -> Figure:
    """The mean probability less the rate on the test window, with an interval for a calibration that is right.

    Rows of one customer are not independent: they count as one draw (Liang & Zeger, *Biometrika* 1986). The calibration was learned on
    the validation window, which is a sample too: its error adds to that of the test window.
    """
    from statistics import NormalDist

    from finrisk_assets.modelling.evaluation.metrics import LEVEL

    value = float((test.probability - test.labels).mean())
    half = NormalDist().inv_cdf(0.5 + LEVEL / 2) * (_variance(test) + _variance(validation)) ** 0.5
    meaning = "mean probability less the rate; the interval counts a customer once, and the calibration's own error"
    return Figure("calibration_in_the_large", value, value - half, value + half, meaning)


def _variance(window: TestWindow) -> float:
    """The variance of the window's mean miss by customer, and no less than that of independent outcomes of these probabilities."""
    from finrisk_assets.modelling.evaluation.metrics import clustered_variance

    said = window.probability
    by_customer = clustered_variance(said - window.labels, window.frame.customer_id)
    return max(by_customer, float((said * (1 - said)).sum()) / len(said) ** 2)


def _parameters(estimator: Any) -> Mapping[str, Any]:
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    return {name: value for name, value in last.get_params().items() if value is not None}


def with_reference(spec: "BundleSpec", rows: "np.ndarray", threshold: float) -> "BundleSpec":
    """The bundle with what reasons of a refusal compare with: the mean contributions of those just approved."""
    from finrisk_assets.modelling.evaluation import explain
    from finrisk_assets.scoring.bundle import Bundle

    return replace(spec, reference=explain.just_approved(Bundle(spec, ""), rows, threshold))
