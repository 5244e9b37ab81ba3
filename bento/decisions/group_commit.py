"""Group commit: requests that arrive in adjacent turns of the event loop share one transaction, and so one wait for the disk.

A group is decided on the event loop where the store is free at once, else in the store's thread, as always on PostgreSQL; the requests
that come meanwhile are the next groups. The transactions of a group are decided together, with scores, statements and inserts in common.

`engine` decides the requests of the group; `batch` decides the items of one client's batch.
"""

import asyncio
from collections.abc import Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

from bento.context import idempotency_key
from bento.decisions.engine import ChunkItem, DecisionResult, Decisions, NotTogetherError, capture_problem
from bento.problems import Problem, log_failure
from bento.store.database import StoreBusy
from bento.store.session import write_transaction
from schemas.api import TransactionRequest

GROUP_COMMIT_MAX = 16
"""Requests in one transaction at most. A higher number saves commits; the last request of a group waits longer for its answer."""
QUIET_TURNS = 3
"""Turns of the event loop without another request, after which a group is decided. More make larger groups, because requests that arrive
together pass the service's layers in different turns; a turn of an idle loop takes microseconds."""


@dataclass(frozen=True)
class PendingRequest:
    """A request that waits for its decision, with the context that holds its caller and request id."""

    domain: str
    request: Any
    key: str | None
    context: Context
    result: asyncio.Future[DecisionResult]


class GroupCommit:
    """A commit of all decisions whose requests came in adjacent turns of the event loop."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._pending: list[PendingRequest] = []
        self._was_alone = False  # the last group was one request
        self._waiting: asyncio.Task[None] | None = None

    async def submit(self, domain: str, request: Any) -> DecisionResult:
        """Make one decision as `Decisions.decide` does, in one transaction with the other pending requests.

        A refused request is rolled back alone.
        """
        loop = asyncio.get_running_loop()
        pending = PendingRequest(domain, request, idempotency_key.get(), copy_context(), loop.create_future())
        self._pending.append(pending)
        if len(self._pending) == 1 and self._waiting is None:
            # One client alone waits for nobody. Of several, the others' requests come during the commit and are a group that waits again.
            loop.call_soon(self._gather, 1, 1 if self._was_alone else QUIET_TURNS)
        return await pending.result

    def _gather(self, n_before: int, quiet_turns: int) -> None:
        """Decide the next group once `QUIET_TURNS` turns of the event loop brought no further request, or the group is full."""
        n_pending = len(self._pending)
        left = QUIET_TURNS if n_pending > n_before else quiet_turns - 1
        if left and n_pending < GROUP_COMMIT_MAX:
            asyncio.get_running_loop().call_soon(self._gather, n_pending, left)
        else:
            self._commit_pending()

    def _commit_pending(self) -> None:
        """Decide the next group of pending requests; requests whose client has left are dropped."""
        group = [pending for pending in self._pending[:GROUP_COMMIT_MAX] if not pending.result.done()]
        self._pending = self._pending[GROUP_COMMIT_MAX:]
        self._was_alone = len(group) == 1
        results: list[DecisionResult | Exception] = []
        if group:
            try:
                results = self._commit_in_context(group)
            except StoreBusy:
                self._waiting = asyncio.create_task(self._commit_in_thread(group))
                return
            except Exception as error:
                results = _fail_group(group, error)
        self._answer_group(group, results)

    async def _commit_in_thread(self, group: Sequence[PendingRequest]) -> None:
        try:
            results = await self._decisions.store.thread.run(self._commit_in_context, group)
        except Exception as error:
            results = _fail_group(group, error)
        self._waiting = None
        self._answer_group(group, results)

    def _commit_in_context(self, group: Sequence[PendingRequest]) -> list[DecisionResult | Exception]:
        """Commit a group in a copy of its first request's context, whose trace holds the span of the commit."""
        return group[0].context.copy().run(self.commit_group, group)

    def _answer_group(self, group: Sequence[PendingRequest], results: Sequence[DecisionResult | Exception]) -> None:
        """Set the results of a group, except of clients that have left, and turn to the next group."""
        if self._pending:
            asyncio.get_running_loop().call_soon(self._gather, len(self._pending), QUIET_TURNS)
        for pending, result in zip(group, results, strict=True):
            if pending.result.done():
                continue
            if isinstance(result, DecisionResult):
                pending.result.set_result(result)
            else:
                pending.result.set_exception(result)

    def commit_group(self, group: Sequence[PendingRequest]) -> list[DecisionResult | Exception]:
        """Decide a group of requests in one transaction; return the result or the problem of each."""
        if len(group) == 1:
            return [self._decisions.decide(group[0].domain, group[0].request)]

        try:
            return self._commit_items(group, together=True)
        except NotTogetherError:
            return self._commit_items(group, together=False)

    def _commit_items(self, group: Sequence[PendingRequest], *, together: bool) -> list[DecisionResult | Exception]:
        """Decide a group in one transaction, its own transactions together where asked for: raises as `decide_together` does."""
        items = [pending.context.run(ChunkItem.of, pending.request, pending.key) for pending in group]
        with write_transaction(self._decisions.store):
            self._decisions.lock_chunk(items)
            decided = self._decide_transactions(group, items) if together else {}
            return [
                decided[number] if number in decided else pending.context.run(capture_problem, self._decide_pending, pending)
                for number, pending in enumerate(group)
            ]

    def _decide_transactions(self, group: Sequence[PendingRequest], items: Sequence[ChunkItem]) -> dict[int, DecisionResult]:
        """Decide the transactions of a group together; return the result by place, nothing where they are not several."""
        places = [number for number, pending in enumerate(group) if isinstance(pending.request, TransactionRequest)]
        if len(places) < 2:
            return {}
        domain = group[places[0]].domain
        scorer = capture_problem(self._decisions.scorer, domain)
        if isinstance(scorer, Problem):
            return {}
        return dict(zip(places, self._decisions.decide_together(domain, scorer, [items[place] for place in places]), strict=True))

    def _decide_pending(self, pending: PendingRequest) -> DecisionResult:
        scorer = self._decisions.scorer(pending.domain)
        return self._decisions.decide_in_savepoint(pending.domain, scorer, pending.request, pending.key)


def _fail_group(group: Sequence[PendingRequest], error: Exception) -> list[DecisionResult | Exception]:
    """Return a group's common failure for each request. The log has it under the first request's id; write it under the others' too."""
    if isinstance(error, Problem):  # any other failure is logged where the request is answered
        for pending in group[1:]:
            pending.context.run(log_failure, error.__context__ or error)
    return [error] * len(group)
