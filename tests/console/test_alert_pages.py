"""Tests of the pages of alerts: the queue, one alert beside the usual, claims, dispositions and their reasons, capacity."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bento.console import alert_pages
from tests.console.conftest import Reader, alerts_in
from tests.service.conftest import Serving


def state_of(reader: Reader, alert_id: str) -> dict[str, Any]:
    alert: dict[str, Any] = reader.client.get(f"/v1/alerts/{alert_id}").json()
    return alert


def test_an_empty_queue_says_what_opens_an_alert(reader: Reader) -> None:
    page = reader.get("alerts")
    assert page.status_code == 200 and "No alert is open" in page.text


def test_the_queue_stands_by_expected_loss(reader: Reader, queue: list[str]) -> None:
    losses = [state_of(reader, alert_id)["alert"]["expected_loss_amount"] for alert_id in queue]
    assert losses == sorted(losses, reverse=True)
    assert alerts_in(reader.get("alerts?order=newest").text) != queue


def test_the_queue_is_a_table_to_take_away(reader: Reader, queue: list[str]) -> None:
    answer = reader.get("alerts?format=csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["alert_id"] for row in rows] == queue
    assert "attachment" in answer.headers["content-disposition"]


def test_an_alert_shows_the_transaction_beside_what_is_usual(reader: Reader, queue: list[str]) -> None:
    first = alerts_in(reader.get("alerts?order=newest").text)[-1]  # the first payment that differs
    details = state_of(reader, first)
    page = reader.get(f"alerts/{first}").text

    assert "CryptoX" in page and details["request"]["user_id"] in page
    for reason in details["answer"]["reasons"]:
        assert reason["text"] in page
    assert re.search(r"class=unusual>9,00\d", page), "the amount is unusual"
    assert "The same person" in page and "The same merchant" in page
    assert 'id="alert-usual"' in page or "console-assets" in page


def test_a_person_without_a_past_has_no_usual(reader: Reader, pay: Callable[..., Any]) -> None:
    assert pay(reader, 90_000.0, user="new")["decision"] != "allow"
    (only,) = alerts_in(reader.get("alerts").text)
    assert "No earlier transaction of this person is known within 90 days" in reader.get(f"alerts/{only}").text


def test_the_keys_of_an_alert(reader: Reader, queue: list[str]) -> None:
    page = reader.get(f"alerts/{queue[0]}").text
    assert {"n", "c", "d", "f", "u", "g", "1", "4"} <= set(re.findall(r'data-key="(\w)"', page))
    assert 'data-key="n"' in reader.get("alerts").text


def test_a_claim_makes_the_reader_the_assignee(reader: Reader, queue: list[str]) -> None:
    page = reader.post(f"alerts/{queue[0]}/claim", version="1")
    assert page.status_code == 200 and "The alert is yours" in page.text
    assert state_of(reader, queue[0])["alert"]["state"] == "claimed"
    again = reader.post(f"alerts/{queue[0]}/claim", version="7")
    assert again.status_code == 409 and "Read it again" in again.text


def test_a_claim_is_given_up(reader: Reader, queue: list[str]) -> None:
    assert 'data-key="r"' not in reader.get(f"alerts/{queue[0]}").text
    reader.post(f"alerts/{queue[0]}/claim", version="1")
    assert 'data-key="r"' in reader.get(f"alerts/{queue[0]}").text
    page = reader.post(f"alerts/{queue[0]}/release", version="2")
    assert page.status_code == 200 and "The alert is open again" in page.text
    assert (state_of(reader, queue[0])["alert"]["state"], state_of(reader, queue[0])["alert"]["version"]) == ("open", 3)
    assert reader.post(f"alerts/{queue[0]}/release", version="3").status_code == 409


def test_a_supervisor_gives_up_the_claims_of_others_and_does_nothing_else(closed: Reader, pay: Callable[..., Any]) -> None:
    alert_id = pay(closed, 90_000.0)["decision_id"]
    closed.sign_in("analyst")
    assert "The alert is yours" in closed.post(f"alerts/{alert_id}/claim", version="1").text
    closed.client.cookies.clear()
    closed.sign_in("supervisor")
    page = closed.get(f"alerts/{alert_id}").text
    assert set(re.findall(r'data-key="(\w)"', page)) == {"n", "r"}
    assert "Close the chosen ones" not in closed.get("alerts?state=claimed").text
    assert closed.post(f"alerts/{alert_id}/dispose", version="2", disposition="fraud").status_code == 403
    assert "The alert is open again" in closed.post(f"alerts/{alert_id}/release", version="2").text


def test_a_disposition_closes_the_alert_and_leads_to_the_next(reader: Reader, queue: list[str]) -> None:
    page = reader.post(f"alerts/{queue[0]}/dispose", version="1", disposition="fraud")
    assert str(page.url).endswith(queue[1]) and "Closed as fraud" in page.text
    closed = state_of(reader, queue[0])
    assert (closed["alert"]["disposition"], closed["reason"]) == ("fraud", alert_pages.FRAUD_REASON)


def test_a_false_positive_needs_a_reason(reader: Reader, queue: list[str]) -> None:
    refused = reader.post(f"alerts/{queue[0]}/dispose", version="1", disposition="genuine", reason="  ")
    assert refused.status_code == 422 and "needs a reason" in refused.text
    assert state_of(reader, queue[0])["alert"]["state"] == "open"
    reader.post(f"alerts/{queue[0]}/dispose", version="1", disposition="genuine", reason=alert_pages.GENUINE_REASONS[0])
    assert state_of(reader, queue[0])["reason"] == alert_pages.GENUINE_REASONS[0]
    assert alert_pages.GENUINE_REASONS[0] in reader.get(f"alerts/{queue[0]}").text


def test_many_are_closed_together_and_a_changed_one_is_named(reader: Reader, queue: list[str]) -> None:
    reader.post(f"alerts/{queue[0]}/claim", version="1")
    chosen = [f"{alert_id}:1" for alert_id in queue[:3]]
    page = reader.post("alerts/dispose", alert=chosen, disposition="genuine", reason="The merchant's sale.")
    assert "2 closed as genuine. 1 refused" in page.text
    assert [state_of(reader, alert_id)["alert"]["state"] for alert_id in queue[:3]] == ["claimed", "closed", "closed"]
    assert reader.post("alerts/dispose", disposition="fraud").status_code == 422
    assert reader.post("alerts/dispose", alert=chosen, disposition="genuine").status_code == 422


def test_next_goes_through_the_queue_and_begins_again(reader: Reader, queue: list[str]) -> None:
    visited = [queue[0]]
    for _ in queue:
        visited.append(str(reader.get(f"alerts/next?after={visited[-1]}").url).rpartition("/")[2])
    assert visited == [*queue, queue[0]]
    reader.post("alerts/dispose", alert=[f"{alert_id}:1" for alert_id in queue], disposition="fraud")
    assert "There is no other open alert" in reader.get(f"alerts/next?after={queue[0]}").text


def test_the_queue_has_pages(reader: Reader, queue: list[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(alert_pages, "QUEUE_PAGE", 2)
    first = reader.get("alerts").text
    following = re.search(r'href="(\?[^"]+cursor=[^"]+)">Next page', first)
    assert following is not None
    second = reader.get("alerts" + following[1].replace("&amp;", "&")).text
    assert alerts_in(first) + alerts_in(second) == queue[:4]


def test_the_slider_has_what_the_api_says_of_each_capacity(reader: Reader) -> None:
    capacity = reader.client.get("/v1/alerts/capacity").json()
    page = reader.get("alerts").text
    shown = json.loads(re.search(r'id="capacity-points">(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    useful = [point for point in capacity["points"] if point["alerts_per_day"] <= 3 * capacity["reviews_per_day"]]
    assert len(shown) == len(useful) > 5 and all(len(point) == 5 for point in shown)
    assert useful[0]["precision"] == 1.0 and "100" in shown[0][2]


def test_an_unknown_alert_and_a_strange_one_are_not_found(reader: Reader) -> None:
    assert reader.get("alerts/" + "0" * 32).status_code == 404
    assert reader.get("alerts/%3Cscript%3E").status_code == 422


def test_what_a_client_sent_is_text_and_no_markup(reader: Reader, pay: Callable[..., Any]) -> None:
    evil = "<script>alert(1)</script>"
    for at in range(6):
        pay(reader, 9_500.0, minutes=at, user="'\"><b>x", merchant=evil)
    for alert_id in alerts_in(reader.get("alerts").text):
        page = reader.get(f"alerts/{alert_id}").text
        assert evil not in page and "<b>x" not in page and "&lt;script&gt;alert(1)" in page


def test_an_alert_of_an_erased_person_is_gone(reader: Reader, queue: list[str]) -> None:
    user = state_of(reader, queue[0])["request"]["user_id"]
    assert reader.client.delete(f"/v1/people/{user}").status_code == 200
    assert reader.get(f"alerts/{queue[0]}").status_code == 404


def test_a_service_without_transactions_has_an_empty_queue(serve: Serving, console_bundles: dict[str, Path]) -> None:
    with serve({"loan_default": console_bundles["loan_default"]}) as client:
        page = Reader(client).get("alerts")
        assert page.status_code == 200 and "No alert is open" in page.text and "Capacity" not in page.text
