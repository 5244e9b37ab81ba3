"""Tests of the features of a request: numbers, yes or no, and texts of categories."""

import json

import pytest
from pydantic import ValidationError

from schemas.api import LoanRequest


def read(**features):
    return LoanRequest.model_validate({"features": features})


def test_numbers_switches_and_texts_are_read_as_the_models_row_has_them():
    request = read(income=900, is_urban=True, area=" Cafe\u0301 ", nothing=None, blank=" ")
    assert request.features == {"income": 900.0, "is_urban": 1.0, "area": "Caf\u00e9", "nothing": None, "blank": ""}
    assert json.loads(request.model_dump_json())["features"] == request.features
    assert LoanRequest.model_validate_json(request.model_dump_json()) == request


@pytest.mark.parametrize("value", [[1], {"a": 1}, float("nan"), float("inf")])
def test_what_is_neither_a_number_nor_a_text_is_refused(value):
    with pytest.raises(ValidationError):
        read(area="31", income=value)


def test_texts_have_a_limit_and_count_as_features():
    with pytest.raises(ValidationError, match="at most 128 characters"):
        read(area="a" * 129)
    with pytest.raises(ValidationError, match="at most 1000"):
        read(**{f"f{number}": "31" for number in range(1001)})
