"""The page of a person: a customer of the ledger, or a bank statement; their spending, their risk, and what would change it."""

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from bento.console.api_client import ApiRefusal, quote_segment
from bento.console.bank_statements.movement import Statement, StatementError
from bento.console.bank_statements.statement_file import StatementFile, open_statement
from bento.console.bank_statements.statement_sums import measure_behaviour, sum_by_month
from bento.console.console_context import Console
from bento.console.presentation import charts
from bento.console.presentation.formats import label_feature

WHAT_IF = "/v1/spending-risk/what-if"
MAX_SLIDERS = 6
"""Features of a customer that get a slider: those that moved the score most."""
MAX_BARS = 10
SAMPLE_ROWS = 6
"""Movements that a confirmation shows."""
_EIGHT_SLIDERS = (
    ("Total_Income", "Money in, last 90 days (currency)"),
    ("Total_Expense", "Money out, last 90 days (currency)"),
    ("Low_Balance_Freq", "Movements that left a low balance"),
    ("Max_Expense", "Largest single expense (currency)"),
)
"""Behaviour fields with a slider; the others follow from them or stay."""


async def show_person_forms(console: Console, request: Request) -> Response:
    """Return the page on which a customer is chosen or a statement is dropped."""
    return console.page(request, "person.html")


async def show_person(console: Console, request: Request, form: FormData) -> Response:
    """Return a customer's stored scores, and the risk of today with its reasons and sliders."""
    customer = str(form.get("customer", "")).strip()
    if not customer:
        raise ApiRefusal(422, "no_customer", "Enter the identifier of a customer of the ledger.")
    scores, scores_fault = await console.try_get(request, f"/v1/risk-scores/{quote_segment(customer)}")
    if scores_fault is not None and scores_fault.status in (403, 404, 422):
        raise scores_fault
    answer, fault = await console.try_post(request, WHAT_IF, {"customer_id": customer})
    ranked = _rank(answer)
    return console.page(
        request,
        "customer.html",
        customer=customer,
        scores=scores["scores"] if scores else [],
        scores_fault=scores_fault,
        fault=fault,
        sliders=_customer_sliders(ranked),
        is_statement=False,
        **await _risk_context(console, request, answer),
    )


async def read_statement(console: Console, request: Request, form: FormData) -> Response:
    """Read a dropped statement: ask once what it leaves open, then show its spending and its risk."""
    session = request.state.session
    upload = form.get("statement")
    try:
        if isinstance(upload, UploadFile) and upload.filename:
            # In a thread: a long statement takes a second, in which decisions go on beside a mounted console.
            file: StatementFile = await asyncio.to_thread(open_statement, await upload.read())
            session.draft = file if file.questions else None
            if file.questions:
                return _ask(console, request, file)
            return await _show_statement(console, request, await asyncio.to_thread(file.read))
        if session.draft is None:
            raise StatementError("No file was chosen. Choose a CSV or OFX file of your bank.")
        file = session.draft
        answers = {question.field: str(form.get(question.field, "")) for question in file.questions}
        session.draft = None
        return await _show_statement(console, request, await asyncio.to_thread(file.read, answers))
    except StatementError as error:
        return console.page(request, "person.html", 422, statement_fault=str(error))


async def rescore(console: Console, request: Request, form: FormData) -> Response:
    """Return the risk with the values of the sliders, as a part of the page."""
    customer = str(form.get("customer", ""))
    values = {name.removeprefix("x_"): _number(str(value)) for name, value in form.multi_items() if name.startswith("x_")}
    answer, fault = await console.try_post(
        request, WHAT_IF, {"customer_id": customer, "changes": values} if customer else _complete_eight(values)
    )
    context = await _risk_context(console, request, answer)
    content = console.renderer.fragment(request, "explored.html", fault=fault, **context)
    return HTMLResponse(content, headers={"X-Fragment": "1"})


def _ask(console: Console, request: Request, file: StatementFile) -> Response:
    """Return the one confirmation of a statement: its open questions, beside its first movements as they would be read."""
    statement = file.read()
    layout = file.layout
    columns = {}
    if layout is not None:
        for name in ("date", "amount", "debit", "credit", "sign", "balance"):
            at = getattr(layout, name)
            if at is not None:
                columns[name] = layout.text.header[at]
    return console.page(
        request,
        "statement_question.html",
        questions=file.questions,
        sample=statement.movements[:SAMPLE_ROWS],
        columns=columns,
        skipped=statement.skipped,
    )


async def _show_statement(console: Console, request: Request, statement: Statement) -> Response:
    movements = statement.movements
    fields, notes = measure_behaviour(movements)
    answer, fault = await console.try_post(request, WHAT_IF, _as_counts(fields))
    months = sum_by_month(movements)
    by_category: dict[str, float] = defaultdict(float)
    for row in months:
        by_category[str(row["category"])] += float(str(row["amount"]))
    return console.page(
        request,
        "customer.html",
        customer="",
        is_statement=True,
        statement=statement,
        first=movements[0].booked_on.isoformat(),
        last=movements[-1].booked_on.isoformat(),
        money_in=sum(movement.amount for movement in movements if movement.amount > 0),
        money_out=-sum(movement.amount for movement in movements if movement.amount < 0),
        notes=notes,
        months=months,
        categories=sorted(by_category.items(), key=lambda item: item[1]),
        month_spec=charts.stack_by_month(months),
        fields=fields,
        fault=fault,
        sliders=[
            {"name": name, "text": text, "value": fields[name], "low": 0.0, "high": max(2 * fields[name], 10.0), "step": 1.0}
            for name, text in _EIGHT_SLIDERS
        ],
        **await _risk_context(console, request, answer),
    )


async def _risk_context(console: Console, request: Request, answer: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what the parts about a risk show: the answer, its edges under the policy, and its bars."""
    policy, _ = await console.try_get(request, "/v1/policy")
    levels = policy["document"]["spending_risk"] if policy else {"medium_from": 0.4, "high_from": 0.7}
    return {
        "risk": answer,
        "edges": (levels["medium_from"], levels["high_from"]),
        "bars_shown": _rank(answer)[:MAX_BARS],
        "contributions": _rank(answer),
    }


def _rank(answer: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    contributions = [] if answer is None else answer["explanation"]["contributions"]
    return sorted(contributions, key=lambda item: -abs(item["contribution"]))


def _customer_sliders(ranked: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return sliders for the features that moved the score most; not for what a person cannot change, such as the month."""
    sliders = []
    for row in ranked:
        value = row["value"]
        if value is None or isinstance(value, str) or row["feature"].startswith("month_") or row["unit"] == "0 or 1":
            continue
        reach = max(abs(value), 1.0)
        step = 1.0 if row["feature"].startswith("n_") else round(reach / 50, 4)
        low = 0.0 if value >= 0 else value - reach
        sliders.append(
            {
                "name": row["feature"],
                "text": label_feature(row["feature"]),
                "value": value,
                "low": low,
                "high": value + reach,
                "step": step,
            }
        )
        if len(sliders) == MAX_SLIDERS:
            break
    return sliders


def _complete_eight(values: Mapping[str, float]) -> dict[str, Any]:
    """Return eight fields that agree with each other, from those that the sliders and the page hold."""
    fields = dict(values)
    number = max(1.0, float(fields.pop("n_debits", 1.0)))
    income, expense = fields.get("Total_Income", 0.0), fields.get("Total_Expense", 0.0)
    largest = min(max(fields.get("Max_Expense", 0.0), expense / number), expense)
    fields |= {
        "Avg_Expense": round(expense / number, 2),
        "Max_Expense": round(largest, 2),
        "Top_Category_Spend": round(min(max(fields.get("Top_Category_Spend", 0.0), largest), expense), 2),
        "Low_Balance_Freq": min(fields.get("Low_Balance_Freq", 0.0), fields.get("Num_Transactions", 0.0)),
        "Expense_Income_Ratio": round(expense / income, 6) if income else (10.0 if expense else 0.0),
    }
    return _as_counts(fields)


def _as_counts(fields: Mapping[str, float]) -> dict[str, Any]:
    """Return the fields with whole counts."""
    counts = ("Num_Transactions", "Low_Balance_Freq")
    return {name: round(value) if name in counts else value for name, value in fields.items()}


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e12:
        raise ApiRefusal(422, "no_number", "A slider's value is no number. Load the page again.")
    return value
