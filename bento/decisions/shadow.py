"""Shadow scoring: each domain's challenger scores the requests that its champion has answered, and both outcomes are recorded.

The challenger runs in its own thread with its own connection to the store, after the champion's answer is final. It can neither change an
answer nor make one fail, and delays others only while a group of scores is written. A challenger's failure is recorded in place of its
score; a score that cannot be recorded in time is dropped and counted.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from queue import Empty, Full, Queue
from threading import Thread
from time import monotonic
from typing import Any, NamedTuple

from bento.decisions.domains import DOMAINS, outcome_of
from bento.decisions.scorers.base import Scorer
from bento.problems import log_failure
from bento.store.database import StoreUnavailable
from bento.store.records import ShadowScore
from bento.store.session import Store
from finrisk_assets.scoring.bundle import Bundle

logger = logging.getLogger("finrisk.service")

MAX_QUEUED = 1_000
"""Requests that wait for the challenger at most; the next request is dropped. More needs more memory."""
WRITE_INTERVAL_S = 0.25
"""Seconds whose shadow scores are written together. Each write delays the answers' own writes; a crash loses the scores of an interval."""


class AnsweredRequest(NamedTuple):
    """A request that the champion has answered, and the moment of the answer, naive UTC."""

    domain: str
    request: Any
    answer: Any
    answered_at: datetime


class Shadow:
    """A thread that scores answered requests with the challengers.

    Parameters
    ----------
    challengers
        Domain to the challenger's bundle.
    store
        The store, with a connection of the shadow's own, which `stop` closes. Its writes need not be durable.
    clock
        Returns the present time, naive UTC.
    """

    def __init__(
        self,
        challengers: Mapping[str, Bundle],
        store: Store,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC).replace(tzinfo=None),
    ) -> None:
        self._store = store
        self._clock = clock
        self._versions = {domain: bundle.version for domain, bundle in challengers.items()}
        self._scorers: dict[str, Scorer] = {}
        for domain, bundle in challengers.items():
            try:
                self._scorers[domain] = DOMAINS[domain].scorer(bundle, self._store)
            except Exception as error:
                logger.error("the challenger of %s cannot score (%s); its champion answers as before", domain, type(error).__name__)
        self._queue: Queue[AnsweredRequest | None] = Queue(MAX_QUEUED)
        self.dropped = 0
        self._thread = Thread(target=self._work, name="finrisk-shadow", daemon=True)
        self._thread.start()

    def submit(self, domain: str, request: Any, answer: Any) -> None:
        """Queue an answered request for the domain's challenger, if there is a challenger; return at once."""
        if domain not in self._versions:
            return
        try:
            self._queue.put_nowait(AnsweredRequest(domain, request, answer, self._clock()))
        except Full:
            self.dropped += 1

    def stop(self) -> None:
        """Score and record the queued requests, then end the thread and close the store."""
        self._queue.put(None)
        self._thread.join(timeout=10)
        self._store.close()
        if self.dropped:
            logger.warning("%d requests were not scored by a challenger: too many were waiting", self.dropped)

    def _work(self) -> None:
        """Score queued requests, and write the scores once per interval; None in the queue ends the work."""
        while (first := self._queue.get()) is not None:
            scores, deadline, is_stopping = [self._score(first)], monotonic() + WRITE_INTERVAL_S, False
            while not is_stopping and (remaining_s := deadline - monotonic()) > 0:
                try:
                    request = self._queue.get(timeout=remaining_s)
                except Empty:
                    break
                if request is None:
                    is_stopping = True
                else:
                    scores.append(self._score(request))
            self._record(scores)
            if is_stopping:
                return

    def _record(self, scores: list[ShadowScore]) -> None:
        try:
            self._store.insert_shadow_scores(scores)
        except StoreUnavailable as error:
            self.dropped += len(scores)
            log_failure(error)

    def _score(self, answered_request: AnsweredRequest) -> ShadowScore:
        """Return the outcomes of both models for one request; of a failure the type alone: a message may hold a person's data."""
        domain, request, answer, answered_at = answered_request
        probability, decision = outcome_of(domain, answer)
        score = ShadowScore(
            domain, None, answered_at, answer.model.version, probability, decision, self._versions[domain], None, None, None
        )  # fmt: skip
        try:
            score = score._replace(subject=self._subject(answered_request), customer_id=_customer_id(answered_request))
            probability, decision = outcome_of(domain, self._scorers[domain].answer(request))
        except Exception as error:
            return score._replace(failure=type(error).__name__)
        return score._replace(challenger_probability=probability, challenger_decision=decision)

    def _subject(self, answered_request: AnsweredRequest) -> str | None:
        """Return the key of the answer's row in the domain's tables; None where the request named no subject."""
        for name in ("transaction_id", "loan_id"):
            identifier = getattr(answered_request.answer, name, None)
            if identifier is not None:
                return str(identifier)
        identifiers = {name: getattr(answered_request.answer, name, None) for name in ("customer_id", "account_id")}
        if identifiers == {"customer_id": None, "account_id": None}:
            return None
        snapshots = self._store.find_snapshots(domain=answered_request.domain, **identifiers)
        return snapshots[0].subject if len(snapshots) == 1 else None


def _customer_id(answered_request: AnsweredRequest) -> str | None:
    """Return the customer whose key seals the subject."""
    return getattr(answered_request.answer, "customer_id", None) or getattr(answered_request.request, "user_id", None)
