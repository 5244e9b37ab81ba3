"""Tests of sessions: the sign-in, cookies, tokens of forms, other origins, roles, and what an open service asks."""

import pytest

from bento.console.sign_in import sessions
from bento.console.sign_in.sessions import COOKIE, IDLE_S, LIFE_S, ConsoleSession, Sessions
from tests.console.conftest import Reader, find_token

PAGES = ("overview", "alerts", "person", "loan", "models", "policy", "audit")


def test_without_a_key_every_page_leads_to_the_sign_in(closed: Reader) -> None:
    for page in PAGES:
        answer = closed.get(page, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, f"/console/sign-in?next=/console/{page}")


def test_a_key_opens_a_session_whose_cookie_no_script_reads_and_no_other_site_sends(closed: Reader) -> None:
    answer = closed.sign_in_with(closed.keys["analyst"], next="/console/alerts?state=closed")

    assert answer.url.path == "/console/alerts" and answer.status_code == 200
    cookie = next(header for header in answer.history[0].headers.get_list("set-cookie") if header.startswith(f"{COOKIE}="))
    assert {"httponly", "samesite=strict", "path=/console"} <= {part.strip().lower() for part in cookie.split(";")}
    assert "expires" not in cookie.lower() and closed.keys["analyst"] not in cookie
    assert closed.keys["analyst"] not in answer.text


def test_over_tls_the_cookie_is_secure(closed: Reader) -> None:
    closed.client.base_url = "https://testserver"
    answer = closed.sign_in("analyst")
    assert any("secure" in header.lower() for header in answer.history[0].headers.get_list("set-cookie") if header.startswith(COOKIE + "="))


@pytest.mark.parametrize("credential", ["finrisk_" + "0" * 16 + "_" + "Z" * 43, "", "no key", "ключ"])
def test_a_wrong_key_is_told_so_and_not_repeated(closed: Reader, credential: str) -> None:
    answer = closed.sign_in_with(credential)
    assert answer.status_code in (401, 422) and 'role="alert"' in answer.text
    assert not credential or credential not in answer.text
    assert closed.get("alerts", follow_redirects=False).status_code == 303


def test_a_sign_in_leads_nowhere_else(closed: Reader) -> None:
    for target in ("https://evil.example/", "//evil.example", "/console/../v1/models", "/v1/models", "/console\\evil", "/console/sign-out"):
        answer = closed.sign_in_with(closed.keys["analyst"], next=target)
        assert answer.history[0].headers["location"] == "/console/overview", target
        closed.client.cookies.clear()


def test_a_sign_in_form_of_another_visit_is_refused(closed: Reader) -> None:
    token = find_token(closed.get("sign-in").text)
    closed.client.cookies.clear()
    answer = closed.client.post("/console/sign-in", data={"csrf": token, "credential": closed.keys["admin"], "next": ""})
    assert answer.status_code == 403


def test_guesses_are_slowed_down(closed: Reader) -> None:
    statuses = [closed.sign_in_with("finrisk_" + "1" * 16 + "_" + "Z" * 43).status_code for _ in range(12)]
    assert statuses[0] == 401 and statuses[-1] == 429


def test_a_sign_out_ends_the_session_on_the_server_too(closed: Reader) -> None:
    closed.sign_in("analyst")
    identifier = closed.client.cookies[COOKIE]
    assert "Sign out" in closed.get("alerts").text
    closed.post("sign-out")
    closed.client.cookies.set(COOKIE, identifier, path="/console")
    assert closed.get("alerts", follow_redirects=False).status_code == 303


def test_an_open_service_asks_for_no_sign_in_and_only_its_own_machine(reader: Reader) -> None:
    assert reader.get("alerts").status_code == 200
    token = reader.token()
    for headers in ({"X-Forwarded-For": "192.0.2.7"}, {"Host": "evil.example"}):
        assert reader.get("alerts", headers=headers, follow_redirects=False).status_code in (303, 307)
        sent = reader.client.post("/console/audit/verify", data={"csrf": token}, headers=headers, follow_redirects=False)
        assert sent.status_code == 303 and "sign-in" in sent.headers["location"]


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}])
def test_a_page_of_another_origin_sends_no_form(reader: Reader, headers: dict[str, str]) -> None:
    answer = reader.client.post("/console/audit/verify", data={"csrf": reader.token()}, headers=headers)
    assert answer.status_code == 403 and "another origin" in answer.text


@pytest.mark.parametrize(
    "form",
    [
        "sign-out", "alerts/dispose", "alerts/" + "0" * 32 + "/claim", "alerts/" + "0" * 32 + "/dispose", "person", "person/statement",
        "person/what-if", "loan", "loan/what-if", "policy", "audit/verify", "audit/replay", "audit/export", "audit/erase",
    ],
)  # fmt: skip
def test_every_form_needs_the_token_of_its_session(reader: Reader, form: str) -> None:
    reader.token()
    for token in ("", "x" * 43):
        assert reader.post(form, token=token, customer="123").status_code == 403
    assert reader.client.get("/v1/risk-scores/123").status_code == 200


def test_no_response_may_be_cached_framed_or_run_scripts_of_others(reader: Reader, queue: list[str]) -> None:
    for page in (*PAGES, f"alerts/{queue[0]}", "nothing", "sign-in?out=1"):
        answer = reader.get(page)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy and "form-action 'self'" in policy
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        for attribute in (" onclick=", " onload=", " style=", "javascript:"):
            assert attribute not in answer.text
        assert "<script>" not in answer.text and "http://" not in answer.text.replace("http://www.w3.org", "")


REFUSED = {
    "scorer": ("alerts",), "auditor": ("alerts",), "privacy": ("alerts",),
}  # fmt: skip


@pytest.mark.parametrize(("role", "pages"), REFUSED.items())
def test_a_role_without_a_page_is_told_so(closed: Reader, role: str, pages: tuple[str, ...]) -> None:
    closed.sign_in(role)
    for page in pages:
        answer = closed.get(page)
        assert answer.status_code == 403 and "needs the role" in answer.text and role in answer.text
    assert 'class="refused"' in closed.get("overview").text


def test_each_role_does_what_the_api_allows_and_no_more(closed: Reader) -> None:
    allowed = {}
    for role in closed.keys:
        closed.client.cookies.clear()
        closed.sign_in(role)
        allowed[role] = {
            "person": closed.post("person", customer="123").status_code == 200,
            "verify": closed.post("audit/verify").status_code == 200,
            "export": closed.post("audit/export", customer="123").status_code in (200, 404),
            "alerts": closed.get("alerts").status_code == 200,
        }
    expected = {
        "person": {"scorer", "analyst", "admin"},
        "verify": {"auditor", "admin"},
        "export": {"privacy", "admin"},
        "alerts": {"analyst", "supervisor", "admin"},
    }
    for what, roles in expected.items():
        assert {role for role in allowed if allowed[role][what]} == roles


def test_sessions_end_by_idleness_and_by_age_and_do_not_grow_without_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    kept = Sessions(lambda: now[0])
    session = ConsoleSession("key", "key:1", frozenset())
    identifier = kept.open(session)
    for _ in range(int(LIFE_S / (IDLE_S - 1))):
        now[0] += IDLE_S - 1
        assert kept.find(identifier) is session
    now[0] = LIFE_S + 1
    assert kept.find(identifier) is None
    idle = kept.open(ConsoleSession("key", "key:1", frozenset()))
    now[0] += IDLE_S + 1
    assert kept.find(idle) is None
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 2)
    first, *rest = [kept.open(ConsoleSession("key", "key:1", frozenset())) for _ in range(3)]
    assert kept.find(first) is None and all(kept.find(identifier) for identifier in rest)


def test_a_revoked_key_ends_the_session(closed: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    from bento.access.access_control import AccessControl
    from bento.access.access_denied import AccessDenied

    closed.sign_in("analyst")

    async def refuse(*_: object) -> None:
        raise AccessDenied.unauthorized("revoked_key")

    monkeypatch.setattr(AccessControl, "_authenticate", refuse)
    answer = closed.get("alerts")
    assert answer.status_code == 401 and "revoked" in answer.text and "API key" in answer.text
    monkeypatch.undo()
    assert closed.get("alerts", follow_redirects=False).status_code == 303
