"""The cards of the champions: provenance, importance of features, the curve of scores, and the challenger beside each."""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bento.decisions.models import Champions
from bento.store.records import ShadowScore
from bento.store.session import Store, map_store_faults
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.bundle_io import GOLDEN, MANIFEST
from finrisk_assets.scoring.score_curve import ScoreCurve
from schemas.insight_api import CurvePair, FeatureImportance, ModelCard, ModelCards, ShadowAgreement

MAX_CURVE_POINTS = 120
"""Points of a curve in an answer."""


def list_model_cards(store: Store, champions: Champions) -> ModelCards:
    """Return the card of every champion.

    Raises
    ------
    bento.problems.Problem
        503 where the store is not available.
    """
    with map_store_faults():
        shadows = {domain: store.list_shadow_scores(domain) for domain in champions.bundles}
    return ModelCards(
        cards=[_build_card(bundle, champions.folders[domain], shadows[domain]) for domain, bundle in champions.bundles.items()]
    )


def _build_card(bundle: Bundle, folder: Path, shadows: Sequence[ShadowScore]) -> ModelCard:
    components = json.loads((folder / MANIFEST).read_bytes())["components"]
    window = bundle.training_window or (None, None)
    return ModelCard(
        domain=bundle.domain,
        name=bundle.name,
        version=bundle.version,
        source=bundle.source,
        kind=" and ".join(sorted({part["kind"] for part in components})),
        calibration=bundle.calibration.kind,
        training_from=window[0],
        training_to=window[1],
        data_sha256=bundle.data_sha256,
        code_sha256=bundle.code_sha256,
        libraries=dict(bundle.libraries),
        thresholds=dict(bundle.thresholds),
        importance=_rank_features(bundle, folder, components),
        curve=[] if bundle.score_curve is None else _list_curve(bundle.score_curve),
        shadow=_compare_challengers(shadows),
    )


def _rank_features(bundle: Bundle, folder: Path, components: Sequence[Any]) -> list[FeatureImportance]:
    """Return the features by the mean size of their contributions over the golden rows, which are nobody's."""
    rows = np.array(json.loads((folder / GOLDEN).read_bytes())["rows"], np.float32)  # null becomes NaN
    sizes = np.abs(bundle.score(rows).contributions).mean(axis=0)
    is_linear = len(components) == 1 and components[0]["kind"] == "linear"
    coefficients = components[0]["coefficients"] if is_linear else [None] * len(sizes)
    return [
        FeatureImportance(
            feature=bundle.features[place].name,
            unit=bundle.features[place].unit,
            description=bundle.features[place].description,
            mean_contribution=float(sizes[place]),
            coefficient=coefficients[place],
        )
        for place in np.argsort(-sizes, kind="stable")
    ]


def _list_curve(curve: ScoreCurve) -> list[CurvePair]:
    places = np.unique(np.linspace(0, len(curve.scores) - 1, min(MAX_CURVE_POINTS, len(curve.scores))).round().astype(int))
    n_events = curve.events[-1] if curve.events else 0
    return [
        CurvePair(
            threshold=curve.scores[place],
            share=curve.rows[place] / curve.n_rows,
            recall=curve.events[place] / n_events if n_events else None,
            precision=curve.events[place] / curve.rows[place] if curve.events else None,
        )
        for place in places
    ]


def _compare_challengers(shadows: Sequence[ShadowScore]) -> list[ShadowAgreement]:
    pairs = defaultdict(list)
    for score in shadows:
        pairs[score.champion_version, score.challenger_version].append(score)
    return [_compare_pair(champion, challenger, scores) for (champion, challenger), scores in pairs.items()]


def _compare_pair(champion: str, challenger: str, scores: Sequence[ShadowScore]) -> ShadowAgreement:
    answered = [score for score in scores if score.challenger_probability is not None]
    differences = [float(score.challenger_probability or 0.0) - score.champion_probability for score in answered]
    return ShadowAgreement(
        champion_version=champion,
        challenger_version=challenger,
        requests=len(scores),
        failures=len(scores) - len(answered),
        agreement=sum(score.champion_decision == score.challenger_decision for score in answered) / len(answered) if answered else None,
        mean_difference=sum(differences) / len(differences) if differences else None,
    )
