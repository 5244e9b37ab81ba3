"""The page of a loan: an application with its decision, the nearest change that turns it, and the best offer with its curve."""

import asyncio
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from bento.console.api_client import ApiRefusal
from bento.console.console_context import Console
from bento.console.presentation import charts

MAX_BARS = 10
WHAT_IF = "/v1/loan-default/what-if"
_SLIDERS = (
    ("loan_amount", "Amount (currency)", 100.0, 50.0),
    ("term_months", "Months to repay", 6.0, 1.0),
    ("annual_rate_pct", "Yearly rate, %", 0.0, 0.1),
)
"""Terms with a slider: name, text, lowest value and step."""
_FIELDS = ("customer_id", "loan_amount", "term_months", "annual_rate_pct")
_PARTS = (("interest", 1), ("expected_loss", -1), ("funding", -1), ("cost", -1))
"""Parts of an offer's profit, and whether each adds to it."""


async def show_loan_form(console: Console, request: Request) -> Response:
    """Return the application form."""
    return console.page(request, "loan.html", sent={}, loan=None, offer=None)


async def decide_loan(console: Console, request: Request, form: FormData) -> Response:
    """Decide on an application, search the nearest change, and choose an offer. The first and the last are decisions of record."""
    sent = _read_fields(form)
    application = _read_application(sent)
    if not sent["customer_id"]:
        raise ApiRefusal(422, "no_customer", "Enter the identifier of a customer of the ledger.")
    (loan, loan_fault), (offer, offer_fault), (policy, _) = await asyncio.gather(
        console.try_post(request, "/v1/loan-default", application),
        console.try_post(request, "/v1/loan-offers", {"customer_id": sent["customer_id"]}),
        console.try_get(request, "/v1/policy"),
    )
    change, change_fault = None, None
    if loan and loan["decision"] != "approve":
        change, change_fault = await console.try_post(request, "/v1/loan-default/nearest-change", application)
    ranked = sorted(loan["explanation"]["contributions"], key=lambda item: -abs(item["contribution"])) if loan else []
    best = offer["offer"] if offer else None
    document = policy["document"] if policy else None
    return console.page(
        request,
        "loan.html",
        sent=sent,
        loan=loan,
        loan_fault=loan_fault,
        contributions=ranked,
        max_bars=MAX_BARS,
        grades=_bound_grades(document) if document else [],
        change=change,
        change_fault=change_fault,
        offer=offer,
        offer_fault=offer_fault,
        parts=[(name, sign * best["parts"][name]) for name, sign in _PARTS] if best else [],
        curve_spec=charts.draw_offer_curve(offer["curve"], best["annual_rate_pct"] if best else None) if offer and offer["curve"] else None,
        max_share=document["lending"]["max_instalment_to_income"] if document else None,
        sliders=_list_sliders(application, loan) if loan else [],
    )


async def explore_loan(console: Console, request: Request, form: FormData) -> Response:
    """Return the decision at the terms of the sliders, as a part of the page. It is no decision of record."""
    answer, fault = await console.try_post(request, WHAT_IF, _read_application(_read_fields(form)))
    content = console.renderer.fragment(request, "loan_explored.html", answer=answer, fault=fault)
    return HTMLResponse(content, headers={"X-Fragment": "1"})


def _read_fields(form: FormData) -> dict[str, str]:
    return {name: str(form.get(name, "")).strip() for name in _FIELDS}


def _read_application(sent: Mapping[str, str]) -> dict[str, Any]:
    """Return the application of a form; a term that was left empty is the source's typical one."""
    application: dict[str, Any] = {"customer_id": sent["customer_id"], "loan_amount": _number(sent, "loan_amount")}
    if sent["term_months"]:
        application["term_months"] = round(_number(sent, "term_months"))
    if sent["annual_rate_pct"]:
        application["annual_rate_pct"] = _number(sent, "annual_rate_pct")
    return application


def _list_sliders(application: Mapping[str, Any], loan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a slider for each term that is known: sent with the application, or a feature of the model."""
    known: dict[str, Any] = {row["feature"]: row["value"] for row in loan["explanation"]["contributions"]} | dict(application)
    return [
        {"name": name, "text": text, "value": value, "low": min(low, value), "high": max(2 * value, low + 10 * step), "step": step}
        for name, text, low, step in _SLIDERS
        if (value := known.get(name)) is not None
    ]


def _bound_grades(document: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Return each grade with its lowest and highest PD."""
    grades = document["loan_default"]["grades"]
    lows = [0.0, *(grade["below"] for grade in grades)]
    return [(grade["name"], low, high) for grade, (low, high) in zip(grades, pairwise(lows), strict=True)]


def _number(sent: Mapping[str, str], name: str) -> float:
    """Return the number of a field; a comma is read as its decimal mark."""
    try:
        return float(sent[name].replace(" ", "").replace(",", "."))
    except ValueError:
        raise ApiRefusal(422, "no_number", "The form has a value that is no number.", ((name, "Enter a number, such as 8000."),)) from None
