"""The OIDC provider: its endpoints, the way there, and the redemption of an authorization code for an access token.

OpenID Connect Core 1.0 (authorization code flow), with PKCE (RFC 7636) and the issuer in the answer (RFC 9207).
"""

import asyncio
import hmac
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

import httpx
import jwt

from bento.access.token_verifier import ALGORITHMS, LEEWAY_S, PARSER_FAULTS, parse_public_keys
from bento.console.sign_in.oidc_client import OidcClient, is_secure_url
from bento.console.sign_in.pending_sign_ins import PendingSignIn

TIMEOUT_S = 5.0
"""Seconds for one answer of the provider."""
MAX_ANSWER_BYTES = 256 * 1024
"""Bytes of one answer of the provider."""
DISCOVERY_MAX_AGE_S = 3600.0
"""Seconds after which the provider's endpoints are read again."""
CODE_ERROR = "invalid_grant"
"""Error of the token endpoint for a code that has expired, was redeemed before, or belongs to another verifier (RFC 6749)."""
CLIENT_ERRORS = ("invalid_client", "unauthorized_client")
"""Errors of the token endpoint for a client that is not registered so."""


class SignInRefused(Exception):  # noqa: N818 - named for what happens
    """A sign-in that the provider does not complete.

    Attributes
    ----------
    status
        403 where the person or the answer is refused, 502 where the provider fails.
    message
        One sentence for the person, without anything that the provider sent.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True)
class ProviderEndpoints:
    """The provider's endpoints.

    Attributes
    ----------
    authorization, token, keys
        Addresses of the authorization endpoint, the token endpoint and the public keys.
    names_issuer
        Whether every answer of the authorization endpoint names its issuer (RFC 9207).
    """

    authorization: str
    token: str
    keys: str
    names_issuer: bool


class OidcProvider:
    """The provider at which the console is registered.

    Parameters
    ----------
    client
        The console as a client of the provider.
    clock
        Seconds of a clock that never goes back.
    """

    def __init__(self, client: OidcClient, clock: Callable[[], float] = time.monotonic) -> None:
        self.client = client
        self._clock = clock
        self._endpoints: ProviderEndpoints | None = None
        self._discovered_at = 0.0
        # The system's certificates, with which the API reads the issuer's keys too.
        self._tls = ssl.create_default_context()
        self._decoder = jwt.PyJWT({"require": ["exp", "iat", "iss", "aud", "sub", "nonce"], "enforce_minimum_key_length": True})

    async def discover(self) -> ProviderEndpoints:
        """Return the provider's endpoints, which are read again after an hour.

        Raises
        ------
        SignInRefused
            If the provider does not answer, or its document is of another issuer or names an address without encryption.
        """
        if self._endpoints is None or self._clock() - self._discovered_at > DISCOVERY_MAX_AGE_S:
            document = await self._read_document(f"{self.client.issuer.rstrip('/')}/.well-known/openid-configuration")
            self._endpoints, self._discovered_at = self._read_endpoints(document), self._clock()
        return self._endpoints

    def build_authorization_url(self, endpoints: ProviderEndpoints, pending: PendingSignIn) -> str:
        """Return the address at the provider where a person signs in."""
        parameters = {
            "response_type": "code",
            "client_id": self.client.client_id,
            "redirect_uri": self.client.redirect_uri,
            "scope": self.client.scopes,
            "state": pending.state,
            "nonce": pending.nonce,
            "code_challenge": pending.challenge,
            "code_challenge_method": "S256",
        }
        return str(httpx.URL(endpoints.authorization).copy_merge_params(parameters))

    async def redeem_answer(self, answer: Mapping[str, str], pending: PendingSignIn) -> str:
        """Return the access token for the provider's answer to a pending sign-in, once its ID token is verified.

        Parameters
        ----------
        answer
            The query with which the provider led the person back.
        pending
            The sign-in to which the answer's state belongs.

        Raises
        ------
        SignInRefused
            If the answer is an error or of another provider, the code is not accepted, or the ID token is not that of this sign-in.
        """
        endpoints = await self.discover()
        names_issuer = endpoints.names_issuer or "iss" in answer
        if names_issuer and answer.get("iss") != self.client.issuer:
            raise SignInRefused(403, f"This answer is not of {self.client.provider_name}. Sign in again.")
        if answer.get("error") == "access_denied":
            raise SignInRefused(403, f"The sign-in at {self.client.provider_name} was denied. Sign in again, or with an API key.")
        if not answer.get("code"):
            raise SignInRefused(502, f"{self.client.provider_name} did not sign you in. Try again, or ask its administrator.")
        tokens = await self._redeem_code(endpoints.token, answer["code"], pending.verifier)
        self._verify_id_token(tokens.get("id_token"), await self._read_document(endpoints.keys), pending.nonce)
        access_token = tokens.get("access_token")
        if not isinstance(access_token, str) or not access_token or not access_token.isascii() or not access_token.isprintable():
            raise self._refuse_answer()
        return access_token

    async def _redeem_code(self, endpoint: str, code: str, verifier: str) -> Mapping[str, Any]:
        """Return the tokens for an authorization code."""
        client = self.client
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": client.redirect_uri, "code_verifier": verifier}
        if client.client_secret:
            # RFC 6749, 2.3.1: both are form-encoded first.
            authorization = httpx.BasicAuth(quote_plus(client.client_id), quote_plus(client.client_secret))
            status, tokens = await self._request("POST", endpoint, data=form, auth=authorization)
        else:
            status, tokens = await self._request("POST", endpoint, data=form | {"client_id": client.client_id})
        error = str(tokens.get("error", ""))
        if status == 200 and not error:
            return tokens
        if error == CODE_ERROR:
            raise SignInRefused(403, f"{client.provider_name} no longer accepts this sign-in, which is too old or done. Sign in again.")
        if error in CLIENT_ERRORS:
            text = f"{client.provider_name} does not know this console: check FINRISK_OIDC_CLIENT_ID and FINRISK_OIDC_CLIENT_SECRET."
            raise SignInRefused(502, text)
        raise self._refuse_answer()

    def _verify_id_token(self, id_token: Any, keys: Any, nonce: str) -> None:
        """Check that an ID token is the provider's, for this console, and of the sign-in with this nonce."""
        client_id = self.client.client_id
        try:
            key = parse_public_keys(keys)[jwt.get_unverified_header(id_token)["kid"]]
            claims = self._decoder.decode(
                id_token, key, algorithms=list(ALGORITHMS), audience=client_id, issuer=self.client.issuer, leeway=LEEWAY_S
            )
            is_own = claims.get("azp", client_id) == client_id and hmac.compare_digest(claims["nonce"].encode(), nonce.encode())
        except (AttributeError, *PARSER_FAULTS):
            is_own = False
        if not is_own:
            raise SignInRefused(403, f"The ID token of {self.client.provider_name} is not genuine, or of another sign-in. Sign in again.")

    def _read_endpoints(self, document: Mapping[str, Any]) -> ProviderEndpoints:
        """Return the endpoints that a discovery document names."""
        authorization, token, keys = (str(document.get(name)) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"))
        if document.get("issuer") != self.client.issuer or not all(is_secure_url(address) for address in (authorization, token, keys)):
            text = f"{self.client.provider_name} is not the issuer of FINRISK_JWT_ISSUER, or names addresses without https. Check both."
            raise SignInRefused(502, text)
        return ProviderEndpoints(authorization, token, keys, document.get("authorization_response_iss_parameter_supported") is True)

    async def _read_document(self, url: str) -> Mapping[str, Any]:
        """Return a document of the provider."""
        status, document = await self._request("GET", url)
        if status != 200:
            raise self._refuse_answer()
        return document

    async def _request(self, method: str, url: str, **options: Any) -> tuple[int, Mapping[str, Any]]:
        """Return the status and the JSON object of an answer, which is bounded in time and size."""
        body = bytearray()
        try:
            async with asyncio.timeout(TIMEOUT_S), self._connect() as http, http.stream(method, url, **options) as response:
                async for part in response.aiter_raw():
                    body += part
                    if len(body) > MAX_ANSWER_BYTES:
                        raise self._refuse_answer()
        except (httpx.HTTPError, httpx.InvalidURL, OSError):  # TimeoutError is an OSError
            raise self._report_silence() from None
        if response.status_code >= 500:
            raise self._report_silence()
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            raise self._refuse_answer() from None
        if not isinstance(document, dict):
            raise self._refuse_answer()
        return response.status_code, document

    def _connect(self) -> httpx.AsyncClient:
        """Return a client for one request: nothing of one sign-in, such as a cookie, is sent with another."""
        # A proxy of the environment passes TLS on as it is, but would read what is sent without TLS, which goes to this machine only.
        # The bytes of an answer are counted as they come, so nothing may be compressed.
        return httpx.AsyncClient(verify=self._tls, mounts={"http://": None}, headers={"Accept-Encoding": "identity"}, timeout=TIMEOUT_S)

    def _report_silence(self) -> SignInRefused:
        """Return the refusal where the provider does not answer."""
        return SignInRefused(502, f"{self.client.provider_name} does not answer. Try again, or sign in with an API key.")

    def _refuse_answer(self) -> SignInRefused:
        """Return the refusal of an answer that is none of OIDC."""
        return SignInRefused(502, f"{self.client.provider_name} sent an answer that is not of OIDC. Check FINRISK_JWT_ISSUER.")
