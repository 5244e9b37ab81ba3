"""Verification of bearer tokens (JWT), and the issuer's public keys (JWKS).

The public keys come from a URL or a file. A worker reads them when it starts, again after a while, and when a token names an unknown key;
never more than once a minute, so that no client can make the service flood its issuer with requests.
"""

import asyncio
import hashlib
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jwt

from bento.access.token_issuer import IssuerKeysUnavailable, TokenIssuer, TokenRejected
from bento.context import ROLES, Caller

logger = logging.getLogger("finrisk.service")

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Accepted signatures, each by a key pair. With HS256 the public key, which is no secret, would be enough to sign."""
LEEWAY_S = 30
"""Seconds by which the issuer's clock may differ. More seconds accept expired tokens for longer."""
JWKS_MIN_AGE_S = 60.0
"""Seconds before the keys are read again. Fewer seconds mean more requests to the issuer."""
JWKS_MAX_AGE_S = 300.0
"""Seconds after which the keys are read again, in the background. More seconds accept a withdrawn key for longer."""
_FETCH_TIMEOUT_S = 3.0
_CACHE_SIZE = 1_000
_CACHE_TTL_S = 60.0
_MAX_TOKEN_LENGTH = 8_192
LAST_SECOND = 253_402_300_799
"""Seconds from 1970 to the end of 9999: the last time that a token may name."""
_TIMES = ("exp", "nbf", "iat")
PARSER_FAULTS = (jwt.PyJWTError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError)
"""Errors of PyJWT, and of the JSON parser below it, for hostile text: too large numbers, deeply nested brackets, claims of another type."""

PublicKeys = Mapping[str, jwt.PyJWK]
"""The issuer's public keys by their id."""


def read_public_keys(location: str) -> PublicKeys:
    """Return the keys of a JWKS at a URL or in a file, as `parse_public_keys` does.

    Raises
    ------
    OSError, ValueError, jwt.PyJWTError
        If the JWKS cannot be read.
    """
    if urlsplit(location).scheme in ("http", "https"):
        document = jwt.PyJWKClient(location, cache_jwk_set=False, timeout=_FETCH_TIMEOUT_S).fetch_data()
    else:
        document = json.loads(Path(location).read_bytes())
    return parse_public_keys(document)


def parse_public_keys(document: Any) -> PublicKeys:
    """Return the keys of a JWKS document, except keys for other signatures than `ALGORITHMS`.

    Raises
    ------
    jwt.PyJWTError, or another of `PARSER_FAULTS`
        If the document is no JWKS.
    """
    return {
        key.key_id: key
        for key in jwt.PyJWKSet.from_dict(document).keys
        if key.key_id and key.public_key_use in ("sig", None) and key.algorithm_name in ALGORITHMS
    }


class IssuerKeySet:
    """The issuer's public keys in one worker, read again as they age.

    Parameters
    ----------
    read
        Reads the keys, in a thread because the issuer may be slow.
    clock
        Seconds of a clock that never goes back.
    """

    def __init__(self, read: Callable[[], PublicKeys], clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._keys: PublicKeys | None = None
        self._read_at = self._tried_at = float("-inf")
        self._lock = asyncio.Lock()
        self._refresh_task: asyncio.Task[None] | None = None
        self.generation = 0
        """Number of times that a different set of keys was read."""

    def load(self) -> None:
        """Read the keys now. Where that fails, the old keys stay and a log line says so."""
        self._tried_at = self._clock()
        try:
            keys = self._read()
        except (OSError, AttributeError, *PARSER_FAULTS) as error:
            logger.error("the token issuer's keys cannot be read (%s): check the URL or file in FINRISK_JWT_JWKS", type(error).__name__)
            return
        self.generation += self._keys is None or keys.keys() != self._keys.keys()
        self._keys, self._read_at = keys, self._clock()

    async def find_key(self, kid: str) -> jwt.PyJWK | None:
        """Return the key with this id; None where the issuer does not publish it.

        Raises
        ------
        IssuerKeysUnavailable
            If the keys were never read.
        """
        if self._keys is not None and kid in self._keys:
            if self._clock() - self._read_at > JWKS_MAX_AGE_S and (self._refresh_task is None or self._refresh_task.done()):
                self._refresh_task = asyncio.create_task(self._refresh())  # requests go on with the old keys meanwhile
            return self._keys[kid]
        await self._refresh()
        if self._keys is None:
            raise IssuerKeysUnavailable
        return self._keys.get(kid)

    async def _refresh(self) -> None:
        async with self._lock:
            if self._clock() - self._tried_at >= JWKS_MIN_AGE_S:
                await asyncio.to_thread(self.load)


class TokenVerifier:
    """The verifier of bearer tokens in one worker.

    Parameters
    ----------
    issuer
        Issuer of accepted tokens.
    issuer_keys
        The issuer's public keys.
    pseudonym
        Returns a caller's name for the text of issuer and subject, from which neither can be recovered.
    clock
        Seconds of a clock that never goes back.
    now
        Seconds since 1970, UTC.
    """

    def __init__(
        self,
        issuer: TokenIssuer,
        issuer_keys: IssuerKeySet,
        pseudonym: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._issuer_keys = issuer_keys
        self._pseudonym = pseudonym
        self._clock = clock
        self._now = now
        self._cache: OrderedDict[bytes, tuple[Caller, float, float, int]] = OrderedDict()
        self._decoder = jwt.PyJWT({"require": ["exp", "iss", "aud", "sub"], "enforce_minimum_key_length": True})

    async def verify(self, token: str) -> Caller:
        """Return the caller whose token this is. An accepted token is verified once a minute, unless it expires or the keys change.

        Raises
        ------
        TokenRejected
            If the token is not genuine, not for this service, or not valid now.
        IssuerKeysUnavailable
            If the issuer's keys were never read.
        """
        digest = hashlib.sha256(token.encode()).digest()
        cached = self._cache.get(digest)
        if cached is not None:
            caller, cached_until, expires_at, generation = cached
            if self._clock() < cached_until and self._now() < expires_at and generation == self._issuer_keys.generation:
                return caller
            del self._cache[digest]
        claims = self._decode(token, await self._issuer_keys.find_key(_read_key_id(token)))
        _check_times(claims)
        caller = Caller("jwt:" + self._pseudonym(f"{claims['iss']}\n{claims['sub']}"), self._read_roles(claims))
        self._cache[digest] = (caller, self._clock() + _CACHE_TTL_S, float(claims["exp"]) + LEEWAY_S, self._issuer_keys.generation)
        if len(self._cache) > _CACHE_SIZE:
            self._cache.popitem(last=False)
        return caller

    def _decode(self, token: str, key: jwt.PyJWK | None) -> dict[str, Any]:
        """Return the claims of a token whose signature, issuer, audience and times are valid."""
        if key is None:
            raise TokenRejected("unknown_signer")
        try:
            return self._decoder.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._issuer.audience,
                issuer=self._issuer.issuer,
                leeway=LEEWAY_S,
            )
        except jwt.ExpiredSignatureError:
            raise TokenRejected("expired_token") from None
        except PARSER_FAULTS:
            raise TokenRejected("bad_token") from None

    def _read_roles(self, claims: Any) -> frozenset[str]:
        """Return finrisk's roles in the roles claim, which is a list, or a text of words."""
        claim, value = self._issuer.roles_claim, claims
        for part in [claim] if claim in claims else claim.split("."):  # the name of a claim may hold dots, as a URL does
            value = value.get(part) if isinstance(value, dict) else None
        names = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
        prefix = self._issuer.role_prefix
        return ROLES & {name.removeprefix(prefix) for name in names if isinstance(name, str) and name.startswith(prefix)}


def _check_times(claims: Mapping[str, Any]) -> None:
    """Refuse a token with a time that is no number of seconds between 1970 and 9999, such as one of 400 digits."""
    for name in _TIMES:
        value = claims.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LAST_SECOND:
            raise TokenRejected("bad_token")


def _read_key_id(token: str) -> str:
    """Return the id of the key that signed a token, as the token's header names it."""
    if len(token) > _MAX_TOKEN_LENGTH:
        raise TokenRejected("bad_token")
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except PARSER_FAULTS:
        raise TokenRejected("bad_token") from None
    if not isinstance(kid, str):
        raise TokenRejected("unknown_signer")
    return kid
