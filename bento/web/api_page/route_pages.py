"""The parts of the OpenAPI page beside the types of each route: summary, group, lock, and the present models' own answer as example.

Nothing here names a person: a request of an example names a customer whom no ledger has, or features that are medians.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

from bento.access.roles import OPEN, ROUTES
from bento.problems import Problem

GROUPS: tuple[tuple[str, str, str], ...] = (
    ("transactions", "Is this transaction unusual, and does it need a review?", r"/v1/transactions"),
    ("alerts", "Reviewed and blocked transactions: claim them, and say what they were.", r"/v1/alerts"),
    ("loan default", "How likely is a default, and is the loan approved?", r"/v1/loan-default"),
    ("loan offers", "Which rate, amount and term to offer, if any?", r"/v1/loan-offers"),
    ("spending risk", "Will this person be in trouble within 90 days?", r"/v1/spending-risk"),
    ("cashflow", "Will the next month close above this one, and by how much?", r"/v1/cashflow"),
    ("outcomes", "What became of a decision.", r"/v1/feedback"),
    ("models", "The models that answer here, their figures, and the policy.", r"/v1/(model|policy|capacity|activity)"),
    ("people", "The stored scores of a customer; a person's data, exported and erased.", r"/v1/(risk-scores|people)"),
    ("audit", "Who did what, and when.", r"/v1/"),
)
"""Name, meaning and paths of each group of routes, in the order of the page; the last one takes what is left."""

EXAMPLE_CUSTOMER = "a customer of nobody"
"""The customer of an example whose answer reads a history: no ledger has such an identifier, so the history is empty."""

_METHODS = ("get", "post", "put", "patch", "delete")


def complete_document(document: dict[str, Any], *, has_lock: bool) -> dict[str, Any]:
    """Order an OpenAPI document by group, and give every route its summary, its group and, where a key is needed, its lock.

    Parameters
    ----------
    document
        The document of FastAPI; it is changed.
    has_lock
        Whether this service asks for a credential.
    """
    document.pop("security", None)
    locks: list[dict[str, list[str]]] = [{name: []} for name in document["components"].get("securitySchemes", {})]
    open_routes = {(route.method.lower(), route.path) for route in ROUTES if route.roles == OPEN}
    for path, method, operation in _list_operations(document):
        summary, description = split_description(operation.get("description", ""))
        operation["summary"] = summary or operation.get("summary", path)
        operation["description"] = description
        operation["tags"] = [GROUPS[_group_of(path)][0]]
        operation["security"] = locks if has_lock and (method, path) not in open_routes else []
    document["paths"] = dict(sorted(document["paths"].items(), key=lambda item: (_group_of(item[0]), len(item[0]), item[0])))
    document["tags"] = [{"name": name, "description": meaning} for name, meaning, _ in GROUPS]
    for schema in document["components"].get("schemas", {}).values():
        schema["properties"] = move_explanation(schema.get("properties", {})) or schema.get("properties", {})
        if not schema["properties"]:
            del schema["properties"]
    return document


def _list_operations(document: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method in _METHODS:
            if method in methods:
                yield path, method, methods[method]


def _group_of(path: str) -> int:
    return next(number for number, (_, _, pattern) in enumerate(GROUPS) if re.match(pattern, path))


def split_description(docstring: str) -> tuple[str, str]:
    """Return the first sentence of a docstring without its full stop, and the rest, both without indentation."""
    text = inspect.cleandoc(docstring)
    first, rest = re.match(r"(.*?)(?:\.(?=\s|$)\s*(.*))?$", text, re.DOTALL).groups()  # type: ignore[union-attr]
    return " ".join(first.split()), rest or ""


def move_explanation(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an answer with the explanation last: fifty contributions hide what stands behind them."""
    return {name: value for name, value in fields.items() if name != "explanation"} | {
        name: value for name, value in fields.items() if name == "explanation"
    }


def anonymise(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return an example's body about `EXAMPLE_CUSTOMER`, where it is about the user of a transaction."""
    return {**body, "user_id": EXAMPLE_CUSTOMER} if "user_id" in body else dict(body)


def answer_examples(scorer: Any, request_type: Any, bodies: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the answers of a scorer to the bodies of examples, in OpenAPI's form; nothing is recorded.

    A body about a customer of the ledger is left out: its answer would show the customer's features.
    """
    examples = {}
    for number, (title, body) in enumerate(bodies.items(), 1):
        if {"customer_id", "account_id"} & body.keys():
            continue
        try:
            answer = scorer.answer(request_type.model_validate(anonymise(body), strict=False))
        except Problem:
            continue
        examples[f"example_{number}"] = {"summary": title, "value": move_explanation(answer.model_dump(mode="json"))}
    return examples
