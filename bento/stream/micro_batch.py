"""Micro-batches: messages that are decided in one transaction of the store, which also moves the worker's places on.

New transactions are decided together, by `Decisions.decide_together`, and repeated ones get their prior answers. So a decision is the one
that `POST /v1/transactions` gives, byte for byte, whichever way the transaction comes first.
"""

from collections.abc import Sequence
from typing import TypeAlias

from bento.context import Caller, current_caller, request_id
from bento.decisions.engine import ChunkItem, DecisionResult, Decisions, NotTogetherError, capture_problem
from bento.decisions.scorers.base import Scorer
from bento.problems import Problem
from bento.store.session import write_transaction
from bento.stream.messages import DOMAIN
from bento.stream.offsets import PartitionPlace, save_places

STREAM_CALLER = Caller("stream", frozenset({"scorer"}))
"""The caller of all messages: Kafka authenticates its producers and tells the worker nothing of them."""
DecidedMessage: TypeAlias = DecisionResult | Problem
"""The answer to a message, or the problem that makes it a dead letter."""


def decide_micro_batch(
    decisions: Decisions, scorer: Scorer, items: Sequence[ChunkItem], places: Sequence[PartitionPlace]
) -> list[DecidedMessage]:
    """Decide the transactions of a micro-batch and move the places on: all of it is committed, or nothing is.

    Parameters
    ----------
    items
        Transactions with their origin, each with an identifier, in the order of their partitions.
    places
        The place in each partition behind the micro-batch.

    Raises
    ------
    bento.problems.Problem
        503 where the store cannot be reached or written.
    """
    try:
        return _decide_items(decisions, scorer, items, places, together=True)
    except NotTogetherError:  # one of them is refused: the others are decided without it
        return _decide_items(decisions, scorer, items, places, together=False)


def _decide_items(
    decisions: Decisions, scorer: Scorer, items: Sequence[ChunkItem], places: Sequence[PartitionPlace], *, together: bool
) -> list[DecidedMessage]:
    results: dict[int, DecidedMessage] = {}
    with write_transaction(decisions.store) as connection:
        decisions.lock_chunk(items)
        if together:
            new = _find_new(decisions, items)
            if new:
                decided = decisions.decide_together(DOMAIN, scorer, [items[at] for at in new], are_new=True)
                results = dict(zip(new, decided, strict=True))
        for at, item in enumerate(items):
            if at not in results:
                results[at] = capture_problem(_decide_alone, decisions, scorer, item)
        save_places(connection, places)
    return [results[at] for at in range(len(items))]


def _find_new(decisions: Decisions, items: Sequence[ChunkItem]) -> list[int]:
    """Return the numbers of the items whose transaction was not decided before and is not an earlier one's repetition."""
    seen = decisions.store.find_decided({item.request.transaction_id for item in items})
    new = []
    for at, item in enumerate(items):
        if item.request.transaction_id not in seen:
            seen.add(item.request.transaction_id)
            new.append(at)
    return new


def _decide_alone(decisions: Decisions, scorer: Scorer, item: ChunkItem) -> DecisionResult:
    """Decide one item inside the transaction, under its own origin; raises as `Decisions.decide` does."""
    caller_token, request_token = current_caller.set(STREAM_CALLER), request_id.set(item.origin.request_id)
    try:
        return decisions.decide_in_savepoint(DOMAIN, scorer, item.request, None)
    finally:
        request_id.reset(request_token)
        current_caller.reset(caller_token)
