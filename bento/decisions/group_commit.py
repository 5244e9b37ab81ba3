"""Group commit: requests that arrive in the same turn of the event loop share one transaction, and so one wait for the disk.

`engine` decides each request of the group; `batch` decides the items of one client's batch.
"""

import asyncio
from collections.abc import Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

from bento.context import idempotency_key
from bento.decisions.engine import DecisionResult, Decisions, capture_problem
from bento.store.session import write_transaction

GROUP_COMMIT_MAX = 16
"""Requests in one transaction at most. A higher number saves commits; the last request of a group waits longer for its answer."""


@dataclass(frozen=True)
class PendingRequest:
    """A request that waits for its decision, with the context that holds its caller and request id."""

    domain: str
    request: Any
    key: str | None
    context: Context
    result: asyncio.Future[DecisionResult]


class GroupCommit:
    """A commit of all decisions whose requests came in one turn of the event loop."""

    def __init__(self, decisions: Decisions) -> None:
        self._decisions = decisions
        self._pending: list[PendingRequest] = []

    async def submit(self, domain: str, request: Any) -> DecisionResult:
        """Make one decision as `Decisions.decide` does, in one transaction with the other pending requests.

        A refused request is rolled back alone. On PostgreSQL each request has its own transaction: several in one
        would wait for each other's locks.
        """
        if self._decisions.store.database.dialect == "postgresql":
            return self._decisions.decide(domain, request)
        loop = asyncio.get_running_loop()
        pending = PendingRequest(domain, request, idempotency_key.get(), copy_context(), loop.create_future())
        self._pending.append(pending)
        if len(self._pending) == 1:
            loop.call_soon(self._commit_pending)
        return await pending.result

    def _commit_pending(self) -> None:
        """Decide the next group of pending requests; requests whose client has left are dropped."""
        group = [pending for pending in self._pending[:GROUP_COMMIT_MAX] if not pending.result.done()]
        self._pending = self._pending[GROUP_COMMIT_MAX:]
        if self._pending:
            asyncio.get_running_loop().call_soon(self._commit_pending)
        if not group:
            return
        try:
            # The first request's trace holds the span of the commit.
            results = group[0].context.copy().run(self.commit_group, group)
        except Exception as error:
            results = [error] * len(group)
        for pending, result in zip(group, results, strict=True):
            if isinstance(result, DecisionResult):
                pending.result.set_result(result)
            else:
                pending.result.set_exception(result)

    def commit_group(self, group: Sequence[PendingRequest]) -> list[DecisionResult | Exception]:
        """Decide a group of requests in one transaction; return the result or the problem of each."""
        if len(group) == 1:
            return [self._decisions.decide(group[0].domain, group[0].request)]

        with write_transaction(self._decisions.store):
            return [pending.context.run(capture_problem, self._decide_pending, pending) for pending in group]

    def _decide_pending(self, pending: PendingRequest) -> DecisionResult:
        scorer = self._decisions.scorer(pending.domain)
        return self._decisions.decide_in_savepoint(pending.domain, scorer, pending.request, pending.key)
