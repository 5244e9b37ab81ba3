"""The evidence of a champion: the aggregated figures that were packed beside its bundle, and its newest drift report."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from bento.decisions.models import Champions
from bento.problems import Problem
from bento.store.session import Store, write_transaction
from schemas.evidence_api import ChallengerEvidence, DriftReport, ModelEvidence, ModelOrigin, PlotPoint, ScoreShare

EVIDENCE = "evidence.json"
"""Name of the file beside the bundle's; `finrisk_assets.modelling.packs.evidence` writes it."""
DRIFT_REPORT = "newest.json"
"""Name of the file of a domain's newest drift report, in its folder below FINRISK_REPORTS."""
CHALLENGER_REPORT = "challenger.json"
"""Name of the file of what a domain's newest evaluated version showed, likewise."""
MAX_FILE_BYTES = 1_000_000
"""Bytes of a file that is read; one of evidence has some tens of thousands."""


def read_model_evidence(store: Store, champions: Champions, domain: str, reports: Path | None) -> ModelEvidence:
    """Return the evidence of a domain's champion, and record the access in the audit. Call this in a thread of its own.

    Parameters
    ----------
    reports
        The folder of drift reports; None where none is known.

    Raises
    ------
    bento.problems.Problem
        404 for a domain without a model; 503 where the store is not available.
    """
    bundle = champions.bundles.get(domain)
    if bundle is None:
        raise Problem(404, "unknown_model", "No model of that domain answers here; GET /v1/models names those that do.")
    with write_transaction(store):
        store.audit("read", domain="evidence")
    evidence = read_packed_evidence(champions.folders[domain])
    origin = champions.origins.get(domain)
    return ModelEvidence(
        domain=domain,
        version=bundle.version,
        rows=evidence.get("rows"),
        events=evidence.get("events"),
        roc=_to_points(evidence.get("roc", ())),
        precision_recall=_to_points(evidence.get("precision_recall", ())),
        calibration=evidence.get("calibration", []),
        scores=list_score_shares(evidence),
        effects=evidence.get("effects", []),
        fairness=evidence.get("fairness", []),
        candidates=evidence.get("candidates", []),
        scorecard=evidence.get("scorecard"),
        challenger=read_challenger(reports, domain, bundle.version),
        drift=read_drift(reports, domain),
        origin=ModelOrigin(**origin) if origin else None,
    )


def _to_points(pairs: Sequence[Sequence[float]]) -> list[PlotPoint]:
    return [PlotPoint(x=x, y=y) for x, y in pairs]


def list_score_shares(evidence: Mapping[str, Any]) -> list[ScoreShare]:
    """Return the distribution of the test window's probabilities; empty where the evidence has none."""
    shares = evidence.get("scores", ())
    return [ScoreShare(low=at / len(shares), high=(at + 1) / len(shares), share=share) for at, share in enumerate(shares)]


@lru_cache(maxsize=32)  # a folder of BentoML's model store never changes
def read_packed_evidence(folder: Path) -> Mapping[str, Any]:
    """Return the evidence that was packed beside a bundle; empty where there is none."""
    return _read(folder / EVIDENCE) or {}


def _read(file: Path) -> Mapping[str, Any] | None:
    """Return the content of a file of JSON; None where there is no such file, or it is larger than any that is written."""
    if not file.is_file() or file.stat().st_size > MAX_FILE_BYTES:
        return None
    content: Mapping[str, Any] = json.loads(file.read_bytes())
    return content


def read_challenger(reports: Path | None, domain: str, champion: str) -> ChallengerEvidence | None:
    """Return what the newest evaluated version of a domain showed, where it is not the champion; None as of `read_drift`."""
    if reports is None:
        return None
    try:
        content = _read(reports / domain / CHALLENGER_REPORT)
        if content is None or content["version"] == champion[:12]:
            return None
        return ChallengerEvidence.model_validate({**content, **{name: _to_points(content[name]) for name in ("roc", "precision_recall")}})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_drift(reports: Path | None, domain: str) -> DriftReport | None:
    """Return the newest drift report of a domain; None where none is known, or none can be read: it hides no other figure."""
    if reports is None:
        return None
    try:
        content = _read(reports / domain / DRIFT_REPORT)
        return None if content is None else DriftReport.model_validate(content)
    except (OSError, ValueError):
        return None
