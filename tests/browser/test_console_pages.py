"""Browser tests of every page: what it shows, keys alone, errors, refusals, and axe in light, dark, at a desk and on a phone."""

import json
import re
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from finrisk_assets.policy import policy_file
from tests.browser.conftest import SHOTS, VIEWS, first_alert, run_console
from tests.service.serving import Served, free_port

pytestmark = [pytest.mark.browser, pytest.mark.slow]
STATEMENT = """Booking date;Text;Amount;Balance
2024-01-02;Rent;-950,00;1200,00
2024-01-28;Salary ACME;2450,00;3650,00
2024-02-02;Rent;-950,00;2700,00
2024-02-11;Supermarket;-120,50;2579,50
2024-03-28;Salary ACME;2450,00;5029,50
"""


def show_queue(page: Any, base: str) -> None:
    page.goto(f"{base}alerts")


def show_alert(page: Any, base: str) -> None:
    page.goto(f"{base}alerts")
    page.keyboard.press("n")
    page.wait_for_url(re.compile("/alerts/[0-9a-f]{32}"))
    page.wait_for_load_state()


def show_customer(page: Any, base: str) -> None:
    page.goto(f"{base}person")
    page.fill("#customer", "123")
    page.click("button:text('Show')")
    page.wait_for_selector("svg.gauge")


def show_statement(page: Any, base: str) -> None:
    page.goto(f"{base}person")
    page.set_input_files("#statement", {"name": "s.csv", "mimeType": "text/csv", "buffer": STATEMENT.encode()})
    page.click("button:text('Read it')")
    page.wait_for_selector("svg.gauge")


def show_question(page: Any, base: str) -> None:
    page.goto(f"{base}person")
    text = b"Date,Description,Amount\n03/04/2024,Rent,-10.00\n05/04/2024,Salary,20.00\n"
    page.set_input_files("#statement", {"name": "s.csv", "mimeType": "text/csv", "buffer": text})
    page.click("button:text('Read it')")
    page.wait_for_selector("text=Which day is 03/04/2024?")


def show_loan(page: Any, base: str) -> None:
    page.goto(f"{base}loan")
    page.fill("#customer_id", "123")
    page.fill("#loan_amount", "50000")
    page.click("button:text('Decide')")
    page.wait_for_selector("text=Nearest feasible change")


def show(path: str) -> Callable[[Any, str], None]:
    return lambda page, base: page.goto(base + path)


def show_other_policy(page: Any, base: str) -> None:
    shipped = Path(policy_file.__file__).with_name("default_policy.yaml").read_text(encoding="utf-8")
    page.goto(f"{base}policy")
    page.click("summary:text('or paste its text')")
    page.fill(
        "#policy-text",
        shipped.replace("from_amount: 5000.0", "from_amount: 1.0").replace(
            "large_amount, kind: amount_limit, enabled: false", "large_amount, kind: amount_limit, enabled: true"
        ),
    )
    page.click("button:text('Compare')")
    page.wait_for_selector("text=What it would have decided")


PAGES: dict[str, Callable[[Any, str], Any]] = {
    "overview": show("overview"), "alerts": show_queue, "alert": show_alert, "closed-alerts": show("alerts?state=closed"),
    "person": show("person"), "customer": show_customer, "statement": show_statement, "statement-question": show_question,
    "loan": show("loan"), "loan-decided": show_loan, "models": show("models"), "model": show("models/loan_default"),
    "transaction-model": show("models/transaction_anomaly"), "policy": show("policy"), "audit": show("audit"),
    "policy-changed": show_other_policy, "model-without-evidence": show("models/cashflow"), "missing": show("nothing"),
}  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_accessible_and_fits_in_every_view(service: Served, open_page: Any, name: str, view: str) -> None:
    page = open_page(view)
    PAGES[name](page, f"{service.address}/console/")
    wait_for_charts(page)
    examine(page, f"{name}-{view}")


@pytest.mark.parametrize("view", VIEWS)
def test_the_sign_in_is_accessible_and_fits_in_every_view(keyed: tuple[str, dict[str, str]], open_page: Any, view: str) -> None:
    page = open_page(view)
    page.goto(f"{keyed[0]}alerts")
    assert page.evaluate("document.activeElement.id") == "credential"
    examine(page, f"sign-in-{view}")


def examine(page: Any, name: str) -> None:
    """Keep a screenshot of a page; it has no serious fault of accessibility and does not scroll sideways."""
    from axe_playwright_python.sync_playwright import Axe

    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=str(SHOTS / f"{name}.png"), full_page=True)
    found = Axe().run(page).response["violations"]
    assert [(item["id"], item["nodes"][0]["html"]) for item in found if item["impact"] in ("serious", "critical")] == []
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"), "it scrolls sideways"


def wait_for_charts(page: Any) -> None:
    """Wait until every chart of a page is drawn."""
    page.wait_for_function("[...document.querySelectorAll('[data-chart]')].every((place) => place.querySelector('svg'))")


def test_charts_are_drawn_from_the_consoles_own_files_alone(service: Served, open_page: Any) -> None:
    page = open_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    show_alert(page, f"{service.address}/console/")
    wait_for_charts(page)
    assert page.locator("[data-chart] svg").count() == 2
    assert all(url.startswith((service.address, "data:", "blob:")) for url in asked)
    with page.expect_download() as download:
        page.locator("figure .export").first.click()
    assert download.value.suggested_filename.endswith(".svg")
    assert Path(download.value.path()).read_text(encoding="utf-8").startswith("<svg")


def test_a_models_charts_and_their_tables_are_drawn(service: Served, open_page: Any) -> None:
    page = open_page()
    page.goto(f"{service.address}/console/models/loan_default")
    wait_for_charts(page)
    assert page.locator("[data-chart] svg").count() == 4
    assert page.get_by_label("SVG of: ROC curve").count() == 1
    page.click("summary:text('Table of points')")
    assert page.locator("text=Weight of evidence").is_visible()


def test_the_sliders_of_a_loan_decide_again_without_a_decision(service: Served, open_page: Any) -> None:
    page = open_page()
    show_loan(page, f"{service.address}/console/")
    before = page.locator("#explored").inner_text()
    page.focus("#slider-1")
    with page.expect_response(re.compile("loan/what-if")):
        page.keyboard.press("Home")
    page.wait_for_function("(before) => document.getElementById('explored').innerText !== before", arg=before)
    assert "100" in page.locator("#slider-1-value").inner_text()


def test_every_table_can_be_taken_away(service: Served, open_page: Any) -> None:
    page = open_page()
    page.goto(f"{service.address}/console/policy")
    assert page.locator("table").count() == page.get_by_label("CSV of:").count() > 5
    with page.expect_download() as download:
        page.get_by_label("CSV of: Spending risk").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8-sig").splitlines()
    assert lines[0] == '"Key","Value","Meaning"' and lines[2].startswith('"high from","0.7","Smallest')


def test_the_first_paint_is_small(own_process: str) -> None:
    total = 0
    for path in ("overview", "static/console.css", "static/console.js", "static/vega.js"):
        with urllib.request.urlopen(own_process + path) as response:
            total += len(response.read())
    assert total < 350_000, "bytes as they are sent"


def alert_state(service: Served, alert_id: str) -> dict[str, Any]:
    details: dict[str, Any] = json.loads(service.get(f"/v1/alerts/{alert_id}")[1])
    return details


def test_two_keys_close_a_fraud_and_three_a_false_positive(service: Served, open_page: Any) -> None:
    page = open_page()
    show_alert(page, f"{service.address}/console/")
    first = page.url.rpartition("/")[2]
    for key in "df":
        page.keyboard.press(key)
    page.wait_for_selector("text=Closed as fraud")
    page.wait_for_load_state()
    second = page.url.rpartition("/")[2]
    assert second != first
    for key in "dg2":
        page.keyboard.press(key)
    page.wait_for_selector("text=Closed as genuine")
    assert alert_state(service, first)["alert"]["disposition"] == "fraud"
    genuine = alert_state(service, second)
    assert genuine["alert"]["disposition"] == "genuine" and "known merchant" in genuine["reason"]


def test_c_claims_n_goes_on_and_a_field_takes_keys_as_text(service: Served, open_page: Any) -> None:
    page = open_page()
    show_alert(page, f"{service.address}/console/")
    first = page.url.rpartition("/")[2]
    page.keyboard.press("c")
    page.wait_for_selector("text=The alert is yours")
    page.wait_for_load_state()
    assert alert_state(service, first)["alert"]["state"] == "claimed"
    page.keyboard.press("n")
    page.wait_for_function(f"!location.href.includes('{first}')")
    page.wait_for_load_state()
    second = page.url
    for key in "dg":
        page.keyboard.press(key)
    page.fill("#reason", "")
    page.locator("#reason").press_sequentially("cannot find fraud, no")
    assert page.url == second and page.input_value("#reason") == "cannot find fraud, no"


def test_many_are_chosen_and_closed_by_the_keyboard_alone(service: Served, open_page: Any) -> None:
    page = open_page()
    show_queue(page, f"{service.address}/console/")
    page.locator("input[name=alert]").nth(0).focus()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert page.inner_text("#chosen") == "2"
    page.locator("#many-reason").focus()
    page.keyboard.type("The merchant's sale, confirmed.")
    page.keyboard.press("Enter")
    page.wait_for_selector("text=2 closed as genuine")


def test_the_slider_of_capacity_follows_the_keys(service: Served, open_page: Any) -> None:
    page = open_page()
    show_queue(page, f"{service.address}/console/")
    page.locator("#capacity").focus()
    page.keyboard.press("Home")
    low = float(page.inner_text("#capacity-0"))
    page.keyboard.press("End")
    assert float(page.inner_text("#capacity-0").replace(",", "")) > low
    assert "alerts a day" in page.get_attribute("#capacity", "aria-valuetext")


def test_a_slider_scores_again_while_it_moves(service: Served, open_page: Any) -> None:
    page = open_page()
    show_customer(page, f"{service.address}/console/")
    before = page.inner_text("#explored p")
    slider = page.locator("#explore input[type=range]").first
    slider.focus()
    with page.expect_response(re.compile("what-if")):
        page.keyboard.press("Home")
    page.wait_for_function("(before) => document.querySelector('#explored p').innerText !== before", arg=before)
    assert page.locator("#explored svg.gauge").count() == 1


def test_a_dropped_statement_is_read(service: Served, open_page: Any) -> None:
    page = open_page()
    page.goto(f"{service.address}/console/person")
    transfer = page.evaluate_handle(
        "(text) => { const data = new DataTransfer(); data.items.add(new File([text], 's.csv', {type: 'text/csv'})); return data; }",
        STATEMENT,
    )
    page.dispatch_event(".drop", "drop", {"dataTransfer": transfer})
    page.wait_for_selector("text=Bank statement, 2 Jan 2024 to 28 Mar 2024")
    assert page.locator("#statement-months").count() == 1


def test_an_ambiguous_statement_asks_once_and_goes_on(service: Served, open_page: Any) -> None:
    page = open_page()
    show_question(page, f"{service.address}/console/")
    page.check("input[value='%m/%d/%Y']")
    page.click("button:text('Go on')")
    page.wait_for_selector("text=Bank statement, 4 Mar 2024 to 4 May 2024")


def test_the_keyboard_reaches_the_pages_and_skips_the_header(service: Served, open_page: Any) -> None:
    page = open_page()
    page.goto(f"{service.address}/console/overview")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/alerts")


def test_a_printed_page_has_no_navigation(service: Served, open_page: Any) -> None:
    page = open_page()
    page.goto(f"{service.address}/console/policy")
    page.emulate_media(media="print")
    assert not page.locator("header.top nav").is_visible() and page.locator("table").first.is_visible()


def test_the_console_of_its_own_process_shows_the_same(service: Served, own_process: str, open_page: Any) -> None:
    page = open_page()
    page.goto(own_process + f"alerts/{first_alert(service.address)}")
    wait_for_charts(page)
    assert page.locator("[data-chart] svg").count() == 2


def test_without_its_api_the_console_says_what_to_start(open_page: Any, tmp_path: Path, chromium: Any) -> None:
    running: Iterator[str] = run_console(f"http://127.0.0.1:{free_port()}", tmp_path)
    page = open_page()
    answer = page.goto(next(running) + "overview")
    assert answer.status == 502 and "finrisk serve" in page.inner_text("main")
    running.close()  # type: ignore[attr-defined]


def sign_in(page: Any, base: str, key: str) -> None:
    page.goto(f"{base}alerts")
    page.fill("#credential", key)
    page.keyboard.press("Enter")


def test_a_key_signs_in_and_out(keyed: tuple[str, dict[str, str]], open_page: Any) -> None:
    base, keys = keyed
    page = open_page()
    sign_in(page, base, keys["analyst"] + "x")
    page.wait_for_selector("[role=alert]")
    page.fill("#credential", keys["analyst"])
    page.keyboard.press("Enter")
    page.wait_for_url("**/console/alerts")
    cookie = next(cookie for cookie in page.context.cookies() if cookie["name"] == "finrisk_console")
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/console")
    assert page.evaluate("document.cookie") == ""
    page.click("text=Sign out")
    page.wait_for_url("**/sign-in**")
    page.goto(f"{base}alerts")
    assert "sign-in" in page.url


def test_a_slider_of_a_session_that_has_ended_leads_to_the_sign_in(keyed: tuple[str, dict[str, str]], open_page: Any) -> None:
    base, keys = keyed
    page = open_page()
    sign_in(page, base, keys["analyst"])
    page.wait_for_selector("text=Sign out")  # the address of the sign-in ends with that of the page too
    show_customer(page, base)
    page.context.clear_cookies()
    page.locator("#explore input[type=range]").first.focus()
    page.keyboard.press("Home")
    page.wait_for_url("**/console/sign-in")


@pytest.mark.parametrize("role", ["scorer", "privacy", "auditor"])
def test_a_refused_role_reads_why(keyed: tuple[str, dict[str, str]], open_page: Any, role: str) -> None:
    base, keys = keyed
    page = open_page()
    sign_in(page, base, keys[role])
    page.wait_for_selector("text=This route needs the role")
    examine(page, f"refused-{role}")
