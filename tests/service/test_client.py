"""Tests of the generated client: on a served Bento, and its retries on a transport that fails as told."""

import asyncio
import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.service.examples import CASHFLOW_ROW, EIGHT_FIELDS
from tests.service.serving import Served, serving, store_models

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
TIME = datetime(2024, 5, 6, 12)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Generate the client from the document of the code, and yield the package."""
    folder = tmp_path_factory.mktemp("client")
    sys.path[:0] = [str(folder), str(ROOT / "client")]
    import_module("build_client").generate_client(folder)
    yield import_module("finrisk_client")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("finrisk_client", "build_client", "contract")]:
        del sys.modules[name]
    for path in (str(folder), str(ROOT / "client")):
        sys.path.remove(path)


@pytest.fixture(scope="module")
def served(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with serving(store_models(folder / "models", bundles), folder / "home", folder / "log") as running:
        yield running


def send(client: Any, route: str, model: str, body: dict[str, Any]) -> Any:
    models, function = import_module("finrisk_client.models"), import_module(f"finrisk_client.api.{route}")
    return function.sync(client=client, body=getattr(models, model).from_dict(body))


def payment(**changes: Any) -> dict[str, Any]:
    return {"user_id": "5", "amount": 120.0, "timestamp": TIME.isoformat(), "merchant": "3156"} | changes


# On the served Bento -----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_client_is_that_of_the_served_document(package: ModuleType, served: Served) -> None:
    assert package.fetch_contract_hash(served.address) == package.CONTRACT_SHA256


@pytest.mark.slow
@pytest.mark.parametrize(
    ("route", "model", "body", "field"),
    [
        ("transactions.score_transaction", "TransactionRequest", payment(), "decision"),
        ("loan_default.score_loan", "LoanRequest", {"features": {"loan_amount": 9000, "term_months": 24, "balance_mean_30d": 4000.5,
                                                                  "is_urban": True, "instalment_to_usual_income": 0.2}}, "pd"),
        ("spending_risk.score_spending", "SpendingRequest", EIGHT_FIELDS, "risk_level"),
        ("cashflow.forecast_cashflow", "CashflowRequest", {"features": CASHFLOW_ROW}, "direction"),
        ("loan_offers.choose_offer", "OfferRequest",
         {"features": {"expense_ratio_90d": 1.0}, "pd": 0.03, "monthly_income_amount": 2800}, "decision"),
    ],
)  # fmt: skip
def test_every_domain_answers_with_its_type(
    package: ModuleType, served: Served, route: str, model: str, body: dict[str, Any], field: str
) -> None:
    answer = package.expect(send(package.connect(served.address), route, model, body))
    assert type(answer).__name__.endswith("Answer")
    assert getattr(answer, field) is not None and answer.decision_id


@pytest.mark.slow
def test_a_request_under_a_key_is_decided_once_and_another_under_it_is_refused(package: ModuleType, served: Served) -> None:
    client = package.connect(served.address)

    def decide(**changes: Any) -> Any:
        with package.idempotency_key("payment-1"):
            return package.expect(send(client, "transactions.score_transaction", "TransactionRequest", payment(**changes)))

    assert decide().decision_id == decide().decision_id
    with pytest.raises(package.FinriskError, match=r"^conflict: ") as refused:
        decide(amount=7.0)
    assert refused.value.request_id
    # Without a key of the caller's each call has its own.
    first, second = (send(client, "transactions.score_transaction", "TransactionRequest", payment()) for _ in range(2))
    assert first.decision_id != second.decision_id


@pytest.mark.slow
def test_a_wrong_request_is_an_exception_that_names_the_field(package: ModuleType, served: Served) -> None:
    with pytest.raises(package.FinriskError) as refused:
        package.expect(send(package.connect(served.address), "loan_default.score_loan", "LoanRequest", {"loan_amount": 50000}))
    assert refused.value.code and refused.value.fields


@pytest.mark.slow
def test_the_same_functions_run_in_an_event_loop(package: ModuleType, served: Served) -> None:
    models, function = import_module("finrisk_client.models"), import_module("finrisk_client.api.models.models")

    async def list_models() -> Any:
        return await function.asyncio(client=package.connect(served.address))

    assert isinstance(asyncio.run(list_models()), models.ModelList)


@pytest.mark.slow
def test_the_example_of_the_page_runs_as_it_is_written(package: ModuleType, served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(example.replace("http://127.0.0.1:3000", served.address), {})
    decided, refused = capsys.readouterr().out.splitlines()
    assert decided.split()[0] in ("allow", "review", "block") and refused.startswith("invalid")


# Retries -----------------------------------------------------------------------------------------------------------------------------


class Script:
    """A transport that gives one outcome after the other, and keeps the requests and the waits between them."""

    def __init__(self, *outcomes: int | tuple[int, str] | type[httpx.TransportError]) -> None:
        self.outcomes, self.keys, self.waits = list(outcomes), list[str | None](), list[float]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.keys.append(request.headers.get("Idempotency-Key"))
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, type):
            raise outcome("as told")
        status, after = outcome if isinstance(outcome, tuple) else (outcome, "")
        return httpx.Response(status, json={}, headers={"Retry-After": after} if after else {})

    def send(self, package: ModuleType, method: str = "POST", path: str = "/v1/transactions", **options: Any) -> int:
        connection = import_module("finrisk_client.connection")
        retries = connection._Retries(options.get("attempts", 4), options.get("longest_wait_s", 30.0))
        transport = connection.RetryTransport(httpx.MockTransport(self), retries, self.waits.append)
        with httpx.Client(base_url="http://service", transport=transport) as client:
            return client.request(method, path, json=None if method == "GET" else {}).status_code


def test_a_busy_service_is_asked_again_when_it_says_so_under_the_same_key(package: ModuleType) -> None:
    script = Script((503, "2"), (429, "5"), 200)
    assert script.send(package) == 200
    assert script.waits == [2.0, 5.0]
    assert len(set(script.keys)) == 1 and script.keys[0]


def test_attempts_are_bounded_and_the_last_answer_is_returned(package: ModuleType) -> None:
    script = Script(*[(503, "1")] * 3)
    assert script.send(package, attempts=3) == 503
    assert script.waits == [1.0, 1.0] and not script.outcomes


def test_without_a_time_of_the_service_waits_double(package: ModuleType) -> None:
    script = Script(503, 503, 503, 200)
    assert script.send(package) == 200
    assert all(0.5 * bound <= wait <= bound for wait, bound in zip(script.waits, (0.2, 0.4, 0.8), strict=True))


def test_a_longer_time_than_the_caller_waits_is_the_callers_to_decide(package: ModuleType) -> None:
    script = Script((429, "3600"))
    assert script.send(package) == 429 and script.waits == []


@pytest.mark.parametrize("status", [200, 400, 401, 404, 409, 422, 500, 504])
def test_any_other_answer_is_final(package: ModuleType, status: int) -> None:
    script = Script(status)
    assert script.send(package) == status and script.waits == []


@pytest.mark.parametrize("error", [httpx.ConnectError, httpx.ReadTimeout, httpx.RemoteProtocolError])
def test_a_lost_connection_is_tried_again(package: ModuleType, error: type[httpx.TransportError]) -> None:
    script = Script(error, error, 200)
    assert script.send(package) == 200 and len(script.waits) == 2
    with pytest.raises(error):
        Script(error, error).send(package, attempts=2)


def test_feedback_whose_answer_was_lost_is_not_sent_again(package: ModuleType) -> None:
    with pytest.raises(httpx.ReadTimeout):
        Script(httpx.ReadTimeout).send(package, path="/v1/feedback")
    assert Script(httpx.ConnectError, 200).send(package, path="/v1/feedback") == 200


def test_a_look_up_has_no_key(package: ModuleType) -> None:
    script = Script((503, "1"), 200)
    assert script.send(package, "GET", "/v1/models") == 200
    assert script.keys == [None, None]


def test_an_event_loop_repeats_as_a_thread_does(package: ModuleType) -> None:
    connection, script = import_module("finrisk_client.connection"), Script((503, "2"), httpx.ReadTimeout, 200)

    async def wait(seconds: float) -> None:
        script.waits.append(seconds)

    async def send_once() -> int:
        transport = connection.AsyncRetryTransport(httpx.MockTransport(script), connection._Retries(4, 30.0), wait)
        async with httpx.AsyncClient(base_url="http://service", transport=transport) as client:
            return (await client.post("/v1/transactions", json={})).status_code

    assert asyncio.run(send_once()) == 200
    assert script.waits[0] == 2.0 and len(set(script.keys)) == 1


# The contract ------------------------------------------------------------------------------------------------------------------------


def test_a_changed_type_is_another_contract_and_a_changed_sentence_is_not(package: ModuleType) -> None:
    build: Callable[[], dict[str, Any]] = import_module("build_client").read_document
    document = build()
    assert package.hash_contract(document) == package.CONTRACT_SHA256
    document["paths"]["/v1/transactions"]["post"]["summary"] = "Another sentence"
    assert package.hash_contract(document) == package.CONTRACT_SHA256
    changed = json.loads(json.dumps(document))
    del changed["components"]["schemas"]["TransactionRequest"]["properties"]["merchant"]
    assert package.hash_contract(changed) != package.CONTRACT_SHA256
