"""Tests of the request models: unknown, non-finite, wrongly typed and extreme values are refused, and the field is named."""

import json

import pytest
from pydantic import ValidationError

from schemas import api
from schemas.api import Request

REQUESTS = [model for model in vars(api).values() if isinstance(model, type) and issubclass(model, Request)]
MODELS = [model for model in REQUESTS if model not in (Request, api.Batch)]
BODIES = [(model, dict(body)) for model in MODELS for body in model.examples.values()]
NUMBERS = [
    (model, body, name)
    for model, body in BODIES
    for name, value in body.items()
    if isinstance(value, int | float) and not isinstance(value, bool) and not name.endswith("_id")  # which may be text
]
ids = dict(ids=lambda value: value.__name__ if isinstance(value, type) else value if isinstance(value, str) else "")


def refused(model, body):
    """Return the fields for which a body is refused; none where it is accepted."""
    try:
        model.model_validate_json(json.dumps(body))
    except ValidationError as error:
        assert not any("input" in line for line in error.errors(include_input=False))
        return [str(line["loc"][0]) for line in error.errors()]
    return []


@pytest.mark.parametrize(("model", "body"), BODIES, **ids)
def test_an_example_is_taken_and_with_an_unknown_field_refused(model, body):
    assert refused(model, body) == []
    assert refused(model, body | {"colour": "red"}) == ["colour"]


@pytest.mark.parametrize(("model", "body", "name"), NUMBERS, **ids)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf"), "12", True, [1], {}, -1, 1e300])
def test_a_number_that_is_none_or_out_of_bounds_is_refused(model, body, name, value):
    assert refused(model, body | {name: value}) == [name]


@pytest.mark.parametrize("when", ["0001-01-01T00:00:00+14:00", "1969-12-31T23:59:59", "2100-01-01T00:00:00", "9999-12-31T23:59:59-14:00",
                                  "yesterday", 1700000000, "1700000000000", "-17000000000.5"])  # fmt: skip
@pytest.mark.parametrize(("model", "name"), [(api.TransactionRequest, "timestamp"), (api.FeedbackRequest, "known_at")])
def test_a_time_far_away_or_in_another_form_is_refused(model, name, when):
    body = dict(next(iter(model.examples.values())))

    assert refused(model, body | {name: when}) == [name]


@pytest.mark.parametrize(
    ("model", "change"),
    [
        (api.OfferRequest, {"pd": 4}),  # percent where a probability is meant
        (api.OfferRequest, {"pd": -0.01}),
        (api.LoanRequest, {"annual_rate_pct": -1}),
        (api.LoanRequest, {"annual_rate_pct": 101}),
        (api.LoanRequest, {"term_months": 12.5}),
        (api.LoanRequest, {"term_months": 601}),
        (api.LoanRequest, {"loan_amount": 0}),
        (api.FeedbackRequest, {"label": "true"}),
        (api.FeedbackRequest, {"label": 1}),
    ],
)
def test_a_value_in_another_unit_is_refused(model, change):
    body = dict(next(iter(model.examples.values())))

    assert refused(model, body | change) == list(change)
