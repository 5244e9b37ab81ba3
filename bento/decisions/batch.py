"""Many requests in one: each is checked, scored and answered by itself, so that a bad one never harms another.

Where every row is known before the model is asked, the rows are scored as one matrix, by the same code as a single row: the numbers are
equal to the last digit. Transactions are scored one after the other, because each is part of the history of those behind it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.responses import Response

from bento.context import request_id, span
from bento.decisions.answers import Asked, score
from bento.problems import Problem, invalid_request, log_failure
from bento.store.database import StoreUnavailable
from bento.store.keyring import KeyringError
from finrisk_assets.scoring.bundle import Bundle, Scores
from schemas.api import Answer, Request

Result: TypeAlias = Answer | Problem
"""What came of one item."""

Considered: TypeAlias = tuple[Asked, Answer]
"""What a model was asked, and the answer that follows."""

TOGETHER = 50
"""Items that are looked at before others are answered meanwhile."""


def checked(kind: type[Request], items: Sequence[Any]) -> list[Request | Problem]:
    """Each item as a request, or what is wrong with it; a field is named as it would be if the item were sent alone."""
    return [_checked(kind, item) for item in items]


def _checked(kind: type[Request], item: Any) -> Request | Problem:
    try:
        # As JSON again: only there a time is text, and a number never a text, to the strict models.
        return kind.model_validate_json(to_json(item))
    except ValidationError as error:
        return invalid_request(error.errors(include_context=False, include_input=False, include_url=False))


def answered(scorer: Any, bundle: Bundle, requests: Sequence[Request]) -> list[Considered | Problem]:
    """What each request asks the model of its domain and the answer to it, or the problem, in the order of the requests."""
    asked = [attempted(scorer.asked, request) for request in requests]
    rows = [one.row for one in asked if isinstance(one, Asked)]
    together: Iterator[Scores | None] = iter(_each(bundle, rows))
    found: list[Considered | Problem] = []
    for one in asked:
        if isinstance(one, Problem):
            found.append(one)
            continue
        scores = next(together)
        answer = attempted(lambda one, scores: scorer.answered(one, scores or score(bundle, one.row)), one, scores)
        found.append(answer if isinstance(answer, Problem) else (one, answer))
    return found


def _each(bundle: Bundle, rows: Sequence[Any]) -> list[Scores | None]:
    """The scores of each row, from one matrix; None for all where the model refuses one of them, which is then to be found."""
    if not rows:
        return []
    try:
        with span("score"):
            scores = bundle.score(np.stack(rows))
    except ValueError:
        return [None] * len(rows)
    return [
        replace(
            scores,
            margin=scores.margin[at : at + 1],
            probability=scores.probability[at : at + 1],
            contributions=scores.contributions[at : at + 1],
        )
        for at in range(len(rows))
    ]


def attempted(answer: Callable[..., Any], *asked: Any) -> Any:
    """The outcome of a call, or the problem that it raised; a failure of ours is one of this item alone.

    Raises
    ------
    bento.store.database.StoreUnavailable
        Inside a transaction that cannot go on.
    """
    try:
        return answer(*asked)
    except Problem as problem:
        return problem
    except StoreUnavailable:
        raise
    except KeyringError as error:  # a person's key that cannot be opened: the store fails this one, as it would alone
        log_failure(error)
        return Problem.of(503)
    except Exception as error:
        log_failure(error)
        return Problem.of(500)


def response(results: Sequence[bytes | Problem]) -> Response:
    """The answer to a batch (`schemas.api.BatchAnswer`) of the answers to its items, as JSON, and problems."""
    request = request_id.get()
    return Response(b'{"results":[' + b",".join(_result(one, request) for one in results) + b"]}", media_type="application/json")


def _result(one: bytes | Problem, request: str) -> bytes:
    if isinstance(one, Problem):
        # The envelope is `{"error": …}`: its inside goes beside the status.
        return b'{"status":%d,"answer":null,%s' % (one.status, one.body(request)[1:])
    return b'{"status":200,"answer":%s,"error":null}' % one
