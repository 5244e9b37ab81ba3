"""The two tiers of a decision's record: which decisions store their whole answer, and how the answer of the others is rebuilt.

Every record has the request, the model's row, the scores, the model version, the outcome and the decision context. A full record has the
answer too, with contributions, reasons and words. An abridged record has a digest of the answer: the version's bundle scores the row again,
the same code builds the answer, and the digest proves that no byte differs.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from bento.decisions.answers import ScoringInput, split_scores
from bento.decisions.bundle_versions import find_policy
from bento.decisions.domains import DOMAINS, outcome_of
from bento.decisions.scorers.base import Scorer
from bento.problems import Problem
from bento.store.database import StoreBusy
from bento.store.records import AbridgedAnswer, DecisionPayload, FeatureSnapshot
from bento.store.session import Store
from finrisk_assets.domains.cashflow.decide import SURPLUS
from finrisk_assets.domains.loan_default.decide import APPROVE
from finrisk_assets.domains.loan_offers.decide import OFFER
from finrisk_assets.domains.spending_risk.decide import LOW, MEDIUM
from finrisk_assets.policy.document import Policy
from finrisk_assets.scoring.bundle import Bundle, Scores
from schemas.api import Answer
from schemas.timestamps import from_micros, to_micros

IN_FAVOUR: Mapping[str, frozenset[str]] = {
    "transaction_anomaly": frozenset({"allow"}),
    "loan_default": frozenset({APPROVE}),
    "spending_risk": frozenset({LOW, MEDIUM}),
    "spending_risk_eight": frozenset({LOW, MEDIUM}),
    "cashflow": frozenset({SURPLUS}),
    "loan_offers": frozenset({OFFER}),
}
"""Domain -> the outcomes that are not against the person. Every other outcome keeps its whole answer."""
MAX_OLD_SCORERS = 8
"""Scorers of old versions in memory; the oldest goes first. More saves loading them again, and each may take 32 MiB."""
_DIGEST_BYTES = 16


def keeps_full_answer(domain: str, answer: Any) -> bool:
    """Return whether a decision stores its whole answer: it goes against the person, or it is flagged as an anomaly.

    Such a decision may be contested years later. Its reasons are read as the person was told them, without any model or code.
    """
    return outcome_of(domain, answer)[1] not in IN_FAVOUR[domain] or bool(getattr(answer, "anomaly", False))


def abridge(answer: Any, body: bytes, probability: float, snapshot: FeatureSnapshot | None) -> AbridgedAnswer:
    """Return what an abridged record stores in place of an answer.

    Parameters
    ----------
    answer, body
        The answer, and its bytes.
    """
    subject: tuple[str | None, str | None, int | None] = (None, None, None)
    if snapshot is not None:
        subject = snapshot.customer_id, snapshot.account_id, None if snapshot.as_of is None else to_micros(snapshot.as_of)
    return AbridgedAnswer(answer.score, probability, *subject, digest_answer(body))


def digest_answer(body: bytes) -> bytes:
    """Return the digest of an answer's bytes."""
    return hashlib.sha256(body).digest()[:_DIGEST_BYTES]


class Rescored(NamedTuple):
    """A stored decision scored again: the new scores of its row, and the answer.

    The answer of an abridged record is built with the stored margin and probability: processors of another kind may compute the last digit
    of a probability otherwise.
    """

    scores: Scores
    answer: Answer


def rescore(domain: str, scorer: Scorer, payloads: Sequence[DecisionPayload]) -> list[Rescored]:
    """Score stored decisions of one model again, as one matrix, and build their answers.

    Raises
    ------
    KeyError, TypeError, ValueError, bento.problems.Problem
        Where the content of one of them cannot be scored by this model.
    """
    rows = np.stack([payload.row for payload in payloads])
    rescored = []
    for row, payload, scores in zip(rows, payloads, split_scores(scorer.bundle.score(rows)), strict=True):
        request = DOMAINS[domain].request.model_validate_json(json.dumps(payload.request))
        scoring_input: ScoringInput = scorer.restore(request, row, _snapshot(domain, payload), payload.decision_context)
        stored_scores = scores
        if payload.abridged is not None:
            margin, probability = np.array([payload.abridged.margin]), np.array([payload.abridged.probability])
            stored_scores = scores._replace(margin=margin, probability=probability)
        rescored.append(Rescored(scores, scorer.build_answer(scoring_input, stored_scores)))
    return rescored


def _snapshot(domain: str, payload: DecisionPayload) -> FeatureSnapshot | None:
    """Return the identifiers and the time of the snapshot that an answer was made from; None where the request named no customer."""
    if payload.abridged is not None:
        _, _, customer_id, account_id, micros, _ = payload.abridged
        as_of: Any = None if micros is None else from_micros(micros)
    else:
        answer = payload.answer or {}
        customer_id, account_id, as_of = answer.get("customer_id"), answer.get("account_id"), answer.get("as_of")
    return None if customer_id is None else FeatureSnapshot(domain, "", customer_id, account_id, as_of, {}, {})


class AnswerRebuilder:
    """The scorers of all versions that decided, and the answers of abridged records rebuilt with them.

    Parameters
    ----------
    store
        The store whose event loop must not wait while a bundle is loaded.
    bundle_of
        Returns the bundle of a domain and a version, or None (`bento.decisions.bundle_versions.BundleVersions`).
    scorers
        Domain to the scorer of the champion, which is always at hand.
    """

    def __init__(self, store: Store, bundle_of: Callable[[str, str], Bundle | None], scorers: Mapping[str, Scorer] | None = None) -> None:
        self._store = store
        self._bundle_of = bundle_of
        self._champions = {
            (domain, scorer.bundle.version, scorer.bundle.policy.version): scorer for domain, scorer in (scorers or {}).items()
        }
        self._old: dict[tuple[str, str, str], Scorer] = {}
        self._lock = Lock()

    def find_scorer(self, domain: str, version: str, policy_version: str | None) -> Scorer | None:
        """Return the scorer of a version under a policy; None where its bundle or policy is missing or was changed.

        Raises
        ------
        bento.store.database.StoreBusy
            In the event loop's thread, where the bundle has to be loaded: `StoreThread.run` makes the same call elsewhere.
        """
        if policy_version is None:  # older than policies
            return None
        model = domain, version, policy_version
        scorer = self._champions.get(model) or self._old.get(model)
        if scorer is not None:
            return scorer
        if not self._store.database.lock.may_wait():
            raise StoreBusy("an old bundle has to be loaded")
        bundle, policy = self._bundle_of(domain, version), find_policy(self._store, policy_version)
        if bundle is None or policy is None:
            return None
        with self._lock:
            scorer = self._old[model] = DOMAINS[domain].scorer(bundle.under(policy), self._store)
            while len(self._old) > MAX_OLD_SCORERS:
                del self._old[next(iter(self._old))]
        return scorer

    def build_scorer(self, domain: str, version: str, policy: Policy) -> Scorer | None:
        """Return a scorer of a version under a policy that need not be stored; None where the version's bundle is missing or was changed.

        A bundle that is no champion's is loaded: call this in a thread of its own.
        """
        of_version = (scorer.bundle for (name, number, _), scorer in self._champions.items() if (name, number) == (domain, version))
        bundle = next(of_version, None) or self._bundle_of(domain, version)
        return None if bundle is None else DOMAINS[domain].scorer(bundle.under(policy), self._store)

    def rebuild(self, domain: str, version: str, policy_version: str | None, payloads: Sequence[DecisionPayload]) -> list[bytes | None]:
        """Return the answers of abridged records of one model and policy, byte for byte as they were sent, with a null `decision_id`.

        None stands for an answer that cannot be rebuilt: the bundle is missing, or model and code no longer answer as they did.
        """
        scorer = self.find_scorer(domain, version, policy_version)
        return [None] * len(payloads) if scorer is None else self._rebuild(domain, scorer, payloads)

    def _rebuild(self, domain: str, scorer: Scorer, payloads: Sequence[DecisionPayload]) -> list[bytes | None]:
        try:
            bodies = [rescored.answer.model_dump_json().encode() for rescored in rescore(domain, scorer, payloads)]
        except (KeyError, TypeError, ValueError, Problem):  # one of them cannot be scored: find which
            return [None] if len(payloads) == 1 else [self._rebuild(domain, scorer, [payload])[0] for payload in payloads]
        return [
            body if payload.abridged is not None and digest_answer(body) == payload.abridged.digest else None
            for body, payload in zip(bodies, payloads, strict=True)
        ]
