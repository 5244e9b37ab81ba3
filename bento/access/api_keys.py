"""API keys: made, shown once, listed, revoked, and told apart while a request waits.

A key is `finrisk_<id>_<secret>`. Of the secret only a salted hash is kept. One round of HMAC-SHA256 is enough and right for it: it has
256 random bits, so nobody guesses it however fast the hash is, and a slow hash, which protects the passwords that people think of, would
only make every request slow. The hash is keyed and covers roles and expiry too, so that whoever can write into the store, but does not
have the service's master key, can neither make a key nor make one mightier.
"""

import hmac
import json
import re
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from sqlalchemy import Connection, select, update

from bento.context import ROLES, Caller
from bento.problems import log_failure
from bento.store.tables import keys as table

PREFIX = "finrisk_"
"""What every key begins with, so that whoever looks through repositories and logs can tell one."""
SEEN_WITHIN_SECONDS = 2.0
"""A key that was made or revoked elsewhere is known to a worker after that time."""
GOOD_FOR_SECONDS = 30.0
"""For how long a worker goes on with the keys that it knows where the store cannot be read; then nobody is let in."""
LONGEST_NAME = 64
Mac = Callable[[bytes], str]
_FORM = re.compile(PREFIX + r"([0-9a-f]{16})_([A-Za-z0-9_-]{43})")


class KeysError(ValueError):
    """A key that cannot be made or found, with what would do."""


class BadKey(Exception):  # noqa: N818 - it is named for what is wrong
    """A key that is not accepted; its text is a reason in one word, which may be counted and told.

    Attributes
    ----------
    key_id
        Which key it is, where the secret was right.
    """

    def __init__(self, reason: str, key_id: str | None = None) -> None:
        super().__init__(reason)
        self.key_id = key_id


class Unreadable(Exception):  # noqa: N818 - it is named for what is wrong
    """The keys cannot be read: nobody's key can be judged."""


class Key(NamedTuple):
    """One API key as it is kept; times are microseconds since 1970, UTC."""

    id: str
    salt: str
    hash: str
    name: str
    roles: frozenset[str]
    created_at: int
    expires_at: int | None
    revoked_at: int | None

    def state(self, now: int) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"

    def hashed(self, mac: Mac, secret: str) -> str:
        """What `hash` is where the secret is the right one and nothing was changed."""
        told = ["api-key", self.id, self.salt, sorted(self.roles), self.expires_at, secret]
        return mac(json.dumps(told, separators=(",", ":")).encode())


_NONE = Key("0" * 16, "0" * 32, "0" * 64, "", frozenset(), 0, None, None)


def create(
    connection: Connection,
    mac: Mac,
    name: str,
    roles: Iterable[str],
    *,
    now: int,
    expires_at: int | None = None,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> tuple[Key, str]:
    """Make a key and keep its hash.

    Parameters
    ----------
    mac
        Authenticates bytes under a key of the service: `Keyring.mac`.
    name
        What it is for. It is no secret, and no person's name belongs in it.
    now, expires_at
        Microseconds since 1970, UTC.

    Returns
    -------
    tuple of Key and str
        What is kept, and the key itself, which cannot be had again.

    Raises
    ------
    KeysError
        For a role that there is not, none at all, a name that is empty or too long, or an end that is past.
    """
    wanted = frozenset(roles)
    if not wanted or not wanted <= ROLES:
        raise KeysError(f"a key has one or more of the roles {', '.join(sorted(ROLES))}; not {', '.join(sorted(wanted - ROLES)) or 'none'}")
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise KeysError(f"a key's name has 1 to {LONGEST_NAME} printable characters")
    if expires_at is not None and expires_at <= now:
        raise KeysError("a key that has expired already is of no use")
    secret = urlsafe_b64encode(random(32)).decode().rstrip("=")
    made = Key(random(8).hex(), random(16).hex(), "", name, wanted, now, expires_at, None)
    made = made._replace(hash=made.hashed(mac, secret))
    connection.execute(table.insert().values(made._asdict() | {"roles": " ".join(sorted(wanted))}))
    return made, f"{PREFIX}{made.id}_{secret}"


def kept(connection: Connection) -> list[Key]:
    """All keys that were ever made, the oldest first."""
    columns = [table.c[name] for name in Key._fields]
    rows = connection.execute(select(*columns).order_by(table.c.created_at, table.c.id))
    return [Key(*row)._replace(roles=frozenset(row.roles.split())) for row in rows]


def revoke(connection: Connection, key_id: str, *, now: int) -> None:
    """End a key now; one that was revoked stays revoked since then.

    Raises
    ------
    KeysError
        Where there is no such key.
    """
    changed = connection.execute(update(table).where(table.c.id == key_id, table.c.revoked_at.is_(None)).values(revoked_at=now))
    if not changed.rowcount and connection.execute(select(table.c.id).where(table.c.id == key_id)).first() is None:
        raise KeysError("there is no such key; `finrisk keys list` shows their ids")


class Keys:
    """The keys as one worker knows them: read from the store every two seconds while requests come, not for each of them.

    Parameters
    ----------
    read, mac
        Reads all keys of the store; authenticates, as when they were made.
    clock, now
        Seconds that only go forward; seconds since 1970.
    """

    def __init__(
        self,
        read: Callable[[], Iterable[Key]],
        mac: Mac,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._read = read
        self._mac = mac
        self._clock = clock
        self._now = now
        self._known: Mapping[str, Key] = {}
        self._read_at = float("-inf")

    def exist(self) -> bool:
        """Whether there ever was a key. Keys that are all revoked or expired do not open the service again.

        Raises
        ------
        Unreadable
            Where the store cannot be read.
        """
        return bool(self._current())

    def caller(self, presented: str) -> Caller:
        """Whose key it is.

        Raises
        ------
        BadKey
            Where it is unknown, expired or revoked.
        Unreadable
            Where the store cannot be read.
        """
        form = _FORM.fullmatch(presented)
        if form is None:
            raise BadKey("bad_key")
        key = self._current().get(form[1])
        judged = key or _NONE  # an id that there is not takes as long as a secret that is wrong
        if not hmac.compare_digest(judged.hashed(self._mac, form[2]), judged.hash) or key is None:
            raise BadKey("bad_key")
        state = key.state(int(self._now() * 1e6))
        if state != "valid":
            raise BadKey(f"{state}_key", key.id)
        return Caller(f"key:{key.id}", key.roles)

    def _current(self) -> Mapping[str, Key]:
        now = self._clock()
        if now - self._read_at > SEEN_WITHIN_SECONDS:
            try:
                self._known = {key.id: key for key in self._read()}
                self._read_at = now
            except Exception as error:
                if now - self._read_at > GOOD_FOR_SECONDS:
                    log_failure(error)
                    raise Unreadable from None
        return self._known
