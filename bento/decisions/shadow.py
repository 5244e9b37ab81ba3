"""Shadow scoring: what each domain's challenger would have answered, recorded beside what its champion did answer.

The challenger is asked in a thread of its own, with a connection of its own to the store, once the champion's answer stands. So it can
neither change an answer nor hold one up for long nor make one fail: its own failures are recorded in its place. What cannot be recorded
in time is dropped and counted.
"""

import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from queue import Empty, Full, Queue
from threading import Thread
from time import monotonic
from typing import Any, NamedTuple

from bento.decisions.domains import DOMAINS, outcome_of
from bento.problems import log_failure
from bento.store.database import StoreUnavailable
from bento.store.records import ShadowScore
from bento.store.session import Store
from finrisk_assets.scoring.bundle import Bundle

logger = logging.getLogger("finrisk.service")

MOST_WAITING = 1_000
"""Requests that wait for the challenger; the next one is not recorded."""
TOGETHER_S = 0.25
"""Seconds of records that are written at once: every write keeps the answers from theirs for a moment."""


class _Asked(NamedTuple):
    """A request that the champion has answered; None in its place ends the work."""

    domain: str
    request: Any
    answer: Any
    at: datetime


class Shadow:
    """Asks the challengers what the champions were asked.

    Parameters
    ----------
    challengers
        Domain to the challenger's bundle.
    store
        The store, with a connection of the shadow's own, which is closed with it. What it writes need not be on disk at once.
    clock
        Tells the moment, naive UTC.
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
        self._scorers: dict[str, Any] = {}
        for domain, bundle in challengers.items():
            try:
                self._scorers[domain] = DOMAINS[domain].scorer(bundle, self._store)
            except Exception as error:
                self._tell(domain, error)
        self._waiting: Queue[_Asked | None] = Queue(MOST_WAITING)
        self.dropped = 0
        self._thread = Thread(target=self._work, name="finrisk-shadow", daemon=True)
        self._thread.start()

    def watch(self, domain: str, request: Any, answer: Any) -> None:
        """Have the challenger of a domain, if it has one, asked what the champion has answered; return at once."""
        if domain not in self._versions:
            return
        try:
            self._waiting.put_nowait(_Asked(domain, request, answer, self._clock()))
        except Full:
            self.dropped += 1

    def stop(self) -> None:
        """Record what waits, and end."""
        self._waiting.put(None)
        self._thread.join(timeout=10)
        self._store.close()
        if self.dropped:
            logger.warning("%d requests were not asked of a challenger: too many were waiting", self.dropped)

    def _work(self) -> None:
        while (first := self._waiting.get()) is not None:
            rows, until, going = [self._judge(first)], monotonic() + TOGETHER_S, True
            while going and (left := until - monotonic()) > 0:
                try:
                    asked = self._waiting.get(timeout=left)
                except Empty:
                    break
                going = asked is not None
                if asked is not None:
                    rows.append(self._judge(asked))
            self._record(rows)
            if not going:
                return

    def _record(self, rows: list[ShadowScore]) -> None:
        try:
            self._store.insert_shadow_scores(rows)
        except StoreUnavailable as error:
            self.dropped += len(rows)
            log_failure(error)

    def _judge(self, asked: _Asked) -> ShadowScore:
        """What both models say of one request; of a challenger that fails, the type of its failure: a message may hold a person's data."""
        probability, decision = outcome_of(asked.domain, asked.answer)
        kept = ShadowScore(
            asked.domain, None, asked.at, asked.answer.model.version, probability, decision, self._versions[asked.domain], None, None, None
        )
        try:
            kept = kept._replace(subject=self._subject(asked), customer_id=_customer(asked))
            scorer = self._scorers[asked.domain]
            probability, decision = outcome_of(asked.domain, scorer.answer(asked.request))
        except Exception as error:
            return kept._replace(failure=type(error).__name__)
        return kept._replace(challenger_probability=probability, challenger_decision=decision)

    def _subject(self, asked: _Asked) -> str | None:
        """The key of the row that was decided on, as the domain's tables have it; None where the request named nobody."""
        for name in ("transaction_id", "loan_id"):
            named = getattr(asked.answer, name, None)
            if named is not None:
                return str(named)
        who = {name: getattr(asked.answer, name, None) for name in ("customer_id", "account_id")}
        if who == {"customer_id": None, "account_id": None}:
            return None
        found = self._store.find_snapshots(domain=asked.domain, **who)
        return found[0].subject if len(found) == 1 else None

    def _tell(self, domain: str, error: Exception) -> None:
        logger.error("the challenger of %s cannot be asked (%s); its champion answers as before", domain, type(error).__name__)


def _customer(asked: _Asked) -> str | None:
    """Whom the request is about, under whose key its subject is sealed."""
    return getattr(asked.answer, "customer_id", None) or getattr(asked.request, "user_id", None)
