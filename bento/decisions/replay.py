"""Replay: re-score stored decisions and compare, from the stored inputs and with the model version that each decision names.

Replay runs the same code that answers requests, on the stored row: a difference means that the answer or the code was changed. Nothing is
written. The store reads the decisions, `bento.cli.audit` prints the report.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bento.decisions.domains import outcome_of
from bento.decisions.record_tiers import AnswerRebuilder, Rescored, digest_answer, rescore
from bento.decisions.scorers.base import Scorer
from bento.problems import Problem
from bento.store.audit_verify import find_erasures, find_records_at
from bento.store.decisions import OUTCOME_STARTS, find_record
from bento.store.records import AbridgedAnswer, DecisionPayload, StoredDecision
from bento.store.session import Store
from finrisk_assets.scoring.bundle import Bundle

REPLAY_CHUNK_SIZE = 500
"""Decisions of one model that are scored as one matrix. More needs more memory."""
REPLAY_TOLERANCE = 1e-6
"""Largest difference from a stored number, as a share of the number where it is above 1: runtimes differ by this much at most."""
MAX_DIFFERENCES = 20
"""Differences that a report lists; all are counted."""
_ALL = "all of it"
_ANSWER = "the answer's digest"
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
        Domain and model version -> decisions whose model or policy is missing or was changed.
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
        """True if every decision on a person who is not erased was re-scored, and is as stored and as recorded."""
        return not (self.different or self.damaged or self.unrecorded or self.unknown)

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


def replay(
    store: Store, bundle_of: Callable[[str, str], Bundle | None], *, since: int | None = None, domain: str | None = None
) -> ReplayReport:
    """Re-score stored decisions and compare, a chunk of the decisions of one model under one policy at a time.

    Parameters
    ----------
    store
        The store whose decisions are read; nothing is written.
    bundle_of
        Returns the bundle of a domain and a version, or None (`bento.decisions.bundle_versions.BundleVersions`).
    since
        Microseconds since 1970, UTC: earlier decisions are left out.
    domain
        The one domain whose decisions are replayed; None for all.
    """
    report, rebuilder = ReplayReport(), AnswerRebuilder(store, bundle_of)
    for chunk in _chunks_by_model(store, since, domain):
        first = chunk[0]
        audited = _are_recorded(store, chunk)
        scorer = None if first.content is None else rebuilder.find_scorer(first.domain, first.model_version, first.policy_version)
        differences = [None] * len(chunk) if scorer is None else _compare_chunk(chunk, scorer)
        for decision, is_audited, difference in zip(chunk, audited, differences, strict=True):
            report.add(decision, is_audited=is_audited, difference=difference, is_comparable=scorer is not None)
    return report


def replay_one(store: Store, rebuilder: AnswerRebuilder, decision_id: str) -> tuple[StoredDecision, str, str | None] | None:
    """Re-score one stored decision and compare.

    Returns
    -------
    tuple of StoredDecision, str, str or None
        The decision; the name of the count of `ReplayReport` that it adds to; and what differs. None where there is no such decision.
    """
    decision = store.find_decision(decision_id)
    if decision is None:
        return None
    is_readable = decision.content is not None
    scorer = rebuilder.find_scorer(decision.domain, decision.model_version, decision.policy_version) if is_readable else None
    difference = None if scorer is None else _compare_chunk([decision], scorer)[0]
    report = ReplayReport()
    is_audited = _are_recorded(store, [decision])[0]
    report.add(decision, is_audited=is_audited, difference=difference, is_comparable=scorer is not None)
    names = ("equal", "different", "damaged", "unrecorded", "erased")
    outcome = next((name for name in names if getattr(report, name)), "unknown")
    return decision, outcome, report.differences[0].reason if report.differences else None


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
    """Yield the decisions in chunks of one model and policy, readable decisions apart from unreadable ones."""
    chunks: dict[tuple[str, str, str | None, bool], list[StoredDecision]] = {}
    for decision in store.decisions():
        if (since is not None and decision.decided_at < since) or domain not in (None, decision.domain):
            continue
        key = decision.domain, decision.model_version, decision.policy_version, decision.content is not None
        chunk = chunks.setdefault(key, [])
        chunk.append(decision)
        if len(chunk) == REPLAY_CHUNK_SIZE:
            yield chunks.pop(key)
    yield from chunks.values()


def _compare_chunk(chunk: Sequence[StoredDecision], scorer: Scorer) -> list[str | None]:
    """Return the first difference of each decision of one model, or None."""
    payloads = [decision.content for decision in chunk if decision.content is not None]
    try:
        rescored = rescore(chunk[0].domain, scorer, payloads)
    except (KeyError, TypeError, ValueError, Problem):  # one decision was changed so that it cannot be scored: find which
        return [_ALL] if len(chunk) == 1 else [_compare_chunk([decision], scorer)[0] for decision in chunk]
    return [_find_difference(*each) for each in zip(chunk, payloads, rescored, strict=True)]


def _find_difference(decision: StoredDecision, payload: DecisionPayload, rescored: Rescored) -> str | None:
    """Return the first path at which the stored outcome or the stored answer differs from a new answer, or None."""
    probability, outcome = outcome_of(decision.domain, rescored.answer)
    stored = {"probability": decision.probability, "decision": decision.decision}
    difference = _first_path(stored, {"probability": probability, "decision": outcome})
    if difference is not None:
        return difference
    if payload.abridged is not None:
        return _find_abridged_difference(payload.abridged, rescored)
    return _first_path(payload.answer, rescored.answer.model_dump(mode="json"))


def _find_abridged_difference(abridged: AbridgedAnswer, rescored: Rescored) -> str | None:
    """Return what differs in an abridged record: a score of its row, or a byte of the answer, which proves all other fields."""
    scores = {"probability": float(rescored.scores.probability[0]), "score": float(rescored.scores.margin[0])}
    stored = {"probability": abridged.probability, "score": abridged.margin}
    is_equal = digest_answer(rescored.answer.model_dump_json().encode()) == abridged.digest
    return _first_path(stored, scores) or (None if is_equal else _ANSWER)


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
