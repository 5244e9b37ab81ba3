"""A month of decisions in the store of a demo's home, so that pages about activity have something to show: `decide_month`.

The requests are those of the ledger's last month, moved to the month after it. The service decides them in this process, with a
clock that stands at each of the last thirty days, and analysts close most of the alerts that it opens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from finrisk_assets.settings import Settings
from schemas.timestamps import DAY_US

DAYS = 30
PAYMENTS_A_DAY = 40
CUSTOMERS_A_DAY = 4
"""Customers a day of whom each other domain is asked."""
OPEN_DAYS = 2
"""Newest days whose alerts nobody has closed yet."""
_LAST_MONTH = f"""
SELECT customer_id, occurred_at, amount, direction, merchant, country, is_fraud, date_diff('day', occurred_at::DATE, newest.day) AS age
FROM analytics.validated_transactions, (SELECT max(occurred_at)::DATE AS day FROM analytics.validated_transactions) AS newest
WHERE date_diff('day', occurred_at::DATE, newest.day) < {DAYS} ORDER BY hash(transaction_id)
"""
_CUSTOMERS = "SELECT DISTINCT customer_id FROM analytics.scores_loan_default ORDER BY hash(customer_id)"
GENUINE = "The customer confirmed it."
FRAUD = "The customer did not make it."


def decide_month(settings: Settings) -> int:
    """Decide a month of requests, and return their number. The home is changed: take a copy."""
    from bento.store.unit_of_work import now_us

    now, number = now_us(), 0
    alerts: list[tuple[str, bool]] = []
    with _open_service(settings) as (client, service):
        for day, requests in enumerate(_list_requests(settings)):
            age = DAYS - 1 - day
            moment = now - age * DAY_US
            service.store.clock = lambda moment=moment: moment
            for alert, is_fraud in alerts:
                label = {"disposition": "fraud", "reason": FRAUD} if is_fraud else {"disposition": "genuine", "reason": GENUINE}
                _post(client, "/v1/alerts/dispose", {"alert_id": alert, "version": 1, **label})
            alerts = []
            for route, body, is_fraud in requests:
                answer = _post(client, route, body)
                number += 1
                if answer.get("decision") in ("review", "block") and age >= OPEN_DAYS:
                    alerts.append((answer["decision_id"], is_fraud))
    return number


@contextmanager
def _open_service(settings: Settings) -> Iterator[tuple[Any, Any]]:
    """Yield a client of the service in this process, and the service."""
    import bentoml
    from bentoml._internal.container import BentoMLContainer
    from bentoml._internal.models import ModelStore
    from starlette.testclient import TestClient

    from bento.service import FinRisk

    BentoMLContainer.model_store.set(ModelStore(settings.bentoml_home / "models"))
    with TestClient(FinRisk.to_asgi(), client=("127.0.0.1", 50_000), base_url="http://127.0.0.1") as client:
        yield client, bentoml.get_current_service()


def _post(client: Any, route: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(route, json=body)
    if answer.status_code != 200:
        raise RuntimeError(f"{route} answered {answer.status_code}: {answer.text[:300]}")
    return dict(answer.json())


def _list_requests(settings: Settings) -> Iterator[list[tuple[str, dict[str, Any], bool]]]:
    """Yield the requests of each day: route, body, and whether the payment is a fraud. All frauds, and a sample of other payments."""
    import duckdb

    with duckdb.connect(str(settings.root / "warehouse.duckdb"), read_only=True) as warehouse:
        rows = warehouse.sql(_LAST_MONTH).to_arrow_table().to_pylist()
        customers = [row[0] for row in warehouse.sql(_CUSTOMERS).fetchall()]
    for day in range(DAYS):
        payments = [row for row in rows if row["age"] == DAYS - 1 - day]
        sample = [row for row in payments if row["is_fraud"]] + [row for row in payments if not row["is_fraud"]][:PAYMENTS_A_DAY]
        sample.sort(key=lambda row: row["occurred_at"])
        requests = [("/v1/transactions", _payment(row), bool(row["is_fraud"])) for row in sample]
        for place in range(CUSTOMERS_A_DAY):
            customer = customers[(day * CUSTOMERS_A_DAY + place) % len(customers)]
            amount = 2_000 + 1_500 * ((day + place) % 9)
            requests.append(("/v1/loan-default", {"customer_id": customer, "loan_amount": amount}, False))
            requests += [(f"/v1/{domain}", {"customer_id": customer}, False) for domain in ("spending-risk", "cashflow", "loan-offers")]
        yield requests


def _payment(row: dict[str, Any]) -> dict[str, Any]:
    fields = {field: row[field] for field in ("amount", "direction", "merchant", "country") if row[field] is not None}
    return {"user_id": row["customer_id"], "timestamp": (row["occurred_at"] + timedelta(days=DAYS)).isoformat(), **fields}
