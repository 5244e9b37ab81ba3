"""100,000 loan decisions at once: rows a second of one thread, beside shap.TreeExplainer and XGBoost's own contributions.

A part of `benchmarks.serving`, which also runs by itself: ``python -m benchmarks.batches [--rounds 5]``. The models are the champion of
FINRISK_HOME and its candidates of boosted trees, in the size for a small ledger and for a large one, fitted on the loans of that ledger.
Rows are drawn from its loans and its applications at month-ends. Times are those of the processor, so that other load counts less.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import reasons
from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.modelling.training import candidates
from finrisk_assets.modelling.training.convert import convert_estimator
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.spec import BundleSpec, Floats, Rows
from finrisk_assets.settings import Settings

LOANS = 100_000
PEER_ROWS = 1_000
"""Rows that the slow explainers are asked for."""
AGREE = 1e-4
LARGE = 20_000


@dataclass(frozen=True)
class Speed:
    """Rows a second of one model, medians over the rounds.

    Attributes
    ----------
    scored, explained
        Ours, without and with contributions.
    shap, pred_contribs
        The peers'; not a number where the model is no tree.
    off
        Largest difference between our contributions and either peer's.
    """

    name: str
    scored: float
    explained: float
    shap: float = float("nan")
    pred_contribs: float = float("nan")
    off: float = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    report(measure(Settings.from_environment(), parser.parse_args().rounds))


def report(speeds: list[Speed]) -> None:
    """Print rows a second and ratios."""
    print(f"\n{LOANS:,} loan decisions, rows a second of one thread")
    print(f"  {'':44} {'scored':>11} {'explained':>11} {'shap':>8} {'pred_contribs':>14}   ours is             |difference|")
    for one in speeds:
        peers = f"{one.shap:8,.0f} {one.pred_contribs:14,.0f}"
        ratios = f"{one.explained / one.shap:6.1f} x, {one.explained / one.pred_contribs:6.1f} x"
        print(f"  {one.name:44} {one.scored:11,.0f} {one.explained:11,.0f} {peers}   {ratios}   {one.off:.1g}")


def measure(settings: Settings, rounds: int) -> list[Speed]:
    """Measure the champion, and the boosted trees of both sizes."""
    folder = settings.root / "champions" / "loan_default" / "bundle"
    held = reasons.stored(settings, folder, LOAN_DEFAULT)
    known = np.concatenate([held.rows, held.month_ends])
    rows = known[np.random.default_rng(settings.seed).integers(len(known), size=LOANS)]
    speeds = [_alone("champion", Bundle.load(folder), rows, rounds)]
    for n_rows in (candidates.MIN_LARGE_ROWS - 1, LARGE):
        model = candidates.build_candidates(held.features, settings.seed, 1, n_rows)["xgboost"]
        model.fit(held.rows[held.windows.train], held.labels[held.windows.train].astype(int))
        speeds.append(_beside(f"{model.n_estimators} boosted trees of depth {model.max_depth}", model, held.features, rows, rounds))
    return speeds


def _alone(name: str, bundle: Bundle, rows: Rows, rounds: int) -> Speed:
    bundle.score(rows[:1])
    taken = _rounds({"scored": lambda: bundle.probability(rows), "explained": lambda: bundle.score(rows)}, rounds)
    return Speed(name, len(rows) / taken["scored"], len(rows) / taken["explained"])


def _beside(name: str, model: Any, features: Any, rows: Rows, rounds: int) -> Speed:
    import shap
    import xgboost

    spec = BundleSpec(
        name="loans",
        domain="loan_default",
        source="",
        features=tuple(features),
        components=(convert_estimator(model, features).component,),
        golden_rows=rows[:1],
        seed=0,
        data_sha256="",
        code_sha256="",
    )
    bundle, few = Bundle(spec, ""), rows[:PEER_ROWS]
    explainer, booster, matrix = shap.TreeExplainer(model), model.get_booster(), xgboost.DMatrix(few, nthread=1)
    booster.set_param({"nthread": 1})
    ours = bundle.score(rows).contributions[:PEER_ROWS]
    theirs: list[Floats] = [explainer.shap_values(few), booster.predict(matrix, pred_contribs=True)[:, :-1]]
    contenders = {
        "scored": lambda: bundle.probability(rows),
        "explained": lambda: bundle.score(rows),
        "shap": lambda: explainer.shap_values(few),
        "pred_contribs": lambda: booster.predict(matrix, pred_contribs=True),
    }
    taken = _rounds(contenders, rounds)
    off = max(float(np.abs(ours - other).max()) for other in theirs)
    slow = {peer: PEER_ROWS / taken[peer] for peer in ("shap", "pred_contribs")}
    return Speed(name, len(rows) / taken["scored"], len(rows) / taken["explained"], **slow, off=off)


def _rounds(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of the processor of each, one after the other in every round."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            begun = time.process_time()
            run()
            taken[name].append(time.process_time() - begun)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    main()
