"""API keys: create, list, revoke and verify them.

A key is `finrisk_<id>_<secret>`. The store holds a salted hash of the secret only. One round of HMAC-SHA256 is enough: the secret has 256
random bits, which cannot be guessed however fast the hash is. A slow hash, as for passwords that people choose, would only make every
request slow. The hash is keyed, and a MAC covers the whole row, its revocation included, so that write access to the store without the
service's master key is enough neither to create a key, nor to give a key more roles, nor to bring a revoked key back. An older copy of a
row has a MAC too: the audit's record of the revocation counts beside the row.
"""

import json
import re
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, select, update

from bento.context import ROLES, Caller
from bento.problems import log_failure
from bento.store.audit_chain import bind_key, equal_macs
from bento.store.tables import OF_KEYS, audit
from bento.store.tables import keys as table

KEY_PREFIX = "finrisk_"
"""The beginning of every key, by which scanners of repositories and logs recognize a key."""
KEY_REFRESH_S = 2.0
"""Seconds after which a worker reads the keys again. A longer time means fewer queries and a later effect of a new or revoked key."""
KEY_GRACE_S = 30.0
"""Seconds for which a worker accepts the keys it has read while the store cannot be read. Afterwards every key is refused."""
MAX_NAME_LENGTH = 64
"""Characters of a key's name."""
Mac = Callable[[bytes], str]
"""Authenticates bytes under a key of the service: `Keyring.mac`."""
_KEY_PATTERN = re.compile(KEY_PREFIX + r"([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


UNKNOWN_KEY = "there is no such key; `finrisk keys list` shows their ids"


class ApiKeyError(ValueError):
    """A key that cannot be created or revoked. The message says what is wrong and what is allowed."""


class KeyRejected(Exception):  # noqa: N818 - named for what happens
    """A key that is not accepted. The text is a reason in one word, fit for a metric's label.

    Attributes
    ----------
    key_id
        Id of the key; None unless the secret was right.
    """

    def __init__(self, reason: str, key_id: str | None = None) -> None:
        super().__init__(reason)
        self.key_id = key_id


class KeysUnavailable(Exception):  # noqa: N818 - named for what is wrong
    """Keys of the store that cannot be read, so that no key can be verified."""


class ApiKey(NamedTuple):
    """An API key as the store holds it; times are microseconds since 1970, UTC."""

    id: str
    salt: str
    hash: str
    name: str
    roles: frozenset[str]
    created_at: int
    expires_at: int | None
    revoked_at: int | None
    mac: str | None = None

    def row(self) -> dict[str, Any]:
        """Return the key as a row of the store."""
        return self._asdict() | {"roles": " ".join(sorted(self.roles))}

    def is_genuine(self, mac: Mac) -> bool:
        """Return whether the stored key is as the service wrote it."""
        return equal_macs(bind_key(mac, self.row()), self.mac)

    def state(self, now: int) -> str:
        """Return ``valid``, ``expired`` or ``revoked``."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"

    def compute_hash(self, mac: Mac, secret: str) -> str:
        """Return the hash of this key with a secret; equal to `hash` where the secret is right and the stored key is unchanged."""
        content = ["api-key", self.id, self.salt, sorted(self.roles), self.expires_at, secret]
        return mac(json.dumps(content, separators=(",", ":")).encode())


_NO_KEY = ApiKey("0" * 16, "0" * 32, "0" * 64, "", frozenset(), 0, None, None)


def create_key(
    connection: Connection,
    mac: Mac,
    name: str,
    roles: Iterable[str],
    *,
    now: int,
    expires_at: int | None = None,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> tuple[ApiKey, str]:
    """Create a key and store its hash.

    Parameters
    ----------
    connection
        Connection inside a transaction that writes.
    mac
        Authenticates bytes under a key of the service: `Keyring.mac`.
    name
        Purpose of the key. The name is no secret, and no person's name belongs in it.
    roles
        Roles of the key's holder, of `ROLES`.
    now, expires_at
        Microseconds since 1970, UTC.
    random
        Returns that many random bytes.

    Returns
    -------
    tuple of ApiKey and str
        The stored key, and the text of the key, which cannot be recovered later.

    Raises
    ------
    ApiKeyError
        If there is no role or an unknown one, the name is empty or too long, or the key would have expired already.
    """
    requested = frozenset(roles)
    if not requested or not requested <= ROLES:
        unknown = ", ".join(sorted(requested - ROLES)) or "none"
        raise ApiKeyError(f"a key has one or more of the roles {', '.join(sorted(ROLES))}; not {unknown}")
    if not 0 < len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise ApiKeyError(f"a key's name has 1 to {MAX_NAME_LENGTH} printable characters")
    if expires_at is not None and expires_at <= now:
        raise ApiKeyError("a key that has expired already is of no use: choose a later end")
    secret = urlsafe_b64encode(random(32)).decode().rstrip("=")
    key = ApiKey(random(8).hex(), random(16).hex(), "", name, requested, now, expires_at, None)
    key = key._replace(hash=key.compute_hash(mac, secret))
    key = key._replace(mac=bind_key(mac, key.row()))
    connection.execute(table.insert().values(key.row()))
    return key, f"{KEY_PREFIX}{key.id}_{secret}"


def list_keys(connection: Connection) -> list[ApiKey]:
    """Return all keys that were ever created, the oldest first."""
    columns = [table.c[name] for name in ApiKey._fields]
    rows = connection.execute(select(*columns).order_by(table.c.created_at, table.c.id))
    return [ApiKey(*row)._replace(roles=frozenset(row.roles.split())) for row in rows]


def revoke_key(connection: Connection, mac: Mac, key_id: str, *, now: int) -> ApiKey:
    """Revoke a key at `now`, in microseconds since 1970, UTC, and return it. A revoked key keeps the time of its first revocation.

    A key that another program changed is revoked, and keeps a MAC that is not its own.

    Raises
    ------
    ApiKeyError
        If there is no such key.
    """
    key = next((key for key in list_keys(connection) if key.id == key_id), None)
    if key is None:
        raise ApiKeyError(UNKNOWN_KEY)
    if key.revoked_at is not None:
        return key
    revoked = key._replace(revoked_at=now)
    if key.is_genuine(mac):
        revoked = revoked._replace(mac=bind_key(mac, revoked.row()))
    connection.execute(update(table).where(table.c.id == key_id).values(revoked_at=now, mac=revoked.mac))
    return revoked


def find_recorded_revocations(connection: Connection) -> dict[str, int]:
    """Return the ids of all keys whose revocation the audit has recorded, with its time in microseconds since 1970, UTC."""
    return dict(connection.execute(_RECORDED_REVOCATIONS).tuples().all())


_RECORDED_REVOCATIONS = select(audit.c.output, audit.c.at).where(OF_KEYS, audit.c.action == "key.revoke")


class KeyVerifier:
    """The verifier of API keys in one worker. The store is read every `KEY_REFRESH_S` seconds while requests come, not for each request.

    Parameters
    ----------
    read_keys
        Returns all keys of the store.
    mac
        Authenticates bytes, as when the keys were created.
    clock
        Seconds of a clock that never goes back.
    now
        Seconds since 1970, UTC.
    had_keys
        Returns whether the store ever had a key, also where none is left; called as often as `read_keys`.
    """

    def __init__(
        self,
        read_keys: Callable[[], Iterable[ApiKey]],
        mac: Mac,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        had_keys: Callable[[], bool] = bool,
    ) -> None:
        self._read_keys = read_keys
        self._mac = mac
        self._clock = clock
        self._now = now
        self._store_had_keys = had_keys
        self._keys: Mapping[str, ApiKey] = {}
        self._changed: frozenset[str] = frozenset()
        self._had_keys = False
        self._read_at = float("-inf")

    def has_keys(self) -> bool:
        """Return whether a key was ever created. A service whose keys are all revoked, expired or deleted stays closed.

        Raises
        ------
        KeysUnavailable
            If the store cannot be read.
        """
        self._current_keys()
        return self._had_keys

    def verify(self, presented: str) -> Caller:
        """Return the caller whose key this is.

        Raises
        ------
        KeyRejected
            If the key is unknown, expired or revoked, or its row was changed by another program.
        KeysUnavailable
            If the store cannot be read.
        """
        match = _KEY_PATTERN.fullmatch(presented)
        if match is None:
            raise KeyRejected("bad_key")
        key = self._current_keys().get(match[1])
        compared = key or _NO_KEY  # an unknown id takes as long as a wrong secret
        if not equal_macs(compared.compute_hash(self._mac, match[2]), compared.hash) or key is None:
            raise KeyRejected("bad_key")
        if key.id in self._changed:
            raise KeyRejected("changed_key", key.id)
        state = key.state(int(self._now() * 1e6))
        if state != "valid":
            raise KeyRejected(f"{state}_key", key.id)
        return Caller(f"key:{key.id}", key.roles)

    def _current_keys(self) -> Mapping[str, ApiKey]:
        """Return the keys by id, read from the store again where the last reading is too old."""
        try:
            self.refresh()
        except Exception as error:
            if self._clock() - self._read_at > KEY_GRACE_S:
                log_failure(error)
                raise KeysUnavailable from None
        return self._keys

    def refresh(self) -> None:
        """Read the keys from the store again where the last reading is too old.

        Raises
        ------
        Exception
            That of `read_keys`; the former keys stay.
        """
        now = self._clock()
        if now - self._read_at > KEY_REFRESH_S:
            keys = {key.id: key for key in self._read_keys()}
            self._had_keys = self._had_keys or bool(keys) or self._store_had_keys()
            self._changed = frozenset(key.id for key in keys.values() if not key.is_genuine(self._mac))
            self._keys, self._read_at = keys, now
