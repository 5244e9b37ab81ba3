"""Evidence of a model that was never trained: measured by the code that measures a real one, on rows that belong to nobody."""

import math
from typing import Any

import numpy as np

from finrisk_assets.modelling.packs import evidence
from finrisk_assets.modelling.training import scorecard

ROWS = 2_000


def measure_example(version: str = "a" * 12, seed: int = 3) -> dict[str, Any]:
    """Return evidence with every part: curves, calibration, scores, effects, fairness, candidates, scorecard and a challenger."""
    rng = np.random.default_rng(seed)
    probability = rng.beta(1.2, 6, ROWS)
    labels = rng.uniform(size=ROWS) < probability
    people = np.arange(ROWS) // 2
    rows = rng.normal(size=(ROWS, 3)).astype(np.float32)
    rows[:, 0] += 4 * probability
    rows[::5, 2] = math.nan
    contributions = np.nan_to_num(rows * np.array([1.0, -0.5, 0.1]))
    measured = {
        "rows": ROWS,
        "scores": evidence.measure_scores(probability),
        "effects": evidence.measure_effects(contributions, rows, ["loan_amount", "balance_mean_30d", "n_penalties"]),
        **evidence.measure_outcomes(labels, probability, probability, people),
    }
    card = scorecard.fit(rows[:, :2], labels, ["loan_amount", "balance_mean_30d"], [0, 0])
    noisy = np.clip(probability + rng.normal(0, 0.1, ROWS), 0, 1)
    challenger = evidence.measure_outcomes(labels, noisy, noisy, people)
    meaning = "gender=f at refuse_from: adverse impact ratio against m 0.93 [0.85, 1.02] supports a bound of 0.8 (900 rows)"
    fairness = {"metric": "fairness/adverse_impact_ratio/refuse_from/gender=f", "value": 0.93, "low": 0.85, "high": 1.02}
    completed = evidence.complete_evidence(
        measured,
        version=version,
        figures=[fairness | {"meaning": meaning}],
        candidates=[{"model": "lasso", "validation AUC": 0.8, "log loss": 0.31}, {"model": "scorecard", "validation AUC": 0.78}],
        parameters={"champion_candidate": "lasso", "n_train": "2000"},
        scorecard_json=card.to_json(),
    )
    beside = {"metric": "auc_beside_champion", "value": -0.02, "low": -0.04, "high": 0.0, "meaning": "AUC less that of the champion"}
    return completed | {
        "challenger": {
            "version": "c" * 12,
            "roc": challenger["roc"],
            "precision_recall": challenger["precision_recall"],
            "figures": [beside],
        }
    }
