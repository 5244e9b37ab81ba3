"""Tests of the items of a batch: each is parsed as if it were sent alone."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from bento.decisions.batch import build_response, parse_items
from bento.decisions.domains import DOMAINS
from bento.decisions.engine import DecisionResult
from bento.problems import Problem, invalid_request
from schemas.api import Request

KINDS = sorted({domain.request for domain in DOMAINS.values()}, key=lambda kind: kind.__name__)
VALUES = (
    None, True, 0, 1, 12.0, 10**30, float("nan"), "", " 5 ", "12", "2024-05-06T12:00:00", "de", [1],
    {"a": True, "b": None}, {"a": "1"}, {"a": {}},
)  # fmt: skip


def parse_alone(kind: type[Request], item: Any) -> Request | Problem:
    try:
        return kind.model_validate_json(json.dumps(item))
    except ValidationError as error:
        return invalid_request(error.errors(include_context=False, include_input=False, include_url=False))


def content_of(parsed: Request | Problem) -> tuple[Any, ...]:
    return (parsed.status, parsed.to_json("")) if isinstance(parsed, Problem) else (repr(parsed), parsed.model_dump_json())


@pytest.mark.parametrize("kind", KINDS)
def test_an_item_is_parsed_as_if_it_were_sent_alone(kind: type[Request]) -> None:
    names = [*kind.model_fields, "Total_Income", "colour"]
    items: list[Any] = [example | {name: value} for example in kind.examples.values() for name in names for value in VALUES]
    items += [*kind.examples.values(), *VALUES]
    for item, parsed in zip(items, parse_items(kind, items), strict=True):
        assert content_of(parsed) == content_of(parse_alone(kind, item)), item


def test_the_answer_to_a_batch_holds_each_result_in_its_place() -> None:
    problem = Problem.from_status(503)
    results: list[DecisionResult | Problem] = [DecisionResult("a", b'{"pd":0.1}'), problem, DecisionResult("b", b'{"pd":0.2}'), problem]
    for some in (results, results[:1], results[1:2], results[:2]):
        statuses = [(one["status"], one["answer"], one["error"] is None) for one in json.loads(build_response(some).body)["results"]]
        assert statuses == [(503, None, False) if isinstance(result, Problem) else (200, json.loads(result.body), True) for result in some]
