"""The candidates for the direction, the rules that a model must beat, and the model of the amount."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finrisk_assets.modelling.evaluation import metrics
from finrisk_assets.modelling.training import candidates as shared_candidates
from finrisk_assets.modelling.training import intervals
from finrisk_assets.scoring.spec import Amount
from schemas.features import Feature

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

MIN_AMOUNTS = 100
"""Rows with a known amount in either window below which no amount is learned."""

BASELINE_FEATURES = ("was_surplus_1m", "was_surplus_year_ago", "net_flow_to_movement_1m", "net_flow_year_ago_to_movement")


def candidates(features: Sequence[Feature], seed: int, n_threads: int = 1, n_rows: int = 20_000) -> dict[str, Any]:
    """Return the unfitted models of the direction by name, the simplest first.

    They are those of `modelling.training.candidates`, with fewer trees, because neighbouring months of one account say nearly the same.
    """
    models = shared_candidates.build_candidates(features, seed, n_threads, n_rows)
    models["xgboost"].set_params(n_estimators=300, learning_rate=0.03, max_depth=4, min_child_weight=10, subsample=0.6)
    return {name: models[name] for name in ("logistic_regression", "xgboost")}


def fit_amount(
    features: Sequence[Feature], scale: str, train: "pd.DataFrame", validation: "pd.DataFrame", seed: int, threads: int
) -> Amount | None:
    """Return the model of the change of the balance; None where too few changes are known with their time."""
    names = [feature.name for feature in features]
    if scale not in names:
        return None
    known_rows = [part[part.change_amount.notna() & part[scale].notna() & part.as_of.notna()] for part in (train, validation)]
    if min(map(len, known_rows)) < MIN_AMOUNTS:
        return None
    windows = (
        intervals.KnownAmounts(
            shared_candidates.to_matrix(part, features),
            part.change_amount.to_numpy(dtype=np.float64),
            part.customer_id.to_numpy(dtype=str),
            part.as_of.to_numpy().astype("datetime64[us]"),
        )
        for part in known_rows
    )
    return intervals.fit_amount(names, scale, *windows, seed=seed, threads=threads)


def baselines(frame: "pd.DataFrame") -> dict[str, Floats]:
    """Return the score of each row by the plain rules, higher for a surplus, each of shape (n,).

    ``persistence`` repeats the last month's direction, ``persistence_amount`` ranks by its net flow. ``seasonal_naive`` repeats the
    direction of the same month a year before, and the last month's where there is no such month; ``seasonal_naive_amount`` likewise.
    """

    def first_known(*names: str) -> Floats:
        values = frame[names[0]]
        for name in names[1:]:
            values = values.fillna(frame[name])
        return np.asarray(values.to_numpy(dtype=np.float64))

    direction, year_ago, flow, flow_year_ago = BASELINE_FEATURES
    return {
        "persistence": first_known(direction),
        "persistence_amount": first_known(flow),
        "seasonal_naive": first_known(year_ago, direction),
        "seasonal_naive_amount": first_known(flow_year_ago, flow),
    }


def compare_with_rules(labels: NDArray[np.bool_], probability: Floats, rules: dict[str, Floats]) -> dict[str, metrics.Interval]:
    """Return each rule's AUC, and the model's AUC less the rule's on the same rows (DeLong's paired interval)."""
    intervals_by_name = {}
    for name, score in rules.items():
        intervals_by_name[f"{name}_auc"] = metrics.auc(labels, score)
        intervals_by_name[f"auc_above_{name}"] = metrics.compare_auc(labels, probability, score).difference
    return intervals_by_name
