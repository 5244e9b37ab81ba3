"""Three months of the same scored people, and the findings on them."""

import numpy as np

from finrisk_assets.modelling.evaluation.metrics import Interval
from finrisk_assets.modelling.monitoring import monitoring
from finrisk_assets.modelling.monitoring.monitoring import ComparedWindows, MonitoredRows, MonitoringFindings

NAMES = ("income", "rent", "age_of_account")
JUNE_23, MAY_24, JUNE_24 = (np.datetime64(month, "M") for month in ("2023-06", "2024-05", "2024-06"))
WINDOWS = ComparedWindows((JUNE_23,), (JUNE_24,), (MAY_24, JUNE_24), "2024-06 is compared with 2023-06.")
PEOPLE = 600


def rows(seed: int = 1, *, shift: float = 0.0, riskier: float = 0.0, people: int = PEOPLE) -> MonitoredRows:
    """Return the same people in three months: June 2024 has `shift` added to income and score, May 2024 has known outcomes.

    `riskier` is what their true log-odds are above what the score says.
    """
    rng = np.random.default_rng(seed)
    month = np.repeat(np.array([JUNE_23, MAY_24, JUNE_24]), people)
    features = rng.normal(size=(3 * people, len(NAMES)))
    now = month == JUNE_24
    features[now, 0] += shift
    score = -1 + features[:, 0]
    probability = 1 / (1 + np.exp(-score))
    outcome = (rng.random(3 * people) < 1 / (1 + np.exp(-score - riskier))).astype(float)
    outcome[now] = np.nan
    return MonitoredRows(
        month=month,
        customer=np.tile([f"c{k}" for k in range(people)], 3),
        decision=np.where(probability >= 0.5, "refuse", "approve"),
        features=features,
        score=score,
        probability=probability,
        outcome=outcome,
    )


def observed(given: MonitoredRows, tested_auc: Interval | None = None) -> MonitoringFindings:
    return monitoring.collect_findings(NAMES, given, WINDOWS, thresholds=[0.5], tested_auc=tested_auc, seed=7)
