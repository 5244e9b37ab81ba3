"""Evidence of a model that was never trained: measured by the code that measures a real one, on rows that belong to nobody."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from finrisk_assets.graph.stages.evaluation import describe_challenger
from finrisk_assets.modelling.packs import evidence
from finrisk_assets.modelling.training import scorecard

ROWS = 2_000


def measure_example(version: str = "a" * 12, seed: int = 3) -> dict[str, Any]:
    """Return evidence with every part: curves, calibration, scores, effects, fairness, candidates and scorecard."""
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
    meaning = "gender=f at refuse_from: adverse impact ratio against m 0.93 [0.85, 1.02] supports a bound of 0.8 (900 rows)"
    fairness = {"metric": "fairness/adverse_impact_ratio/refuse_from/gender=f", "value": 0.93, "low": 0.85, "high": 1.02}
    return evidence.complete_evidence(
        measured,
        version=version,
        figures=[fairness | {"meaning": meaning}],
        candidates=[{"model": "lasso", "validation AUC": 0.8, "log loss": 0.31}, {"model": "scorecard", "validation AUC": 0.78}],
        parameters={"champion_candidate": "lasso", "n_train": "2000"},
        scorecard_json=card.to_json(),
    )


def measure_challenger() -> dict[str, Any]:
    """Return what a challenger that is worse than the example showed on the same rows."""
    rng = np.random.default_rng(4)
    probability = rng.beta(1.2, 6, ROWS)
    noisy = np.clip(probability + rng.normal(0, 0.1, ROWS), 0, 1)
    beside = {"metric": "auc_beside_champion", "value": -0.02, "low": -0.04, "high": 0.0, "meaning": "AUC less that of the champion"}
    measured = evidence.measure_outcomes(rng.uniform(size=ROWS) < probability, noisy, noisy, np.arange(ROWS) // 2)
    return describe_challenger("c" * 64, measured, [beside])


def write_reports(folder: Path, domain: str, **reports: Any) -> Path:
    """Write reports of a domain, by the names of their files, into a folder of reports, and return the folder."""
    (folder / domain).mkdir(parents=True)
    for name, content in reports.items():
        (folder / domain / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder
