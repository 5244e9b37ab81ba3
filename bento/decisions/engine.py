"""The path of one decision: prepare the request, score the row, build the answer, record the decision.

A decision is one transaction of the store. The same request under the same identifier (`transaction_id`, or the header Idempotency-Key)
gets the same answer, byte for byte, and nothing is written; another request under that identifier is refused. Each domain's scorer
prepares the model's row and builds the answer. `record_tiers` says what is stored of it. `group_commit` and `batch` call this module for
several requests at once.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from bento.context import idempotency_key, span
from bento.decisions.answers import ScoringInput, score, split_scores
from bento.decisions.bundle_versions import BundleVersions, archive_bundles, archive_policy
from bento.decisions.domains import DOMAINS, domain_of, outcome_of
from bento.decisions.models import Champions
from bento.decisions.record_tiers import AnswerRebuilder, abridge, keeps_full_answer
from bento.decisions.scorers.base import Scorer
from bento.decisions.scorers.loan import LoanScorer
from bento.decisions.scorers.spending import SpendingScorer
from bento.decisions.scorers.transaction import TransactionScorer
from bento.problems import Problem, log_failure
from bento.store.database import StoreUnavailable
from bento.store.records import NewAlert, NewDecision, Person, PriorDecision, RequestOrigin, Transaction
from bento.store.session import STORE_FAULTS, Store, write_transaction
from schemas.api import FieldError, LoanAnswer, SpendingAnswer, TransactionRequest
from schemas.insight_api import LoanWhatIfRequest, SpendingWhatIfRequest

logger = logging.getLogger("finrisk.service")

_UNNAMED = b'{"decision_id":null,'
"""Start of a stored answer: the `decision_id` is null, the real id is spliced in when the answer is sent."""
_LOST = (
    "The answer itself cannot be sent again, because its model version is gone or answers otherwise; the operator can put the version back."
)
_TAKEN = FieldError(field="transaction_id", reason="It belongs to a transaction with other content.")


@dataclass(frozen=True)
class DecisionResult:
    """The answer to a request.

    Attributes
    ----------
    decision_id
        The decision's identifier.
    body
        The answer, JSON, with the identifier.
    answer
        The answer as an object; None for the answer of a prior decision.
    request
        The request, with a `transaction_id` where it is a transaction.
    """

    decision_id: str
    body: bytes
    answer: Any = None
    request: Any = None


class ChunkItem(NamedTuple):
    """A request that is decided in one transaction with others.

    Attributes
    ----------
    key
        The request's idempotency key.
    origin
        Who sent the request.
    """

    request: Any
    key: str | None
    origin: RequestOrigin

    @classmethod
    def of(cls, request: Any, key: str | None) -> "ChunkItem":
        """Return an item of the current request."""
        return cls(request, key, RequestOrigin.current())


class NotTogetherError(Exception):
    """Requests that cannot be decided together: one of them is refused or was decided before."""


class Decisions:
    """The decisions of one worker.

    Parameters
    ----------
    store
        The store that records the decisions.
    scorers
        Domain to its scorer.
    why_absent
        Returns the sentence for the client that asks for a domain without a scorer.
    answers
        Rebuilds the answers of abridged records. Default: with the scorers, and the bundles that the store has a copy of.
    archived
        Domains and versions whose bundle the store has a copy of: the records of others are full, as their answers could not be rebuilt.

    Attributes
    ----------
    answers
        Rebuilds the answers of abridged records.
    """

    def __init__(
        self,
        store: Store,
        scorers: Mapping[str, Scorer],
        why_absent: Callable[[str], str] = "There is no {} model.".format,
        *,
        answers: AnswerRebuilder | None = None,
        archived: Collection[tuple[str, str]] = frozenset(),
    ) -> None:
        self.store = store
        self._scorers = scorers
        self._why_absent = why_absent
        self.answers = answers or AnswerRebuilder(store, BundleVersions(store=store), scorers)
        self._archived = frozenset(archived)

    @classmethod
    def of(cls, champions: Champions, store: Store, models: Path) -> "Decisions":
        """Return the decisions of a worker: the champions' scorers, warm, with bundles and policy copied to the store.

        Parameters
        ----------
        models
            Folder of BentoML's model store, where older bundles may be.
        """
        scorers = {domain: DOMAINS[domain].scorer(bundle, store) for domain, bundle in champions.bundles.items()}
        for scorer in scorers.values():
            scorer.warm_up()
        answers = AnswerRebuilder(store, BundleVersions(models, store), scorers)
        folders = {(domain, champions.bundles[domain].version): folder for domain, folder in champions.folders.items()}
        has_policy = archive_policy(store, champions.policy)
        archived = archive_bundles(store, folders) if has_policy else frozenset()
        return cls(store, scorers, champions.why_absent, answers=answers, archived=archived)

    def scorer(self, domain: str) -> Scorer:
        """Return the scorer of a domain.

        Raises
        ------
        bento.problems.Problem
            501 with the reason where the domain has no model.
        """
        if domain not in self._scorers:
            raise Problem(501, "model_absent", self._why_absent(domain))
        return self._scorers[domain]

    def loan_scorer(self) -> LoanScorer:
        """Return the scorer of loans, which also searches for the nearest change; raises as `scorer` does."""
        return cast(LoanScorer, self.scorer("loan_default"))

    def answer_what_if(self, request: SpendingWhatIfRequest) -> SpendingAnswer:
        """Answer a what-if about spending and record in the audit that it was answered; no decision is stored.

        Raises
        ------
        bento.problems.Problem
            As of `scorer`, and for a request that the scorer refuses.
        """
        domain = domain_of(request)
        answer = cast(SpendingScorer, self.scorer(domain)).answer_what_if(request)
        self.record_counterfactual(domain, request, answer)
        return answer

    def decide(self, domain: str, request: Any) -> DecisionResult:
        """Make and record one decision, or return the answer of the prior decision.

        Raises
        ------
        bento.problems.Problem
            For a request that the scorer refuses, an identifier that belongs to another request, or a store that takes no write.
        """
        scorer = self.scorer(domain)
        with write_transaction(self.store):
            return self._decide(domain, scorer, request, idempotency_key.get())

    def decide_in_savepoint(self, domain: str, scorer: Scorer, request: Any, key: str | None) -> DecisionResult:
        """Decide as `decide` does, inside a larger write transaction: a request that fails is rolled back alone.

        Parameters
        ----------
        key
            The request's idempotency key.
        """
        with self.store.savepoint():
            return self._decide(domain, scorer, request, key)

    def decide_together(self, domain: str, scorer: Scorer, items: Sequence[ChunkItem], *, are_new: bool = False) -> list[DecisionResult]:
        """Decide transactions as if one after the other, with statements, scores and inserts in common; inside a write transaction.

        There is no savepoint, for which SQLite would copy each page that is written.

        Parameters
        ----------
        are_new
            Whether the caller has found in this transaction that none of them was decided before and none is another's repetition.

        Raises
        ------
        NotTogetherError
            Where one of them is refused or was decided before: roll the write transaction back, and decide each in its own savepoint.
        bento.store.database.StoreUnavailable
            Inside a transaction that cannot go on.
        """
        try:
            if not are_new:
                self._check_new(items)
            return self._decide_together(domain, scorer, items)
        except (NotTogetherError, StoreUnavailable):
            raise
        except Exception:  # its cause is found, answered and logged where each is decided alone
            raise NotTogetherError from None

    def _check_new(self, items: Sequence[ChunkItem]) -> None:
        identifiers = [item.request.transaction_id for item in items if item.request.transaction_id is not None]
        keys = [(item.origin.caller, item.key) for item in items if item.key is not None]
        is_repeated = len({*identifiers}) < len(identifiers)
        if not items or is_repeated or self.store.has_prior_decision(transaction_ids=identifiers, keys=keys):
            raise NotTogetherError

    def _decide_together(self, domain: str, scorer: Scorer, items: Sequence[ChunkItem]) -> list[DecisionResult]:
        self.store.remember_people(item.request.user_id for item in items)
        people: list[Person] = []

        def add(transaction: Transaction) -> None:
            person = self.store.person(transaction.customer_id, make=True)
            assert person is not None
            self.store.queue_transaction(transaction, person)
            people.append(person)

        with span("features"):
            inputs = cast(TransactionScorer, scorer).prepare_in_turn([item.request for item in items], add)
        with span("score"):
            scores = split_scores(scorer.bundle.score(np.stack([scoring_input.row for scoring_input in inputs])))
        with span("explain"):
            answers = [scorer.build_answer(*pair) for pair in zip(inputs, scores, strict=True)]
        decisions = []
        for (request, key, origin), person, scoring_input, answer in zip(items, people, inputs, answers, strict=True):
            request_json = request.model_dump_json().encode()
            stored_json = request_json if scoring_input.request is request else scoring_input.request.model_dump_json().encode()
            digest = self.store.digest(request_json)
            decisions.append(self._new_decision(domain, scoring_input, answer, stored_json, key, digest, person, origin))
        self.store.insert_queued()
        self.store.insert_decisions(decisions)
        return [_result(*each) for each in zip(decisions, inputs, answers, strict=True)]

    def _decide(self, domain: str, scorer: Scorer, request: Any, key: str | None) -> DecisionResult:
        request_json = request.model_dump_json().encode()
        digest = self.store.digest(request_json)
        transaction_id = request.transaction_id if isinstance(request, TransactionRequest) else None
        self.lock_chunk([ChunkItem.of(request, key)])
        prior = self.store.find_prior_decision(transaction_id=transaction_id, key=key)
        if prior is not None:
            return DecisionResult(prior.id, self._prior_answer(prior, digest, [_TAKEN] if transaction_id and key is None else []))
        with span("features"):
            scoring_input = scorer.prepare(request)
        scores = score(scorer.bundle, scoring_input.row)
        with span("explain"):
            answer = scorer.build_answer(scoring_input, scores)
        # A transaction without an identifier got a new one: the decision stores the request with the identifier.
        stored_json = request_json if scoring_input.request is request else scoring_input.request.model_dump_json().encode()
        person = self._person(scoring_input)
        decision = self._new_decision(domain, scoring_input, answer, stored_json, key, digest, person)
        self._insert_transaction(scoring_input, person)
        self.store.insert_decisions([decision])
        return _result(decision, scoring_input, answer)

    def find_prior_result(self, request: Any, key: str) -> DecisionResult | None:
        """Return the answer of the decision that was made under this idempotency key; None where there is none.

        Raises
        ------
        bento.problems.Problem
            As of `_prior_answer`.
        """
        prior = self.store.find_prior_decision(key=key)
        if prior is None:
            return None
        return DecisionResult(prior.id, self._prior_answer(prior, self.store.digest(request.model_dump_json().encode())))

    def _prior_answer(self, prior: PriorDecision, digest: str, fields: Sequence[FieldError] = ()) -> bytes:
        """Return the answer of a prior decision to the same request.

        Raises
        ------
        bento.problems.Problem
            409 where the prior request differs, or its answer was erased or cannot be rebuilt as it was sent.
        bento.store.database.StoreBusy
            In the event loop's thread, where an old bundle has to be loaded.
        """
        if prior.digest != digest:
            raise Problem(409, "conflict", "Another request was sent with this transaction_id or Idempotency-Key.", fields)
        if prior.payload is not None:
            (body,) = self.answers.rebuild(prior.domain, prior.model_version, prior.policy_version, [prior.payload])
            if body is None:
                model = f"{prior.domain} {prior.model_version}"
                logger.error("the answer of decision %s cannot be rebuilt: %s is missing or answers otherwise", prior.id, model)
                raise Problem(409, "answer_lost", f"Decision {prior.id} answered this request and stands. {_LOST}")
            return with_decision_id(prior.id, body)
        if prior.body is None:
            raise Problem(409, "conflict", "The answer to this request was erased with everything else about its person.")
        return with_decision_id(prior.id, prior.body)

    def record_scored(
        self, domain: str, scored: Sequence[tuple[ScoringInput, Any]], keys: Sequence[str | None]
    ) -> list[DecisionResult | Problem]:
        """Record the decisions of requests that were scored together, inside a write transaction.

        A request with a prior decision gets the prior answer.

        Parameters
        ----------
        scored
            The scoring input and the answer of each request; none of them is a transaction.
        keys
            The idempotency key of each.
        """
        results: list[Any] = []
        decisions: list[NewDecision] = []
        origin = RequestOrigin.current()
        for (scoring_input, answer), key in zip(scored, keys, strict=True):
            # The same batch may have been sent twice, and recorded by another request since the look-up before scoring.
            prior = key and capture_problem(self.find_prior_result, scoring_input.request, key)
            if prior:
                results.append(prior)
                continue
            request_json = scoring_input.request.model_dump_json().encode()
            person = capture_problem(self._person, scoring_input)
            if isinstance(person, Problem):
                results.append(person)
                continue
            decision = capture_problem(self._new_decision, domain, scoring_input, answer, request_json, key, None, person, origin)
            if isinstance(decision, Problem):
                results.append(decision)
                continue
            decisions.append(decision)
            results.append(_result(decision, scoring_input, answer))
        if decisions:
            self.store.insert_decisions(decisions)
        return results

    def answer_loan_what_if(self, request: LoanWhatIfRequest) -> LoanAnswer:
        """Answer a what-if about a loan and record in the audit that it was answered; no decision is stored.

        Raises
        ------
        bento.problems.Problem
            As of `scorer`, and for a request that the scorer refuses.
        """
        answer = cast(LoanAnswer, self.loan_scorer().answer(request))
        self.record_counterfactual("loan_default", request, answer)
        return answer

    def record_counterfactual(self, domain: str, request: Any, answer: Any) -> None:
        """Record in the audit that a client was sent a counterfactual; nothing else is stored.

        Raises
        ------
        bento.problems.Problem
            Where the store takes no write.
        """
        with write_transaction(self.store):
            person = request.customer_id and self.store.person(request.customer_id)
            self.store.audit(
                "advise",
                person=person and person.person,
                domain=domain,
                model_version=answer.model.version,
                inputs=self.store.digest(request.model_dump_json().encode()),
                output=self.store.digest(answer.model_dump_json().encode()),
            )

    def _new_decision(
        self,
        domain: str,
        scoring_input: ScoringInput,
        answer: Any,
        request: bytes,
        key: str | None,
        digest: str | None,
        person: Person | None,
        origin: RequestOrigin | None = None,
    ) -> NewDecision:
        probability, decision = outcome_of(domain, answer)
        body = answer.model_dump_json().encode()
        is_full = (domain, answer.model.version) not in self._archived or keeps_full_answer(domain, answer)
        return NewDecision(
            id=self.store.new_id(),
            domain=domain,
            route=DOMAINS[domain].route,
            model_version=answer.model.version,
            policy_version=answer.policy_version,
            request=request,
            answer=body,
            row=scoring_input.row,
            probability=probability,
            decision=decision,
            decision_context=scoring_input.decision_context,
            person=person,
            transaction_id=scoring_input.transaction and scoring_input.transaction.transaction_id,
            key=key,
            digest=digest,
            abridged=None if is_full else abridge(answer, body, probability, scoring_input.snapshot),
            origin=origin,
            alert=NewAlert(answer.expected_loss_amount) if decision in DOMAINS[domain].alerts else None,
        )

    def _person(self, scoring_input: ScoringInput) -> Person | None:
        """Return the person of a decision; a new customer of a transaction is inserted."""
        if scoring_input.snapshot is not None:
            return self.store.person(scoring_input.snapshot.customer_id)
        if scoring_input.transaction is not None:
            return self.store.person(scoring_input.transaction.customer_id, make=True)
        return None

    def _insert_transaction(self, scoring_input: ScoringInput, person: Person | None) -> None:
        """Add a scored transaction to the history; do nothing in the other domains."""
        if scoring_input.transaction is None or person is None:
            return
        if not self.store.insert_transaction(scoring_input.transaction, person):
            raise Problem(409, "conflict", "Another transaction was sent with this identifier.", [_TAKEN])

    def lock_chunk(self, items: Sequence[ChunkItem]) -> None:
        """Lock the identifiers of requests until commit, so that no worker misses a decision that another worker is making.

        A transaction locks those of all its requests at once. Chunks that lock item by item would deadlock: they name
        the same customers in different orders.
        """
        # Merchants are not locked: workers would wait for each other at every busy one. A decision counts all transactions of its
        # merchant that were committed before its own transaction locked its customer; those decided elsewhere at that moment come later.
        transactions = [request for request, _, _ in items if isinstance(request, TransactionRequest)]
        self.store.advisory_lock(
            customer={request.user_id for request in transactions},
            transaction={request.transaction_id for request in transactions if request.transaction_id is not None},
            idempotency={lock_name(key, origin.caller) for _, key, origin in items if key is not None},
        )


def lock_name(key: str, caller: str | None = None) -> str:
    """Return the lock's name of an idempotency key of a caller, the current one by default."""
    return f"{caller or RequestOrigin.current().caller}\0{key}"


def capture_problem(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return the result of a call, or the problem it raised; an internal failure becomes a problem of this item alone.

    Raises
    ------
    bento.store.database.StoreUnavailable
        Inside a transaction that cannot go on.
    """
    try:
        return call(*arguments)
    except Problem as problem:
        return problem
    except StoreUnavailable:
        raise
    except STORE_FAULTS as error:  # one person's key cannot be opened, for example: 503 for this item, as if it were sent alone
        log_failure(error)
        return Problem.from_status(503)
    except Exception as error:
        log_failure(error)
        return Problem.from_status(500)


def with_decision_id(decision_id: str, answer: bytes) -> bytes:
    """Return a stored answer with the decision's id in it."""
    return b'{"decision_id":"%s",%s' % (decision_id.encode(), answer.removeprefix(_UNNAMED))


def _result(decision: NewDecision, scoring_input: ScoringInput, answer: Any) -> DecisionResult:
    return DecisionResult(decision.id, with_decision_id(decision.id, decision.answer), answer, scoring_input.request)
