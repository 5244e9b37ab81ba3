"""Replay: re-score stored decisions and compare, from the stored inputs and with the model version that each decision names.

Replay runs the same code that answers requests, on the stored row: a difference means that the answer or the code was changed. Nothing is
written. The store reads the decisions, `bento.cli.audit` prints the report.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bento.decisions.domains import DOMAINS, outcome_of
from bento.decisions.scorers.base import Scorer
from bento.problems import Problem
from bento.store.audit_verify import find_erasures, find_records_at
from bento.store.decisions import OUTCOME_STARTS, find_record
from bento.store.records import DecisionPayload, FeatureSnapshot, StoredDecision
from bento.store.session import Store
from finrisk_assets.scoring.bundle import Bundle, Scores
from finrisk_assets.scoring.bundle_io import MANIFEST
from finrisk_assets.scoring.spec import BundleError
from schemas.api import Answer

REPLAY_CHUNK_SIZE = 500
"""Decisions of one model that are scored as one matrix. More needs more memory."""
REPLAY_TOLERANCE = 1e-6
"""Largest difference from a stored number, as a share of the number where it is above 1: runtimes differ by this much at most."""
MAX_DIFFERENCES = 20
"""Differences that a report lists; all are counted."""
_ALL = "all of it"
_NO_VALUE = object()


class Difference(NamedTuple):
    """A stored decision that was changed, or that the model now decides otherwise.

    Attributes
    ----------
    decision
        The decision's identifier.
    reason
        What differs, as a path into the answer, or why the stored decision cannot be trusted: never a value.
    """

    decision: str
    reason: str


@dataclass
class ReplayReport:
    """Counts of replayed decisions, and the first differences.

    Attributes
    ----------
    equal
        Decisions whose answer is as stored, and whose bytes are as recorded in the audit.
    different
        Decisions whose answer is not as stored.
    damaged
        Decisions that cannot be unsealed although the key exists: their bytes were changed.
    unrecorded
        Decisions whose row the audit has not recorded, although the answer is as stored or cannot be compared.
    erased
        Decisions on erased people: they can no longer be read.
    unknown
        Domain and model version -> decisions by a version that is missing or was changed.
    differences
        The first decisions that are different, damaged or unrecorded, at most `MAX_DIFFERENCES`.
    """

    equal: int = 0
    different: int = 0
    damaged: int = 0
    unrecorded: int = 0
    erased: int = 0
    unknown: Counter[str] = field(default_factory=Counter)
    differences: list[Difference] = field(default_factory=list)

    @property
    def decisions(self) -> int:
        """The number of replayed decisions."""
        return self.equal + self.different + self.damaged + self.unrecorded + self.erased + self.unknown.total()

    @property
    def agrees(self) -> bool:
        """True if every decision that can be replayed is as stored and as recorded."""
        return not (self.different or self.damaged or self.unrecorded)

    def add(self, decision: StoredDecision, *, is_audited: bool, difference: str | None, is_comparable: bool) -> None:
        """Count one decision.

        Parameters
        ----------
        is_audited
            Whether the audit has recorded the decision's bytes.
        difference
            The first path at which the answer differs; None where it does not, or cannot be compared.
        is_comparable
            Whether the decision can be read and its model is there.
        """
        if decision.content is None and not decision.erased:
            self.damaged += 1
            self._list(decision, "it cannot be unsealed: its bytes were changed")
        elif difference is not None:
            self.different += 1
            self._list(decision, f"{difference} differs from what was stored")
        elif not is_audited:
            self.unrecorded += 1
            what = "row or the erasure of its person is" if decision.erased else "row is"
            self._list(decision, f"its {what} not what the audit has recorded")
        elif decision.erased:
            self.erased += 1
        elif not is_comparable:
            self.unknown[f"{decision.domain} {decision.model_version}"] += 1
        else:
            self.equal += 1

    def _list(self, decision: StoredDecision, reason: str) -> None:
        if len(self.differences) < MAX_DIFFERENCES:
            self.differences.append(Difference(decision.id, reason))


class BundleVersions:
    """The bundles of all stored model versions, each loaded on first use.

    Parameters
    ----------
    models
        The folder `models` of a BentoML store: it has a folder for each model, with a folder for each version.
    """

    def __init__(self, models: Path) -> None:
        self._models = models
        self._bundles: dict[tuple[str, str], Bundle | None] = {}

    def __call__(self, domain: str, version: str) -> Bundle | None:
        """Return the bundle of a version; None where it is missing or its files were changed."""
        if (domain, version) not in self._bundles:
            self._bundles[domain, version] = self._load(domain, version)
        return self._bundles[domain, version]

    def _load(self, domain: str, version: str) -> Bundle | None:
        folder = self._models / ("finrisk-" + domain.replace("_", "-")) / version
        if not (folder / MANIFEST).is_file():
            return None
        try:
            return Bundle.load(folder, version=version)
        except BundleError:
            return None


def replay(
    store: Store, bundle_of: Callable[[str, str], Bundle | None], *, since: int | None = None, domain: str | None = None
) -> ReplayReport:
    """Re-score stored decisions and compare, a chunk of one model's decisions at a time.

    Parameters
    ----------
    store
        The store whose decisions are read; nothing is written.
    bundle_of
        Returns the bundle of a domain and a version, or None (`BundleVersions`).
    since
        Microseconds since 1970, UTC: earlier decisions are left out.
    domain
        The one domain whose decisions are replayed; None for all.
    """
    report = ReplayReport()
    scorers: dict[tuple[str, str], Scorer] = {}
    for chunk in _chunks_by_model(store, since, domain):
        first = chunk[0]
        model = first.domain, first.model_version
        bundle = bundle_of(*model)
        audited = _are_recorded(store, chunk)
        is_comparable = first.content is not None and bundle is not None
        differences: list[str | None] = [None] * len(chunk)
        if first.content is not None and bundle is not None:
            scorer = scorers.get(model) or scorers.setdefault(model, DOMAINS[first.domain].scorer(bundle, store))
            differences = _compare_chunk(chunk, bundle, scorer)
        for decision, is_audited, difference in zip(chunk, audited, differences, strict=True):
            report.add(decision, is_audited=is_audited, difference=difference, is_comparable=is_comparable)
    return report


def _are_recorded(store: Store, chunk: Sequence[StoredDecision]) -> list[bool]:
    """Return whether each decision is as the audit recorded it, and the erasure of its person where it is erased."""
    with store.reading() as connection:
        found = find_records_at(connection, "decide", {decision.decided_at for decision in chunk})
        erasures = find_erasures(connection, {str(decision.person) for decision in chunk if decision.erased})
    records = {str(record.output)[:OUTCOME_STARTS]: record for record in found}
    return [
        find_record(store.keyring.mac, decision._asdict(), records, erased=decision.erased) is not None
        and (not decision.erased or decision.person in erasures)
        for decision in chunk
    ]


def _chunks_by_model(store: Store, since: int | None, domain: str | None) -> Iterator[list[StoredDecision]]:
    """Yield the decisions in chunks of one model, readable decisions apart from unreadable ones."""
    chunks: dict[tuple[str, str, bool], list[StoredDecision]] = {}
    for decision in store.decisions():
        if (since is not None and decision.decided_at < since) or domain not in (None, decision.domain):
            continue
        key = decision.domain, decision.model_version, decision.content is not None
        chunk = chunks.setdefault(key, [])
        chunk.append(decision)
        if len(chunk) == REPLAY_CHUNK_SIZE:
            yield chunks.pop(key)
    yield from chunks.values()


def _compare_chunk(chunk: Sequence[StoredDecision], bundle: Bundle, scorer: Scorer) -> list[str | None]:
    """Return the first difference of each decision of one model, or None."""
    try:
        return _rescore(chunk, bundle, scorer)
    except (KeyError, TypeError, ValueError, Problem):  # one decision was changed so that it cannot be scored: find which
        return [_ALL] if len(chunk) == 1 else [_compare_chunk([decision], bundle, scorer)[0] for decision in chunk]


def _rescore(chunk: Sequence[StoredDecision], bundle: Bundle, scorer: Scorer) -> list[str | None]:
    payloads = [decision.content for decision in chunk if decision.content is not None]
    rows = np.stack([payload.row for payload in payloads])
    scores = bundle.score(rows)
    differences = []
    for at, (decision, payload) in enumerate(zip(chunk, payloads, strict=True)):
        request = DOMAINS[decision.domain].request.model_validate_json(json.dumps(payload.request))
        scoring_input = scorer.restore(request, rows[at], _snapshot(decision.domain, payload), payload.decision_context)
        single = slice(at, at + 1)
        row_scores = Scores(scores.margin[single], scores.probability[single], scores.base, scores.contributions[single])
        differences.append(_find_difference(decision, payload, scorer.build_answer(scoring_input, row_scores)))
    return differences


def _snapshot(domain: str, payload: DecisionPayload) -> FeatureSnapshot | None:
    """Return the identifiers and the time of the snapshot that an answer was made from; None where the request named no customer."""
    answer = payload.answer
    if answer.get("customer_id") is None:
        return None
    return FeatureSnapshot(domain, "", answer["customer_id"], answer.get("account_id"), answer["as_of"], {}, {})


def _find_difference(decision: StoredDecision, payload: DecisionPayload, answer: Answer) -> str | None:
    """Return the first path at which the stored outcome or the stored answer differs from a new answer, or None."""
    probability, outcome = outcome_of(decision.domain, answer)
    stored = {"probability": decision.probability, "decision": decision.decision}
    return _first_path(stored, {"probability": probability, "decision": outcome}) or _first_path(
        payload.answer, answer.model_dump(mode="json")
    )


def _first_path(stored: Any, new: Any, path: str = "") -> str | None:
    """Return the first path at which two JSON values differ, or None."""
    if stored == new:
        return None
    if isinstance(stored, dict) and isinstance(new, dict):
        names = [*new, *(name for name in stored if name not in new)]
        parts = [(f"{path}.{name}" if path else name, stored.get(name, _NO_VALUE), new.get(name, _NO_VALUE)) for name in names]
    elif isinstance(stored, list) and isinstance(new, list) and len(stored) == len(new):
        parts = [(f"{path}[{at}]", *pair) for at, pair in enumerate(zip(stored, new, strict=True))]
    elif isinstance(stored, float | int) and isinstance(new, float | int):
        return None if abs(stored - new) <= REPLAY_TOLERANCE * max(1.0, abs(stored)) else path
    else:
        return path
    return next((difference for name, before, after in parts if (difference := _first_path(before, after, name))), None)
