"""The cards of the champions: provenance, importance of features, the curve of scores, and the challenger beside each."""

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import Connection, bindparam, case, func, select

from bento.decisions.models import Champions
from bento.insight.model_evidence import list_score_shares, read_drift, read_packed_evidence
from bento.store.session import Store
from bento.store.tables import shadows as shadow_rows
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.bundle_io import GOLDEN, MANIFEST
from finrisk_assets.scoring.score_curve import ScoreCurve
from schemas.evidence_api import DriftReport, DriftVerdict
from schemas.insight_api import CurvePair, FeatureImportance, ModelCard, ModelCards, ShadowAgreement

MAX_CURVE_POINTS = 120
"""Points of a curve in an answer."""

_SCORED = shadow_rows.c
_AGREEMENT = (
    select(
        _SCORED.champion_version,
        _SCORED.challenger_version,
        func.count().label("requests"),
        func.count(_SCORED.challenger_probability).label("answered"),
        func.sum(case((_SCORED.champion_decision == _SCORED.challenger_decision, 1), else_=0)).label("equal"),
        func.avg(_SCORED.challenger_probability - _SCORED.champion_probability).label("difference"),
    )
    .where(_SCORED.domain == bindparam("of_domain"))
    .group_by(_SCORED.champion_version, _SCORED.challenger_version)
    .order_by(func.max(_SCORED.position).desc())
)


def list_model_cards(store: Store, champions: Champions, reports: Path | None) -> ModelCards:
    """Return the card of every champion. Call this in a thread of its own.

    Parameters
    ----------
    reports
        The folder of drift reports; None where none is known.

    Raises
    ------
    bento.problems.Problem
        503 where the store is not available.
    """
    with store.reading_apart() as database, database.reading() as connection:
        shadows = {domain: _compare_challengers(connection, domain) for domain in champions.bundles}
    return ModelCards(
        cards=[
            _build_card(bundle, champions.folders[domain], shadows[domain], read_drift(reports, domain))
            for domain, bundle in champions.bundles.items()
        ]
    )


def _build_card(bundle: Bundle, folder: Path, shadows: list[ShadowAgreement], drift: DriftReport | None) -> ModelCard:
    evidence = read_packed_evidence(folder)
    window = bundle.training_window or (None, None)
    return ModelCard(
        domain=bundle.domain,
        name=bundle.name,
        version=bundle.version,
        source=bundle.source,
        kind=" and ".join(sorted({part["kind"] for part in _read_components(folder)})),
        calibration=bundle.calibration.kind,
        training_from=window[0],
        training_to=window[1],
        data_sha256=bundle.data_sha256,
        code_sha256=bundle.code_sha256,
        libraries=dict(bundle.libraries),
        thresholds=dict(bundle.thresholds),
        importance=_rank_features(bundle, folder),
        curve=[] if bundle.score_curve is None else _list_curve(bundle.score_curve),
        shadow=shadows,
        rows=evidence.get("rows"),
        scores=list_score_shares(evidence),
        drift=drift and DriftVerdict(**drift.model_dump(exclude={"columns"})),
    )


@lru_cache(maxsize=32)
def _read_components(folder: Path) -> list[dict[str, Any]]:
    """Return the components of a bundle as its manifest names them."""
    components: list[dict[str, Any]] = json.loads((folder / MANIFEST).read_bytes())["components"]
    return components


@lru_cache(maxsize=32)  # a bundle never changes, and its golden rows take some milliseconds to explain
def _rank_features(bundle: Bundle, folder: Path) -> list[FeatureImportance]:
    """Return the features by the mean size of their contributions over the golden rows, which are nobody's."""
    components = _read_components(folder)
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


def _compare_challengers(connection: Connection, domain: str) -> list[ShadowAgreement]:
    return [
        ShadowAgreement(
            champion_version=row.champion_version,
            challenger_version=row.challenger_version,
            requests=row.requests,
            failures=row.requests - row.answered,
            agreement=row.equal / row.answered if row.answered else None,
            mean_difference=row.difference,
        )
        for row in connection.execute(_AGREEMENT, {"of_domain": domain})
    ]
