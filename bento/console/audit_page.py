"""The page of audit and privacy: who did what, whether the chain is whole, one decision again, and a person's export and erasure."""

import json
from typing import Any

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from bento.console.api_client import ApiRefusal, quote_segment
from bento.console.console_context import Console
from bento.console.presentation.rendering import build_csv

_FILTERS = ("action", "caller", "person", "since", "before")
_COLUMNS = ("at", "caller", "action", "domain", "person", "model_version", "request_id", "writer", "number", "hash")
ACTIONS = (
    "decide", "read", "export", "erase", "advise", "replay", "verify",
    "alert.open", "alert.claim", "alert.release", "alert.dispose", "key.create", "key.revoke",
)  # fmt: skip
"""Actions to choose from; the audit has others."""
ERASE_WORD = "erase"
"""The word that confirms an erasure."""


async def show_audit(console: Console, request: Request) -> Response:
    """Return a page of the audit's records, the newest first."""
    query = {name: request.query_params.get(name, "") for name in _FILTERS}
    is_export = request.query_params.get("format") == "csv"
    records, fault = await console.try_get(request, "/v1/audit", query | {"limit": 500 if is_export else 50})
    if is_export:
        if fault is not None:
            raise fault
        return build_csv("audit", _COLUMNS, records["records"])
    return _page(console, request, query=query, records=records, fault=fault)


async def verify_chain(console: Console, request: Request, form: FormData) -> Response:
    """Verify the audit's chains and show the result."""
    verdict, fault = await console.try_get(request, "/v1/audit/verification")
    return _page(console, request, verdict=verdict, task_fault=fault)


async def replay_decision(console: Console, request: Request, form: FormData) -> Response:
    """Score one decision again and show whether it comes out as it was stored."""
    decision_id = str(form.get("decision_id", "")).strip()
    if not decision_id:
        raise ApiRefusal(422, "no_decision", "Enter the identifier of a decision, the decision_id of its answer.")
    replayed, fault = await console.try_get(request, f"/v1/decisions/{quote_segment(decision_id)}/replay")
    return _page(console, request, replayed=replayed, task_fault=fault)


async def export_person(console: Console, request: Request, form: FormData) -> Response:
    """Return everything that is stored of a person as a JSON file."""
    customer = _read_customer(form)
    export = await console.get(request, f"/v1/people/{quote_segment(customer)}/export")
    # The file's name stands in the browser's list of downloads: it names nobody.
    headers = {"Content-Disposition": 'attachment; filename="person-export.json"'}
    return Response(json.dumps(export, indent=1, ensure_ascii=False), media_type="application/json", headers=headers)


async def erase_person(console: Console, request: Request, form: FormData) -> Response:
    """Erase a person, where the confirmation is written out."""
    customer = _read_customer(form)
    if str(form.get("confirmation", "")).strip().lower() != ERASE_WORD:
        raise ApiRefusal(422, "not_confirmed", f"An erasure cannot be undone. Write “{ERASE_WORD}” to confirm it. Nothing was erased.")
    erasure = await console.api.delete(request.state.session.credential, f"/v1/people/{quote_segment(customer)}")
    wiped = "The store's file was rewritten too." if erasure["file_wiped"] else "Run `finrisk store wipe` to rewrite the store's file."
    request.state.session.notice = f"The person is erased. {wiped} Erase them in the ledger too, or the next load restores the data."
    return RedirectResponse("/console/audit", 303)


def _read_customer(form: FormData) -> str:
    customer = str(form.get("customer", "")).strip()
    if not customer:
        raise ApiRefusal(422, "no_customer", "Enter the identifier of a customer.")
    return customer


def _page(console: Console, request: Request, **context: Any) -> Response:
    plain = {"query": dict.fromkeys(_FILTERS, ""), "records": None, "fault": None, "verdict": None, "replayed": None, "task_fault": None}
    status = context["task_fault"].status if context.get("task_fault") else 200
    return console.page(request, "audit.html", status, **(plain | context), actions=ACTIONS, erase_word=ERASE_WORD)
