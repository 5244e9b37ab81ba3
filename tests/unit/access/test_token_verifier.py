"""Tests of bearer tokens: which are accepted, the caller of each, and how seldom the issuer's keys are read."""

import asyncio
import base64
import json
import time
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization

from bento.access.token_issuer import IssuerKeysUnavailable, TokenIssuer, TokenRejected
from bento.access.token_verifier import JWKS_MAX_AGE_S, JWKS_MIN_AGE_S, IssuerKeySet, TokenVerifier, read_public_keys
from finrisk_assets.settings import Settings, SettingsError
from tests.tokens import AUDIENCE, CURVE, ISSUER, OTHER, RSA, jwks_document, token


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps(jwks_document(one=RSA, curve=CURVE)))
    return file


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tokens(jwks, clock):
    """Return a verifier with the keys of a file; `tokens.reads` counts the readings of the file."""
    reads = []

    def read():
        reads.append(clock())
        return read_public_keys(str(jwks))

    known = IssuerKeySet(read, clock)
    known.load()
    verifier = TokenVerifier(TokenIssuer(ISSUER, AUDIENCE, str(jwks)), known, lambda text: f"<{hash(text)}>", clock)
    verifier.reads = reads
    return verifier


def caller(tokens, sent):
    return asyncio.run(tokens.verify(sent))


def refusal(tokens, sent):
    with pytest.raises(TokenRejected) as refused:
        caller(tokens, sent)
    return str(refused.value)


@pytest.mark.parametrize(("key", "kid", "algorithm"), [(RSA, "one", "RS256"), (CURVE, "curve", "ES256")])
def test_a_good_token_has_a_caller_with_roles_and_no_name(tokens, key, kid, algorithm):
    identity = caller(tokens, token(key, kid, algorithm))

    assert identity.roles == {"scorer"}
    assert identity.name.startswith("jwt:")
    assert "ada" not in identity.name


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": -60}, "expired_token"),
        ({"nbf": 600}, "bad_token"),
        ({"aud": "another-service"}, "bad_token"),
        ({"iss": "https://login.bank.example.evil"}, "bad_token"),
        ({"exp": None}, "bad_token"),
        ({"aud": None}, "bad_token"),
        ({"iss": None}, "bad_token"),
        ({"sub": None}, "bad_token"),
    ],
)
def test_claims_that_do_not_fit_are_refused(tokens, changes, reason):
    """Times are given in seconds from now: the tests are collected long before this one runs."""
    now = int(time.time())
    claims = {name: now + value if isinstance(value, int) else value for name, value in changes.items()}
    assert refusal(tokens, token(**claims)) == reason


HUGE = 10**399


@pytest.mark.parametrize("time_", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value", [HUGE, -HUGE, float("inf"), float("-inf"), float("nan"), -1, True, "soon", [], {}, 1e300], ids=lambda value: str(value)[:9]
)
def test_a_time_that_is_no_time_is_refused(tokens, time_, value):
    assert refusal(tokens, token(**{time_: value})) in ("bad_token", "expired_token")


@pytest.mark.parametrize(
    "payload",
    [b'{"exp":%s}' % (b"[" * 3_000), b'{"exp":1e400}', b'{"exp":%s}' % (b"9" * 5_000), b"[1]", b"\xff\xfe", b"", b'{"exp":"\\ud800"}'],
    ids=["nested", "1e400", "5,000 digits", "a list", "no text", "nothing", "half a character"],
)
def test_a_genuine_signature_over_anything_else_is_refused(tokens, payload):
    signed = jwt.PyJWS().encode(payload, RSA, "RS256", headers={"kid": "one"})
    assert refusal(tokens, signed) == "bad_token"


@pytest.mark.parametrize(
    "header", ['{"alg":"RS256","kid":%s' % ("[" * 3_000), '{"kid":%s}' % ("9" * 5_000), "[]", '{"alg":[],"kid":"one"}']
)
def test_a_header_that_no_parser_takes_is_refused(tokens, header):
    encoded = base64.urlsafe_b64encode(header.encode()).decode().rstrip("=")
    assert refusal(tokens, f"{encoded}.{token().partition('.')[2]}") in ("bad_token", "unknown_signer")


def test_keys_of_an_issuer_that_no_parser_takes_are_not_read(jwks):
    for document in ("[" * 100_000, "[]", '{"keys": 1}', '{"keys": [{"kty": []}]}'):
        jwks.write_text(document)
        IssuerKeySet(lambda: read_public_keys(str(jwks))).load()


def test_clocks_may_differ_by_half_a_minute(tokens):
    now = int(time.time())
    assert caller(tokens, token(exp=now - 10, nbf=now + 10))


def test_a_signature_of_another_key_is_refused(tokens):
    assert refusal(tokens, token(OTHER)) == "bad_token"


def test_a_changed_payload_is_refused(tokens):
    head, _, signature = token().split(".")
    payload = token(roles=["admin"]).split(".")[1]
    assert refusal(tokens, f"{head}.{payload}.{signature}") == "bad_token"


def test_no_signature_is_refused(tokens):
    assert refusal(tokens, token(None, algorithm="none")) == "bad_token"
    head, payload, _ = token(None, algorithm="none").split(".")
    assert refusal(tokens, f"{head}.{payload}.") == "bad_token"


def test_the_public_key_is_no_secret_to_sign_with(tokens):
    """HS256 with the public key as its secret, which a service that trusts the token's `alg` would accept."""
    import hashlib
    import hmac

    public = RSA.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    _, payload, _ = token().split(".")
    head = jwt.utils.base64url_encode(json.dumps({"alg": "HS256", "typ": "JWT", "kid": "one"}).encode()).decode()
    signature = jwt.utils.base64url_encode(hmac.digest(public, f"{head}.{payload}".encode(), hashlib.sha256)).decode()

    assert refusal(tokens, f"{head}.{payload}.{signature}") == "bad_token"


def test_a_shared_secret_in_the_jwks_is_not_taken(tmp_path):
    file = tmp_path / "jwks.json"
    shared = {"kty": "oct", "kid": "shared", "k": jwt.utils.base64url_encode(b"s" * 32).decode()}
    file.write_text(json.dumps({"keys": [*jwks_document(one=RSA)["keys"], shared]}))

    assert set(read_public_keys(str(file))) == {"one"}


@pytest.mark.parametrize("headers", [{"kid": "another"}, {}, {"jwk": {"kty": "oct"}, "jku": "https://evil.example/jwks"}])
def test_a_key_that_the_provider_does_not_publish_is_refused(tokens, headers):
    assert refusal(tokens, token(headers=headers)) == "unknown_signer"


@pytest.mark.parametrize("text", ["", "a", "a.b.c", "..", "x" * 10_000, "é.é.é"])
def test_what_is_no_token_is_refused(tokens, text):
    assert refusal(tokens, text) == "bad_token"


@pytest.mark.parametrize("roles", [None, [], "", "treasurer", ["SCORER"], {"scorer": True}, [7], 7])
def test_a_token_without_a_role_of_ours_has_none(tokens, roles):
    assert caller(tokens, token(roles=roles)).roles == frozenset()


@pytest.mark.parametrize(
    ("claim", "prefix", "claims", "roles"),
    [
        ("scope", "", {"scope": "openid analyst auditor"}, {"analyst", "auditor"}),
        ("realm_access.roles", "finrisk-", {"realm_access": {"roles": ["finrisk-privacy", "admin"]}}, {"privacy"}),
        ("https://bank.example/roles", "", {"https://bank.example/roles": ["admin"]}, {"admin"}),
    ],
)
def test_roles_are_found_where_the_settings_say(jwks, claim, prefix, claims, roles):
    known = IssuerKeySet(lambda: read_public_keys(str(jwks)))
    tokens = TokenVerifier(TokenIssuer(ISSUER, AUDIENCE, str(jwks), claim, prefix), known, str)

    assert caller(tokens, token(roles=None, **claims)).roles == roles


def test_a_rotated_key_is_learned_and_the_old_one_forgotten(tokens, jwks, clock):
    old = token()
    assert caller(tokens, old)
    jwks.write_text(json.dumps(jwks_document(two=OTHER)))

    assert refusal(tokens, token(OTHER, "two")) == "unknown_signer", "asked again too soon"
    clock.seconds += JWKS_MIN_AGE_S
    assert caller(tokens, token(OTHER, "two"))
    assert refusal(tokens, old) == "unknown_signer"


def test_unknown_keys_do_not_press_the_provider(tokens, clock):
    for _ in range(50):
        refusal(tokens, token(kid="made-up"))
        clock.seconds += 1.0

    assert len(tokens.reads) == 1, "in under a minute since the keys were read"
    clock.seconds += JWKS_MIN_AGE_S
    for _ in range(50):
        refusal(tokens, token(kid="made-up"))
    assert len(tokens.reads) == 2


def test_good_tokens_have_the_keys_read_again_in_the_background(tokens, clock):
    async def two():
        await tokens.verify(token())
        clock.seconds += JWKS_MAX_AGE_S + 1
        await tokens.verify(token(sub="grace"))
        async with asyncio.timeout(10):
            while len(tokens.reads) < 2:
                await asyncio.sleep(0.001)

    asyncio.run(two())
    assert len(tokens.reads) == 2


def test_keys_that_cannot_be_read_again_stay(tokens, jwks, clock, caplog):
    jwks.unlink()
    clock.seconds += JWKS_MAX_AGE_S + 1

    assert caller(tokens, token())
    assert refusal(tokens, token(kid="two")) == "unknown_signer"
    assert "FINRISK_JWT_JWKS" in caplog.text


def test_without_any_keys_no_token_is_judged(tmp_path):
    path = str(tmp_path / "none.json")
    tokens = TokenVerifier(TokenIssuer(ISSUER, AUDIENCE, path), IssuerKeySet(lambda: read_public_keys(path)), str)

    with pytest.raises(IssuerKeysUnavailable):
        caller(tokens, token())


def test_a_token_is_verified_once_a_minute_and_never_after_its_end(jwks, clock):
    verified, moment = [], Clock()
    moment.seconds = time.time()
    keys = IssuerKeySet(lambda: read_public_keys(str(jwks)), clock)
    tokens = TokenVerifier(TokenIssuer(ISSUER, AUDIENCE, str(jwks)), keys, lambda text: verified.append(text) or "name", clock, moment)
    sent = token()

    for _ in range(3):
        caller(tokens, sent)
    assert len(verified) == 1
    clock.seconds += 61.0
    caller(tokens, sent)
    assert len(verified) == 2
    moment.seconds += 1_000
    caller(tokens, sent)
    assert len(verified) == 3, "what is remembered does not outlive the token"


def test_settings_of_a_provider_come_together():
    assert TokenIssuer.from_settings(Settings()) is None
    with pytest.raises(SettingsError, match="FINRISK_JWT_AUDIENCE, FINRISK_JWT_JWKS is not set"):
        TokenIssuer.from_settings(Settings(jwt_issuer=ISSUER))
    with pytest.raises(SettingsError, match="must be https"):
        TokenIssuer.from_settings(Settings(jwt_issuer=ISSUER, jwt_audience=AUDIENCE, jwt_jwks="http://login.bank.example/jwks"))


def test_keys_come_over_http_too():
    """From a provider on this machine, as in a test; from elsewhere only over https."""
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Serves(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(jwks_document(one=RSA)).encode())

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Serves) as server:
        Thread(target=server.handle_request, daemon=True).start()
        assert set(read_public_keys(f"http://127.0.0.1:{server.server_port}/jwks")) == {"one"}
