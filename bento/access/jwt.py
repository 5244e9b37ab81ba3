"""Bearer tokens (JWT) of an identity provider: whose they are, if they are genuine and meant for this service.

The provider's public keys (its JWKS) come from a URL or a file. They are read when a worker starts, again after a while, and when a
token names a key that is not among them; never more than once a minute, so that no request can make this service press its provider.
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

from bento.access.token_provider import BadToken, NoKeys, Provider
from bento.context import ROLES, Caller

logger = logging.getLogger("finrisk.service")

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Signatures by a key pair only: with HS256 whoever knows the public key could sign."""
LEEWAY_SECONDS = 30
"""How far the provider's clock may be from ours."""
SOONEST_SECONDS, OLDEST_SECONDS = 60.0, 300.0
"""The keys are not read again sooner than the one, and are when they are older than the other."""
_FETCH_SECONDS = 3.0
_REMEMBERED, _REMEMBERED_SECONDS = 1_000, 60.0
_LONGEST = 8_192

KeySet = Mapping[str, jwt.PyJWK]
"""The provider's keys by their id."""


def read_keys(location: str) -> KeySet:
    """The keys of a JWKS, from its URL or file; those that we accept no signature of are left out.

    Raises
    ------
    OSError, ValueError, jwt.PyJWTError
        Where it cannot be read.
    """
    if urlsplit(location).scheme in ("http", "https"):
        content = jwt.PyJWKClient(location, cache_jwk_set=False, timeout=_FETCH_SECONDS).fetch_data()
    else:
        content = json.loads(Path(location).read_bytes())
    return {
        key.key_id: key
        for key in jwt.PyJWKSet.from_dict(content).keys
        if key.key_id and key.public_key_use in ("sig", None) and key.algorithm_name in ALGORITHMS
    }


class Jwks:
    """The provider's keys, as this worker knows them.

    Parameters
    ----------
    read
        Reads them, from afar: it runs in a thread.
    clock
        Seconds that only go forward.
    """

    def __init__(self, read: Callable[[], KeySet], clock: Callable[[], float] = time.monotonic) -> None:
        self._read = read
        self._clock = clock
        self._keys: KeySet | None = None
        self._read_at = self._tried_at = float("-inf")
        self._lock = asyncio.Lock()
        self._renewing: asyncio.Task[None] | None = None
        self.changes = 0
        """How often other keys than before were read."""

    def load(self) -> None:
        """Read the keys now; where that fails the old ones stay, and a line in the log says so."""
        self._tried_at = self._clock()
        try:
            keys = self._read()
        except (OSError, ValueError, jwt.PyJWTError) as error:
            logger.error("the keys of the identity provider (FINRISK_JWT_JWKS) cannot be read: %s", type(error).__name__)
            return
        self.changes += self._keys is None or keys.keys() != self._keys.keys()
        self._keys, self._read_at = keys, self._clock()

    async def key(self, kid: str) -> jwt.PyJWK | None:
        """The key of that id, or None.

        Raises
        ------
        NoKeys
            Where none could ever be read.
        """
        if self._keys is not None and kid in self._keys:
            if self._clock() - self._read_at > OLDEST_SECONDS and (self._renewing is None or self._renewing.done()):
                self._renewing = asyncio.create_task(self._renew())  # beside the requests, which go on with what is known
            return self._keys[kid]
        await self._renew()
        if self._keys is None:
            raise NoKeys
        return self._keys.get(kid)

    async def _renew(self) -> None:
        async with self._lock:
            if self._clock() - self._tried_at >= SOONEST_SECONDS:
                await asyncio.to_thread(self.load)


class Tokens:
    """Tells whose a token is.

    Parameters
    ----------
    pseudonym
        Makes a name of issuer and subject that tells neither.
    clock, now
        Seconds that only go forward; seconds since 1970.
    """

    def __init__(
        self,
        provider: Provider,
        jwks: Jwks,
        pseudonym: Callable[[str], str],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._provider = provider
        self._jwks = jwks
        self._pseudonym = pseudonym
        self._clock = clock
        self._now = now
        self._known: OrderedDict[bytes, tuple[Caller, float, float, int]] = OrderedDict()
        self._decoder = jwt.PyJWT({"require": ["exp", "iss", "aud", "sub"], "enforce_minimum_key_length": True})

    async def caller(self, token: str) -> Caller:
        """Whose token it is. One that was found good is not verified again for a minute, unless it expires or the keys change.

        Raises
        ------
        BadToken
            Where it is not genuine, not for this service, or not valid now.
        NoKeys
            Where that cannot be told.
        """
        digest = hashlib.sha256(token.encode()).digest()
        known = self._known.get(digest)
        if known is not None:
            caller, remembered_until, expires_at, changes = known
            if self._clock() < remembered_until and self._now() < expires_at and changes == self._jwks.changes:
                return caller
            del self._known[digest]
        claims = self._verified(token, await self._jwks.key(_kid(token)))
        caller = Caller("jwt:" + self._pseudonym(f"{claims['iss']}\n{claims['sub']}"), self._roles(claims))
        self._known[digest] = (caller, self._clock() + _REMEMBERED_SECONDS, float(claims["exp"]) + LEEWAY_SECONDS, self._jwks.changes)
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return caller

    def _verified(self, token: str, key: jwt.PyJWK | None) -> dict[str, Any]:
        if key is None:
            raise BadToken("unknown_signer")
        try:
            return self._decoder.decode(
                token,
                key,
                algorithms=list(ALGORITHMS),
                audience=self._provider.audience,
                issuer=self._provider.issuer,
                leeway=LEEWAY_SECONDS,
            )
        except jwt.ExpiredSignatureError:
            raise BadToken("expired_token") from None
        except jwt.PyJWTError:
            raise BadToken("bad_token") from None

    def _roles(self, claims: Any) -> frozenset[str]:
        """The roles of ours among those that the claim names, as a list or as words of one text."""
        claim, found = self._provider.roles_claim, claims
        for part in [claim] if claim in claims else claim.split("."):  # a name may have dots of its own, where it is a URL
            found = found.get(part) if isinstance(found, dict) else None
        named = found.split() if isinstance(found, str) else found if isinstance(found, list) else []
        prefix = self._provider.role_prefix
        return ROLES & {name.removeprefix(prefix) for name in named if isinstance(name, str) and name.startswith(prefix)}


def _kid(token: str) -> str:
    """The id of the key that a token says it is signed with."""
    if len(token) > _LONGEST:
        raise BadToken("bad_token")
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except jwt.PyJWTError:
        raise BadToken("bad_token") from None
    if not isinstance(kid, str):
        raise BadToken("unknown_signer")
    return kid
