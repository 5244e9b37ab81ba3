"""Batches: each item is checked, scored and answered on its own, so that an invalid item does not affect the others.

Rows that do not depend on each other are scored as one matrix, by the same code as a single row: the numbers are equal to the last digit.
Features of transactions are computed one after the other, because each becomes part of the history of the next; the rest of a chunk is done
together. Where one of a chunk is refused, the chunk is decided one by one.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.responses import Response

from bento.context import request_id, span
from bento.decisions.answers import ScoringInput, score, split_scores
from bento.decisions.domains import domain_of
from bento.decisions.engine import ChunkItem, DecisionResult, Decisions, NotTogetherError, capture_problem, lock_name
from bento.decisions.scorers.base import Scorer
from bento.problems import Problem, invalid_request
from bento.store.session import map_store_faults, write_transaction
from finrisk_assets.scoring.bundle import Bundle, Scores
from schemas.api import Answer, Request, TransactionRequest

ScoredRequest: TypeAlias = tuple[ScoringInput, Answer]
"""A scoring input and the answer built from its scores."""
ItemResult: TypeAlias = DecisionResult | Problem
"""The answer to one item, or the problem of that item."""

BATCH_CHUNK_SIZE = 75
"""Items per turn of the event loop and per store transaction. A larger chunk saves commits; other requests wait longer."""
TRANSACTION_CHUNK_SIZE = 256
"""Transactions of a micro-batch: as `BATCH_CHUNK_SIZE`, for items that take less time."""


def parse_items(kind: type[Request], items: Sequence[Any]) -> list[Request | Problem]:
    """Return each item as a request, or its problem; a field is named as it would be if the item were sent alone."""
    return [_parse_item(kind, item) for item in items]


def _parse_item(kind: type[Request], item: Any) -> Request | Problem:
    try:
        return kind.model_validate(item)
    except ValidationError:
        pass
    try:
        # As JSON again: an error names the field and what is wrong in the words of a request that is sent alone.
        return kind.model_validate_json(to_json(item))
    except ValidationError as error:
        return invalid_request(error.errors(include_context=False, include_input=False, include_url=False))


async def decide_batch(decisions: Decisions, requests: Sequence[Any], key: str | None) -> list[ItemResult]:
    """Decide the items of a batch, one chunk per store transaction; other requests are answered between two chunks.

    Parameters
    ----------
    decisions
        The worker's decisions.
    requests
        The items: each a request, or the problem of an item that cannot be parsed.
    key
        The batch's idempotency key; with an item's place it is the item's key.

    Returns
    -------
    list
        The result of each item, in the order of the items.
    """
    if any(isinstance(request, TransactionRequest) for request in requests):
        return await decide_sequentially(decisions, requests, key)
    results: list[Any] = [request if isinstance(request, Problem) else None for request in requests]
    places: dict[str, list[int]] = {}
    for place, request in enumerate(requests):
        if not isinstance(request, Problem):
            places.setdefault(domain_of(request), []).append(place)
    for domain, domain_places in places.items():
        for first in range(0, len(domain_places), BATCH_CHUNK_SIZE):
            chunk = domain_places[first : first + BATCH_CHUNK_SIZE]
            items = [requests[place] for place in chunk]
            decided = await _run_chunk(decisions, decide_as_matrix, decisions, domain, items, key, chunk)
            for number, place in enumerate(chunk):
                results[place] = decided if isinstance(decided, Problem) else decided[number]
            await asyncio.sleep(0)
    return results


async def _run_chunk(decisions: Decisions, decide: Callable[..., list[ItemResult]], *arguments: Any) -> list[ItemResult] | Problem:
    """Decide a chunk, off the event loop where the store is not free at once; return the results, or the problem of all items."""
    try:
        result: list[ItemResult] | Problem = await decisions.store.thread.run_if_busy(capture_problem, decide, *arguments)
    except Problem as problem:
        return problem
    return result


def decide_as_matrix(
    decisions: Decisions, domain: str, requests: Sequence[Any], key: str | None, places: Sequence[int]
) -> list[ItemResult]:
    """Decide a chunk of one domain: scored as one matrix, recorded in one transaction.

    Parameters
    ----------
    key, places
        The batch's idempotency key, and the place of each request in the batch.
    """
    scorer = capture_problem(decisions.scorer, domain)
    if isinstance(scorer, Problem):
        return [scorer] * len(requests)
    keys = [_item_key(key, place) for place in places]
    # Looked up before scoring, without a lock, so that a resent batch is not scored again.
    results: list[Any] = _find_prior_results(decisions, requests, keys)
    open_items = [at for at, result in enumerate(results) if result is None]
    scored = score_matrix(scorer, scorer.bundle, [requests[at] for at in open_items])
    to_record = []
    for at, item in zip(open_items, scored, strict=True):
        if isinstance(item, Problem):
            results[at] = item
        else:
            to_record.append((at, item))
    if to_record:
        outcome = capture_problem(_record_chunk, decisions, domain, [item for _, item in to_record], [keys[at] for at, _ in to_record], key)
        for number, (at, _) in enumerate(to_record):
            results[at] = outcome if isinstance(outcome, Problem) else outcome[number]
    return results


def _find_prior_results(decisions: Decisions, requests: Sequence[Any], keys: Sequence[str | None]) -> list[ItemResult | None]:
    """Return the answer of each request's prior decision, or the problem of the look-up; None for a request that is new."""
    if not any(keys):
        return [None] * len(requests)

    def look_up() -> list[ItemResult | None]:
        with map_store_faults(), decisions.store.reading():
            return [capture_problem(decisions.find_prior_result, request, key) for request, key in zip(requests, keys, strict=True)]

    prior_results = capture_problem(look_up)
    return [prior_results] * len(requests) if isinstance(prior_results, Problem) else prior_results


def _record_chunk(
    decisions: Decisions, domain: str, scored: Sequence[ScoredRequest], keys: Sequence[str | None], batch_key: str | None
) -> list[ItemResult]:
    with write_transaction(decisions.store):
        decisions.store.advisory_lock(idempotency=batch_key and lock_name(batch_key))
        return decisions.record_scored(domain, scored, keys)


def score_matrix(scorer: Scorer, bundle: Bundle, requests: Sequence[Request]) -> list[ScoredRequest | Problem]:
    """Return each request's scoring input and answer, or its problem, in the order of the requests."""
    inputs = [capture_problem(scorer.prepare, request) for request in requests]
    rows = [scoring_input.row for scoring_input in inputs if isinstance(scoring_input, ScoringInput)]
    scores_of_rows: Iterator[Scores | None] = iter(_score_rows(bundle, rows))
    results: list[ScoredRequest | Problem] = []
    for scoring_input in inputs:
        if isinstance(scoring_input, Problem):
            results.append(scoring_input)
            continue
        answer = capture_problem(_answer, scorer, bundle, scoring_input, next(scores_of_rows))
        results.append(answer if isinstance(answer, Problem) else (scoring_input, answer))
    return results


def _answer(scorer: Scorer, bundle: Bundle, scoring_input: ScoringInput, scores: Scores | None) -> Answer:
    return scorer.build_answer(scoring_input, scores or score(bundle, scoring_input.row))


def _score_rows(bundle: Bundle, rows: Sequence[Any]) -> list[Scores | None]:
    """Return the scores of each row, from one matrix; None for all where the model refuses a row: each is then scored alone."""
    if not rows:
        return []
    try:
        with span("score"):
            scores = bundle.score(np.stack(rows))
    except ValueError:
        return [None] * len(rows)
    return [*split_scores(scores)]


async def decide_sequentially(decisions: Decisions, requests: Sequence[Any], key: str | None) -> list[ItemResult]:
    """Decide transactions one after the other, each part of the history of the next; parameters as of `decide_batch`."""
    domain = "transaction_anomaly"
    scorer = capture_problem(decisions.scorer, domain)
    results: list[ItemResult] = []
    decided: list[ItemResult] | Problem
    for first in range(0, len(requests), TRANSACTION_CHUNK_SIZE):
        chunk = requests[first : first + TRANSACTION_CHUNK_SIZE]
        if isinstance(scorer, Problem):
            decided = scorer
        else:
            keys = [_item_key(key, place) for place in range(first, first + len(chunk))]
            decided = await _run_chunk(decisions, _decide_chunk, decisions, domain, scorer, chunk, keys)
        results += [decided] * len(chunk) if isinstance(decided, Problem) else decided
        await asyncio.sleep(0)
    return [request if isinstance(request, Problem) else result for request, result in zip(requests, results, strict=True)]


def _decide_chunk(
    decisions: Decisions, domain: str, scorer: Scorer, requests: Sequence[Any], keys: Sequence[str | None]
) -> list[ItemResult]:
    """Decide a few transactions in one write transaction: a refused transaction is rolled back, the others are recorded."""
    valid = [ChunkItem.of(request, key) for request, key in zip(requests, keys, strict=True) if not isinstance(request, Problem)]
    try:
        with write_transaction(decisions.store):
            decisions.lock_chunk(valid)
            decided = iter(decisions.decide_together(domain, scorer, valid))
            return [request if isinstance(request, Problem) else next(decided) for request in requests]
    except NotTogetherError:
        with write_transaction(decisions.store):
            decisions.lock_chunk(valid)
            return [
                request if isinstance(request, Problem) else capture_problem(decisions.decide_in_savepoint, domain, scorer, request, key)
                for request, key in zip(requests, keys, strict=True)
            ]


def _item_key(key: str | None, place: int) -> str | None:
    return key and f"{key}\0{place}"


def build_response(results: Sequence[ItemResult]) -> Response:
    """Build the response to a batch (`schemas.api.BatchAnswer`) from the results of its items."""
    current_id = request_id.get()
    parts = [b'{"results":[']
    for result in results:
        if isinstance(result, Problem):
            # The envelope is `{"error": …}`; its content follows the status.
            parts += (b'{"status":%d,"answer":null,' % result.status, result.to_json(current_id)[1:], b",")
        else:
            parts += (b'{"status":200,"answer":', result.body, b',"error":null},')
    parts[-1] = parts[-1].removesuffix(b",")
    parts.append(b"]}")
    # Megabytes, joined once: a copy of them takes as long as the decisions' scores.
    return Response(b"".join(parts), media_type="application/json")
