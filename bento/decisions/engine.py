"""One decision from the request to the disk: was it made before, what does the model say, keep it with its audit record, then answer.

All of it is one transaction of the store. The same request under the same identifier (`transaction_id`, or the header Idempotency-Key) gets
the same answer, byte for byte, and nothing is written; another request under it is refused. What a model is asked and what follows is the
matter of each domain's scorer.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

from bento.context import current as current_caller
from bento.context import idempotency_key, span
from bento.decisions.answers import Asked, said, score
from bento.decisions.batch import TOGETHER, answered, attempted
from bento.problems import Problem, log_failure
from bento.store.audit_chain import AuditError
from bento.store.keyring import KeyringError
from bento.store.session import NewDecision, Person, PriorDecision, Store, StoreUnavailable, Transaction
from finrisk_assets.scoring.bundle import Bundle
from schemas.api import FieldError, TransactionRequest

ROUTES: Mapping[str, str] = {
    "transaction_anomaly": "/v1/transactions",
    "loan_default": "/v1/loan-default",
    "spending_risk": "/v1/spending-risk",
    "spending_risk_eight": "/v1/spending-risk",
    "cashflow": "/v1/cashflow",
    "loan_offers": "/v1/loan-offers",
}
AT_ONCE = 16
"""Requests that share a transaction at most: others wait for the store meanwhile."""
_UNNAMED = b'{"decision_id":null,'
"""How an answer begins before it is known how its decision is called; it is kept so, and named each time that it is given."""
_TAKEN = FieldError(field="transaction_id", reason="It belongs to a transaction with other content.")


@dataclass(frozen=True)
class Made:
    """A decision that was made.

    Attributes
    ----------
    body
        The answer, JSON.
    answer
        The same; None where it was made before.
    request
        The request, with a `transaction_id` where it is a transaction.
    """

    body: bytes
    answer: Any = None
    request: Any = None


@dataclass(frozen=True)
class _Waiting:
    """A request whose decision is about to be made, with the context that says who sent it."""

    domain: str
    request: Any
    key: str | None
    context: Context
    made: asyncio.Future[Made]


@contextmanager
def kept(store: Store) -> Iterator[None]:
    """A transaction of the store for the answer to a request: where the store fails, that is a 503 and nothing has happened.

    Raises
    ------
    bento.problems.Problem
        Where the store cannot be had.
    """
    try:
        with store.writing():
            yield
    except (StoreUnavailable, AuditError, KeyringError) as error:
        log_failure(error)
        raise Problem.of(503) from None


class Decisions:
    """Makes and keeps the decisions of one worker.

    Parameters
    ----------
    scorers
        The scorer of a domain, or the `Problem` that there is none, raised.
    """

    def __init__(self, store: Store, bundles: Mapping[str, Bundle], scorers: Callable[[str], Any]) -> None:
        self._store = store
        self._bundles = bundles
        self._scorers = scorers
        self._waiting: list[_Waiting] = []

    async def decide_beside(self, domain: str, request: Any) -> Made:
        """Make one decision as `decide` does, in one transaction with those that arrived at the same moment: the disk is waited for once.

        One that is refused leaves nothing, the others stand. On PostgreSQL each has its own: several would wait for each other's locks.
        """
        if self._store.database.dialect == "postgresql":
            return self.decide(domain, request)
        loop = asyncio.get_running_loop()
        one = _Waiting(domain, request, idempotency_key.get(), copy_context(), loop.create_future())
        self._waiting.append(one)
        if len(self._waiting) == 1:
            loop.call_soon(self._decide_waiting)
        return await one.made

    def _decide_waiting(self) -> None:
        """Decide on what waits; who no longer does is left out."""
        here = [one for one in self._waiting[:AT_ONCE] if not one.made.done()]
        self._waiting = self._waiting[AT_ONCE:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._decide_waiting)
        if not here:
            return
        try:
            # The disk is waited for in the name of the first.
            found = here[0].context.copy().run(self._decided_together, here)
        except Exception as error:
            found = [error] * len(here)
        for one, made in zip(here, found, strict=True):
            if isinstance(made, Made):
                one.made.set_result(made)
            else:
                one.made.set_exception(made)

    def _decided_together(self, here: Sequence[_Waiting]) -> list[Made | Exception]:
        if len(here) == 1:
            return [self.decide(here[0].domain, here[0].request)]

        def decide_alone(one: _Waiting) -> Made:
            scorer = self._scorers(one.domain)
            with self._store.savepoint():
                return self._decide(one.domain, scorer, one.request, one.key)

        with kept(self._store):
            return [one.context.run(attempted, decide_alone, one) for one in here]

    def decide(self, domain: str, request: Any) -> Made:
        """Make one decision, or give the one that was made before.

        Raises
        ------
        bento.problems.Problem
            For what the scorer refuses, an identifier that belongs to another request, or a store that takes no write.
        """
        scorer, key = self._scorers(domain), idempotency_key.get()
        with kept(self._store):
            return self._decide(domain, scorer, request, key)

    async def decide_each(self, domain_of: Callable[[Any], str], requests: Sequence[Any], key: str | None) -> list[Made | Problem]:
        """Make the decisions of a batch, a few in one transaction of the store; other requests are answered between.

        Transactions are decided one after the other, each part of the history of those behind it, the others as one matrix.

        Parameters
        ----------
        requests
            Each a request or the problem that it is none.
        key
            The idempotency key: it stands for each request at its place.
        """
        keys = [key and f"{key}\0{at}" for at in range(len(requests))]
        if any(isinstance(one, TransactionRequest) for one in requests):
            return await self._in_turn(requests, keys)
        found: list[Any] = [self._before(one, key) for one, key in zip(requests, keys, strict=True)]
        places: dict[str, list[int]] = {}
        for at, one in enumerate(found):
            if one is None:
                places.setdefault(domain_of(requests[at]), []).append(at)
        for domain, waiting in places.items():
            for first in range(0, len(waiting), TOGETHER):
                here = waiting[first : first + TOGETHER]
                for at, made in zip(here, self._together(domain, [(requests[at], keys[at]) for at in here]), strict=True):
                    found[at] = made
                await asyncio.sleep(0)
        return found

    def _together(self, domain: str, here: Sequence[tuple[Any, str | None]]) -> list[Made | Problem]:
        """Decide on a few requests of a domain, scored as one matrix and kept in one transaction of the store."""
        scorer = attempted(self._scorers, domain)
        if isinstance(scorer, Problem):
            return [scorer] * len(here)
        considered = answered(scorer, self._bundles[domain], [request for request, _ in here])
        good = [(*one, key) for one, (_, key) in zip(considered, here, strict=True) if not isinstance(one, Problem)]
        made = attempted(self._keep, domain, good) if good else []
        kept = iter([made] * len(good) if isinstance(made, Problem) else made)
        return [one if isinstance(one, Problem) else next(kept) for one in considered]

    async def _in_turn(self, requests: Sequence[Any], keys: Sequence[str | None]) -> list[Made | Problem]:
        """Decide on transactions."""
        domain, found = "transaction_anomaly", list[Made | Problem]()
        scorer = attempted(self._scorers, domain)
        for first in range(0, len(requests), TOGETHER):
            here = list(zip(requests, keys, strict=True))[first : first + TOGETHER]
            made = [scorer] * len(here) if isinstance(scorer, Problem) else attempted(self._chunk, domain, scorer, here)
            found += [made] * len(here) if isinstance(made, Problem) else made
            await asyncio.sleep(0)
        return [one if isinstance(one, Problem) else made for one, made in zip(requests, found, strict=True)]

    def _chunk(self, domain: str, scorer: Any, here: Sequence[tuple[Any, str | None]]) -> list[Made | Problem]:
        """Decide on a few transactions in one transaction of the store: one that is refused leaves nothing, the others stand."""

        def decide_alone(request: Any, key: str | None) -> Made:
            with self._store.savepoint():
                return self._decide(domain, scorer, request, key)

        with kept(self._store):
            return [request if isinstance(request, Problem) else attempted(decide_alone, request, key) for request, key in here]

    def _before(self, request: Any, key: str | None) -> Made | Problem | None:
        """What was answered before, or what is wrong with the request; None where it is yet to be decided on."""
        if key is None or isinstance(request, Problem):
            return request if isinstance(request, Problem) else None

        def look() -> Made | None:
            with kept(self._store):
                before = self._store.find_prior_decision(key=key)
                return before and Made(again(before, self._store.digest(request.model_dump_json().encode())))

        return attempted(look)

    def advised(self, domain: str, request: Any, answer: Any) -> None:
        """Record that somebody was told how another decision could come about. Nothing is decided, so nothing else is kept of it.

        Raises
        ------
        bento.problems.Problem
            Where the store takes no write.
        """
        with kept(self._store):
            person = request.customer_id and self._store.person(request.customer_id)
            self._store.audit(
                "advise",
                person=person and person.person,
                domain=domain,
                model_version=answer.model.version,
                inputs=self._store.digest(request.model_dump_json().encode()),
                output=self._store.digest(answer.model_dump_json().encode()),
            )

    def _decide(self, domain: str, scorer: Any, request: Any, key: str | None) -> Made:
        """One decision, inside `kept`."""
        sent = request.model_dump_json().encode()
        digest = self._store.digest(sent)
        named = request.transaction_id if isinstance(request, TransactionRequest) else None
        self._lock_identifiers(request, named, key)
        before = self._store.find_prior_decision(transaction_id=named, key=key)
        if before is not None:
            return Made(again(before, digest, [_TAKEN] if named and key is None else []))
        with span("features"):
            asked = scorer.asked(request)
        scores = score(self._bundles[domain], asked.row)
        with span("explain"):
            answer = scorer.answered(asked, scores)
        decided_on = sent if asked.request is request else asked.request.model_dump_json().encode()
        making = self._making(domain, decided_on, asked, answer, key, digest)
        if making.person is not None and isinstance(request, TransactionRequest):
            self._part_of_history(scorer.transaction(asked.request), making.person)
        self._store.insert_decisions([making])
        return Made(_named(making.id, making.answer), answer, asked.request)

    def _part_of_history(self, transaction: Transaction, person: Person) -> None:
        if not self._store.insert_transaction(transaction, person):
            raise Problem(409, "conflict", "Another transaction was sent with this identifier.", [_TAKEN])

    def _keep(self, domain: str, considered: Sequence[tuple[Asked, Any, str | None]]) -> list[Made]:
        """Keep decisions that were made together: of each what was asked, the answer and the idempotency key."""
        with kept(self._store):
            made = [
                self._making(domain, asked.request.model_dump_json().encode(), asked, answer, key, None)
                for asked, answer, key in considered
            ]
            self._store.insert_decisions(made)
        return [Made(_named(one.id, one.answer), answer, asked.request) for one, (asked, answer, _) in zip(made, considered, strict=True)]

    def _making(self, domain: str, request: bytes, asked: Asked, answer: Any, key: str | None, digest: str | None) -> NewDecision:
        probability, decision = said(domain, answer)
        transaction = isinstance(asked.request, TransactionRequest)
        return NewDecision(
            id=self._store.new_id(),
            domain=domain,
            route=ROUTES[domain],
            model_version=answer.model.version,
            request=request,
            answer=answer.model_dump_json().encode(),
            row=asked.row,
            probability=probability,
            decision=decision,
            known=asked.known,
            person=self._person(asked),
            transaction_id=asked.request.transaction_id if transaction else None,
            key=key,
            digest=digest,
        )

    def _person(self, asked: Asked) -> Person | None:
        """Whom a decision is about. Who sends a transaction of somebody makes them known."""
        if asked.standing is not None:
            return self._store.person(asked.standing.customer_id)
        if isinstance(asked.request, TransactionRequest):
            return self._store.person(asked.request.user_id, make=True)
        return None

    def _lock_identifiers(self, request: Any, named: str | None, key: str | None) -> None:
        """Where the store lets several write at once: have no transaction miss the one that another worker is just answering."""
        self._store.advisory_lock(
            customer=getattr(request, "user_id", None),
            merchant=getattr(request, "merchant", None),
            transaction=named,
            idempotency=key and f"{current_caller.get().name}\0{key}",
        )


def again(before: PriorDecision, digest: str, fields: Sequence[FieldError] = ()) -> bytes:
    """The answer that was given before to the same request.

    Raises
    ------
    bento.problems.Problem
        Where the request was another, or what was answered can no longer be read.
    """
    if before.digest != digest:
        raise Problem(409, "conflict", "Another request was sent with this transaction_id or Idempotency-Key.", fields)
    if before.body is None:
        raise Problem(409, "conflict", "The answer to this request was erased with everything else about its person.")
    return _named(before.id, before.body)


def _named(decision: str, answer: bytes) -> bytes:
    return b'{"decision_id":"%s",%s' % (decision.encode(), answer.removeprefix(_UNNAMED))
