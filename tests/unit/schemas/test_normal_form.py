"""Tests of the normal form of identifiers and countries, and of the requests that are brought into it."""

import json
import sys
from importlib.resources import files
from unicodedata import category, is_normalized, name, normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas import api
from schemas.normal_form import COUNTRY_CODES, TRIMMED_CHARACTERS, normalise_country, normalise_text

TEXTS = st.text(st.one_of(st.characters(codec="utf-8"), st.sampled_from("aZß1 \u0301\u0327\u1100\u1161\u11a8" + TRIMMED_CHARACTERS)))


IGNORABLE = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0"
"""Ignorable code points that are no format characters and no variation selectors: a joiner, and letters without a shape."""


def is_seen(character):
    """Return whether a character has a shape, by Unicode's category and name."""
    is_ignorable = character in IGNORABLE or "VARIATION SELECTOR" in name(character, "")
    is_blank = character.isspace() or character == "\N{BRAILLE PATTERN BLANK}"
    return not (is_ignorable or is_blank or category(character) in ("Cc", "Cf"))


@given(TEXTS)
def test_the_normal_form_is_trimmed_composed_and_its_own_normal_form(text):
    normal = normalise_text(text)

    assert is_normalized("NFC", normal)
    assert normal == normal.strip() == normalise_text(normal) == normalise_text(f" \u200b{text}\u00a0\n")
    assert normal == normalise_text(normalize("NFD", text))


@pytest.mark.parametrize(
    "spelling", ["101", " 101", "101 ", "\t101\r\n", "101\u00a0", "\u200b101", "\ufeff101", "101\u3000", "\u200e101\u200e", "101\0"]
)
def test_a_customer_is_the_same_however_their_identifier_is_padded(spelling):
    assert normalise_text(spelling) == "101"


def test_no_character_that_nobody_sees_makes_another_customer():
    unseen = [chr(code) for code in range(sys.maxunicode + 1) if not is_seen(chr(code))]

    assert len(unseen) > 500
    assert {normalise_text(f"{pad}101{pad}") for pad in unseen} == {"101"}
    assert {normalise_text(f"{pad}é{pad}") for pad in unseen} == {"é"}


def test_case_and_characters_inside_stay_significant():
    assert len({normalise_text(text) for text in ("A1", "a1", "A 1", "A  1", "Ａ1", "A-1")}) == 6


def test_the_codes_are_those_of_the_time_zone_database():
    table = files("tzdata").joinpath("zoneinfo", "iso3166.tab").read_text(encoding="utf-8")

    assert {line.split("\t")[0] for line in table.splitlines() if not line.startswith("#")} == COUNTRY_CODES


@pytest.mark.parametrize(("sent", "code"), [("at", "AT"), (" At ", "AT"), ("AT\u200b", "AT"), ("ß", "ß"), ("ıt", "ıt"), ("aut", "AUT")])
def test_a_country_is_in_upper_case(sent, code):
    assert normalise_country(sent) == code


# Requests


def transaction(**changes):
    body = {"user_id": "101", "amount": 1.5, "timestamp": "2024-05-06T12:00:00"} | changes
    return api.TransactionRequest.model_validate_json(json.dumps(body))


@pytest.mark.parametrize(
    ("model", "body"),
    [
        (api.TransactionRequest, {"user_id": "", "merchant": "", "transaction_id": "", "amount": 1, "timestamp": "2024-05-06T12:00:00"}),
        (api.LoanRequest, {"customer_id": "", "loan_id": ""}),
        (api.NearestChangeRequest, {"customer_id": "", "loan_id": ""}),
        (api.SpendingRequest, {"customer_id": ""}),
        (api.CashflowRequest, {"customer_id": "", "account_id": ""}),
        (api.OfferRequest, {"customer_id": ""}),
        (api.FeedbackRequest, {"decision_id": "", "transaction_id": "", "label": True}),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_every_identifier_of_a_request_is_brought_into_normal_form(model, body):
    names = [name for name, value in body.items() if value == ""]
    sent = model.model_validate_json(json.dumps(body | dict.fromkeys(names, " Cafe\u0301\u200b")))

    assert {getattr(sent, name) for name in names} == {"Caf\u00e9"}


@pytest.mark.parametrize(("sent", "read"), [("at", "AT"), (" de ", "DE"), ("NO", "NO"), (None, None)])
def test_a_country_of_a_request_is_brought_into_normal_form(sent, read):
    assert transaction(country=sent).country == read


@pytest.mark.parametrize("country", ["AUT", "ZZ", "XK", "UK", "", " ", "A", "ß", "ıt", "Ａ", 40, True, ["AT"], {"AT": 1}, "a" * 200_000])
def test_an_unknown_country_is_refused_with_its_field(country):
    with pytest.raises(ValidationError) as refusal:
        transaction(country=country)

    (error,) = refusal.value.errors()
    assert error["loc"] == ("country",)
    assert "ISO 3166-1 alpha-2" in error["msg"]


@pytest.mark.parametrize("user_id", ["", " ", "\u200b\ufeff", "a" * 129, "e\u0301" * 129, "\u0301\u0327" * 100_000])
def test_a_blank_or_long_identifier_is_refused(user_id):
    with pytest.raises(ValidationError) as refusal:
        transaction(user_id=user_id)

    assert [error["loc"] for error in refusal.value.errors()] == [("user_id",)]


def test_the_length_of_an_identifier_is_that_of_its_normal_form():
    assert transaction(user_id=" " + "e\u0301" * 128).user_id == "é" * 128
