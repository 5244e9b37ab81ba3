"""Tests of the access middleware: accepted and refused callers, and that credentials go no further."""

import hashlib
import logging

import pytest
from sqlalchemy import create_engine
from starlette.testclient import TestClient

from bento.access.access_control import AccessControl
from bento.access.access_middleware import AccessMiddleware
from bento.access.api_keys import KeyVerifier, create_key
from bento.access.client_address import find_client_address, is_cross_site, is_direct, is_within, parse_networks
from bento.access.rate_limits import Rate
from bento.access.token_issuer import IssuerKeysUnavailable, TokenRejected
from bento.context import ROLES, Caller, current_caller
from bento.store.audit_chain import bind_key
from bento.store.tables import keys as table
from bento.web.envelope import Envelope

AMPLE = Rate(100.0, 100)
NOW = 1_700_000_000_000_000
ASKED = "/v1/models"


def mac(content: bytes) -> str:
    return hashlib.sha256(b"the service's key" + content).hexdigest()


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Serving:
    """A service behind the access middleware that answers with the caller and the received headers."""

    def __init__(self, known=AMPLE, unknown=AMPLE, tokens=None) -> None:
        self.clock, self.counted, self.recorded, self.kept = Clock(), [], [], []
        self.is_store_reachable = True
        self.keys = KeyVerifier(self.read_keys, mac, self.clock, lambda: NOW / 1e6)
        self.access = AccessControl(
            self.keys, tokens, known, unknown, self.counted.append, lambda *what: self.recorded.append(what), self.clock
        )
        self.client = TestClient(Envelope(AccessMiddleware(self._answer, lambda: self.access)))

    def read_keys(self):
        if not self.is_store_reachable:
            raise OSError("unreachable")
        return list(self.kept)

    def key(self, *roles, expires_at=None, **changes) -> dict[str, str]:
        """Return the headers of a caller with a new key of these roles."""
        with create_engine("sqlite://").begin() as connection:
            table.create(connection)
            made, shown = create_key(connection, mac, "one", roles or ["scorer"], now=NOW - 1_000, expires_at=expires_at)
        made = made._replace(**changes)
        self.kept.append(made._replace(mac=bind_key(mac, made.row())))
        self.clock.seconds += 10.0  # so that it is read
        return {"authorization": f"Bearer {shown}"}

    async def _answer(self, scope, receive, send):
        text = f"{current_caller.get().name} {' '.join(name.decode() for name, _ in scope['headers'])}"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": text.encode()})


@pytest.fixture
def service():
    return Serving()


def error(response, status):
    assert response.status_code == status, response.text
    return response.json()["error"]


def test_a_key_says_who_asks_and_goes_no_further(service):
    headers = service.key()
    for sent in (headers, {"x-api-key": headers["authorization"].split()[1]}):
        text = service.client.get(ASKED, headers=sent)
        assert text.status_code == 200
        assert text.text.startswith(f"key:{service.kept[0].id} ")
        assert "authorization" not in text.text
        assert "x-api-key" not in text.text


def test_without_any_key_this_machine_alone_is_answered(service):
    assert service.client.get(ASKED).text.startswith("local ")
    for headers in (
        {"x-forwarded-for": "10.0.0.7"},
        {"forwarded": "for=10.0.0.7"},
        {"x-forwarded-proto": "https"},
        {"host": "evil.example"},
    ):
        assert "finrisk keys create" in error(service.client.get(ASKED, headers=headers), 401)["message"]
    assert service.counted == ["not_local"] * 4
    assert {reason for reason, _, _ in service.recorded} == {"not_local"}


def test_with_a_key_this_machine_is_asked_too(service):
    service.key()
    refused = service.client.get(ASKED)

    assert error(refused, 401)["code"] == "unauthorized"
    assert refused.headers["www-authenticate"] == 'Bearer realm="finrisk"'


def test_a_revoked_key_does_not_open_the_service(service):
    service.key(revoked_at=NOW)

    error(service.client.get(ASKED), 401)


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"revoked_at": NOW - 1}, "was revoked"), ({"expires_at": NOW}, "has expired"), ({"hash": "0" * 64}, "not known")],
)
def test_a_key_that_is_none_is_told_why(service, changes, words):
    refused = service.client.get(ASKED, headers=service.key(**changes))

    assert words in error(refused, 401)["message"]
    assert refused.headers["www-authenticate"] == 'Bearer realm="finrisk", error="invalid_token"'


@pytest.mark.parametrize(
    "headers",
    [
        [("authorization", "Basic Zm9vOmJhcg==")],
        [("authorization", "Bearer")],
        [("authorization", "")],
        [("x-api-key", "")],
        [("authorization", "Bearer a"), ("x-api-key", "b")],
    ],
)
def test_anything_but_one_credential_is_refused(service, headers):
    service.key()
    assert "one credential" in error(service.client.get(ASKED, headers=headers), 401)["message"]


def test_a_token_where_none_are_accepted(service):
    service.key()
    assert "send an API key" in error(service.client.get(ASKED, headers={"authorization": "Bearer a.b.c"}), 401)["message"]


class Provided:
    """Tokens of a provider: the text of one is its subject's roles."""

    async def verify(self, token):
        if token == "unreachable":
            raise IssuerKeysUnavailable
        if token == "forged":
            raise TokenRejected("bad_token")
        return Caller("jwt:someone", frozenset(token.split("+")) & ROLES)


@pytest.mark.parametrize(
    ("token", "status"), [("scorer", 200), ("none", 403), ("analyst+treasurer", 200), ("forged", 401), ("unreachable", 503)]
)
def test_a_token_is_judged_by_its_provider(token, status):
    served = Serving(tokens=Provided())

    assert served.client.get(ASKED, headers={"authorization": f"bearer {token}"}).status_code == status
    assert served.client.get(ASKED).status_code == 401, "a provider closes the service as a key does"
    assert served.client.get(ASKED, headers=served.key()).status_code == 200, "keys are good beside tokens"


def test_a_role_that_is_not_enough(service):
    refused = service.client.post("/v1/feedback", json={}, headers=service.key("scorer"))

    assert error(refused, 403)["message"] == "This route needs the role admin or analyst."
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]


def test_a_route_that_is_not_in_the_table(service):
    headers = service.key("admin")

    assert error(service.client.get("/v1/nothing", headers=headers), 404)["code"] == "not_found"
    other = service.client.put(ASKED, headers=headers)
    assert error(other, 405)["code"] == "method_not_allowed"
    assert other.headers["allow"] == "GET, HEAD"
    assert error(service.client.get("/v1/nothing"), 401), "who is not known learns nothing of what there is"


def test_a_key_that_asks_too_often_waits_and_others_do_not():
    served = Serving(known=Rate(0.5, 3))
    one, other = served.key(), served.key()

    assert [served.client.get(ASKED, headers=one).status_code for _ in range(4)] == [200, 200, 200, 429]
    refused = served.client.get(ASKED, headers=one)
    assert error(refused, 429)["code"] == "too_many_requests"
    assert refused.headers["retry-after"] == "2"
    assert served.client.get(ASKED, headers=other).status_code == 200
    served.clock.seconds += 2.0
    assert served.client.get(ASKED, headers=one).status_code == 200


def test_an_address_that_guesses_waits_while_the_known_are_answered():
    served = Serving(unknown=Rate(1.0, 2))
    good = served.key()
    guess = {"authorization": f"Bearer finrisk_{'0' * 16}_{'A' * 43}"}

    assert [served.client.get(ASKED, headers=guess).status_code for _ in range(4)] == [401, 401, 429, 429]
    assert served.client.get("/docs").status_code == 429
    assert served.client.get(ASKED, headers=good).status_code == 200


def test_probes_are_never_refused():
    served = Serving(unknown=Rate(1.0, 1))
    served.key()
    for path in ("/livez", "/readyz") * 20:
        assert served.client.get(path).status_code == 200


def test_refusals_are_counted_and_recorded_without_the_secret(service):
    headers = service.key("scorer")
    secret = f"finrisk_{'0' * 16}_{'B' * 43}"
    service.client.get(ASKED, headers={"authorization": f"Bearer {secret}"})
    service.client.get("/v1/audit", headers=headers)

    assert service.counted == ["bad_key", "role"]
    assert service.recorded == [("bad_key", None, "unknown"), ("role", f"key:{service.kept[0].id}", "unknown")]
    assert secret not in str(service.recorded)


def test_what_is_recorded_of_a_flood_is_bounded(service):
    service.access = AccessControl(
        service.keys, None, Rate(1, 1), Rate(1e9, 1e9), service.counted.append, lambda *what: service.recorded.append(what), service.clock
    )
    service.key()
    for _ in range(300):
        service.client.get(ASKED)

    assert len(service.counted) == 300
    assert len(service.recorded) == 100


def test_no_log_line_has_a_credential(service, caplog):
    headers = service.key("scorer")
    with caplog.at_level(logging.DEBUG):
        service.client.get(ASKED, headers=headers)
        service.client.get("/v1/audit", headers=headers)
        service.client.get(ASKED, headers={"x-api-key": headers["authorization"].split()[1] + "x"})

    assert headers["authorization"].split("_", 2)[2][:20] not in caplog.text


def test_keys_that_cannot_be_read_leave_the_service_not_ready(service):
    service.is_store_reachable = False
    refused = service.client.get(ASKED)
    assert error(refused, 503)["code"] == "not_ready"
    assert refused.headers["retry-after"]
    assert service.client.get("/livez").status_code == 200


def test_a_websocket_is_not_accepted(service):
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), service.client.websocket_connect("/v1/models"):
        pass


def scope(server=("127.0.0.1", 3000), client=("127.0.0.1", 5), **headers):
    return {
        "server": server,
        "client": client,
        "headers": [(name.encode(), value.encode()) for name, value in ({"host": "localhost:3000"} | headers).items()],
    }


@pytest.mark.parametrize(
    ("asked", "direct"),
    [
        (scope(), True),
        (scope(host="127.0.0.1:3000"), True),
        (scope(server=("::1", 3000), host="[::1]:3000"), True),
        (scope(server=("10.1.2.3", 3000), host="10.1.2.3:3000"), False),
        (scope(server=None), False),
        (scope(host="finrisk.evil.example:3000"), False),
        (scope(host="["), False),
    ],
)
def test_what_counts_as_this_machine(asked, direct):
    assert is_direct(asked) is direct


@pytest.mark.parametrize(
    ("headers", "cross_site"),
    [
        ({}, False),
        ({"sec-fetch-site": "none"}, False),
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "same-site"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"origin": "http://localhost:3000"}, False),
        ({"origin": "http://localhost:3000", "sec-fetch-site": "same-site"}, False),
        ({"origin": "http://localhost:3000", "sec-fetch-site": "cross-site"}, True),
        ({"origin": "http://localhost:4000", "sec-fetch-site": "same-site"}, True),
        ({"origin": "http://["}, True),
        ({"origin": "https://evil.example", "sec-fetch-site": "same-origin"}, True),
        ({"origin": "null"}, True),
    ],
)
def test_what_counts_as_a_page_of_another_origin(headers, cross_site):
    assert is_cross_site(scope(**headers)) is cross_site


def test_a_page_of_another_origin_is_refused_even_with_a_key(service):
    headers = service.key("admin") | {"host": "risk.bank.example", "origin": "https://evil.example"}

    assert "another origin" in error(service.client.get(ASKED, headers=headers), 403)["message"]
    assert service.recorded[-1][0] == "cross_site"
    assert service.client.get("/docs", headers=headers).status_code == 200


def test_an_address_belongs_to_the_networks_that_are_set():
    networks = parse_networks("10.0.0.7, 2001:db8::/32")

    assert [is_within(host, networks) for host in ("10.0.0.7", "::ffff:10.0.0.7", "2001:db8::1")] == [True] * 3
    assert [is_within(host, networks) for host in ("10.0.0.8", "127.0.0.1", "", "/run/socket")] == [False] * 4
    assert parse_networks("") == ()


def test_neighbours_of_one_ipv6_network_are_one_address():
    assert (
        find_client_address(scope(client=("2001:db8::1", 1))) == find_client_address(scope(client=("2001:db8::ffff", 1))) == "2001:db8::/64"
    )
    assert find_client_address(scope(client=("10.0.0.7", 1))) == "10.0.0.7"
    assert find_client_address(scope(client=("::ffff:10.0.0.7", 1))) == "10.0.0.7", "all IPv4 would share one /64"
    assert find_client_address(scope(client=("x" * 1_000, 1))) == find_client_address(scope(client=None)) == "unknown"
