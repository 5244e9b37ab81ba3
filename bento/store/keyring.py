"""Keys: what a person's data is sealed with, what identifiers are replaced by, and what the audit is signed with.

One secret is given from outside, the master key; it does nothing but wrap other keys. Each person has a data key of his own, and the store
has one secret of its own, the root, from which the keys for tokens, for the audit and for data of nobody are derived (HKDF). All of them
lie in the store's table `people`, wrapped: so a new master key means to wrap them again, and changes no token, no MAC and no sealed byte.
To forget a wrapped key is to erase what it sealed. docs/privacy.md has the whole scheme; `people` uses it.
"""

import base64
import hmac
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from secrets import token_bytes
from tempfile import mkstemp

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, bindparam, select, text

from bento.store.tables import people
from finrisk_assets.settings import Settings

NOBODY = "0" * 32
"""Stands for a person where none is named. Its row in `people` holds the root secret in the place of a data key."""
KEY_BYTES = 32
_NONCE_BYTES = 12
_ID_BYTES = 8
_TAG_BYTES = 16
_DISTINCT_BYTES = 12
"""Distinct bytes that a random key has, and more: of 32 random ones about 30 differ. A placeholder has fewer."""


class KeyringError(RuntimeError):
    """A key that is missing or does not fit, or sealed bytes that were changed. It never tells a key or a person's data."""


def seal(key: bytes, plain: bytes, about: bytes = b"") -> bytes:
    """Encrypt with AES-256-GCM; a random nonce of 96 bits stands in front.

    Parameters
    ----------
    about
        What the bytes belong to (the identifier of their row): sealed bytes that were moved to another row do not open there.
    """
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, about)


def unseal(key: bytes, sealed: bytes, about: bytes = b"") -> bytes:
    """What was sealed.

    Raises
    ------
    KeyringError
        If the key is another one, or the bytes or what they are about were changed.
    """
    if len(sealed) < _NONCE_BYTES + _TAG_BYTES:
        raise KeyringError("sealed data is cut off")
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about)
    except InvalidTag:
        raise KeyringError("sealed data does not open: it was changed, moved to another row, or sealed with another key") from None


class Keyring:
    """The master keys and what is derived from the store's root secret.

    A keyring wraps and unwraps at once; tokens and MACs need the root, which `unlock` reads from the store.

    Parameters
    ----------
    masters
        The master keys, the current one first; the others open what is not wrapped anew yet.
    again
        Reads the master keys once more, where they may have changed: asked before something is wrapped, and where a key is unknown.
    """

    def __init__(self, masters: Sequence[bytes], again: Callable[[], Sequence[bytes]] | None = None) -> None:
        self._again = again
        self._take(masters)
        self._lookup: hmac.HMAC | None = None
        self._audit: hmac.HMAC | None = None
        self._service = b""

    @classmethod
    def of(cls, settings: Settings, *, make: bool = True) -> "Keyring":
        """The keyring of a source: FINRISK_MASTER_KEY, or the file FINRISK_MASTER_KEY_FILE, or a file beside the store.

        Parameters
        ----------
        make
            Whether a key may lie beside the store where none is given: then whoever takes the folder has both. Right on one machine only.

        Raises
        ------
        KeyringError
            If both are set, none is and none may be made, or what is given is no master key.
        """
        if settings.master_key and settings.master_key_file:
            raise KeyringError("FINRISK_MASTER_KEY and FINRISK_MASTER_KEY_FILE are both set: set one")
        if settings.master_key:
            return cls(_parsed(settings.master_key, "FINRISK_MASTER_KEY"))
        path = key_file(settings)
        if settings.master_key_file is None:
            if not make:
                raise KeyringError(
                    "a service that other machines reach needs a master key that does not lie beside its data: set FINRISK_MASTER_KEY or "
                    "FINRISK_MASTER_KEY_FILE (`finrisk keyring new FILE` makes one; docs/privacy.md)"
                )
            _make(path)
        changed = _Changes(path)
        return cls(changed.read(), changed.read)

    @property
    def master(self) -> str:
        """Id of the current master key: 16 hex digits that do not tell the key."""
        return self._master.hex()

    @property
    def masters(self) -> list[str]:
        """Ids of all master keys, the current one first."""
        return [known.hex() for known in self._masters]

    @property
    def service_key(self) -> bytes:
        """What data that names nobody is sealed with."""
        if not self._service:
            raise _locked()
        return self._service

    def unlock(self, connection: Connection, now: int) -> None:
        """Take the root secret from the store, or make it in one that has none and keeps nothing yet. Call it in a transaction, once.

        Parameters
        ----------
        now
            Microseconds since 1970, UTC.

        Raises
        ------
        KeyringError
            If the root is wrapped under another master key, or is gone.
        """
        root = self._root(connection)
        if root is None:
            if connection.execute(select(people.c.person).limit(1)).first() is not None:
                raise KeyringError("the store's root secret is gone: nobody in it can be found again; restore the table `people`")
            made = {"person": NOBODY, "wrapped": self.wrap(self.new_key(), NOBODY.encode()), "master": self.master, "now": now}
            connection.execute(_MAKE_ROOT, made)
            root = self._root(connection)  # another process may have been first
            assert root is not None
        self._lookup = hmac.new(_derived(root, b"lookup"), digestmod="sha256")
        self._audit = hmac.new(_derived(root, b"audit"), digestmod="sha256")
        self._service = _derived(root, b"service data")

    def _root(self, connection: Connection) -> bytes | None:
        wrapped = connection.execute(_ROOT, {"nobody": NOBODY}).scalar_one_or_none()
        return None if wrapped is None else self.unwrap(wrapped, NOBODY.encode())

    def token(self, kind: str, value: str) -> str:
        """What stands in the place of an identifier: 32 hex digits, the same for the same kind and value, of which neither is told.

        HMAC-SHA256 under the lookup key: who lacks it cannot try out identifiers.
        """
        if self._lookup is None:
            raise _locked()
        keyed = self._lookup.copy()
        keyed.update(f"{kind}\0{value}".encode(errors="surrogatepass"))
        return keyed.hexdigest()[:32]

    def mac(self, content: bytes) -> str:
        """HMAC-SHA256 under the audit key, in hex."""
        if self._audit is None:
            raise _locked()
        keyed = self._audit.copy()
        keyed.update(content)
        return keyed.hexdigest()

    def new_key(self) -> bytes:
        """A data key."""
        return token_bytes(KEY_BYTES)

    def wrap(self, key: bytes, about: bytes) -> bytes:
        """Seal a key under the current master key, whose id stands in front."""
        self._refresh()
        return self._master + seal(self._masters[self._master], key, about)

    def unwrap(self, wrapped: bytes, about: bytes) -> bytes:
        """The key that was wrapped.

        Raises
        ------
        KeyringError
            If its master key is not among those given, or does not open it.
        """
        named = bytes(wrapped[:_ID_BYTES])
        if named not in self._masters:
            self._refresh()
        if named not in self._masters:
            raise KeyringError(f"a key is wrapped under master key {named.hex()}, which is not given; given: {', '.join(self.masters)}")
        return unseal(self._masters[named], wrapped[_ID_BYTES:], about)

    def _refresh(self) -> None:
        if self._again is not None:
            self._take(self._again())

    def _take(self, masters: Sequence[bytes]) -> None:
        self._masters = {_derived(master, b"master id", _ID_BYTES): master for master in masters}
        self._master = next(iter(self._masters))


_ROOT = select(people.c.wrapped_key).where(people.c.person == bindparam("nobody"))
_MAKE_ROOT = text(
    "insert into people (person, wrapped_key, master, created_at) values (:person, :wrapped, :master, :now) on conflict do nothing"
)


def _locked() -> KeyringError:
    return KeyringError("this keyring is locked: `unlock` it with a connection to the store")


def key_file(settings: Settings) -> Path:
    """Where the master key lies, if it is not in FINRISK_MASTER_KEY."""
    return settings.master_key_file or settings.store_root / "service" / "master.key"


class _Changes:
    """A key file, read anew when it changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._keys: Sequence[bytes] = ()

    def read(self) -> Sequence[bytes]:
        try:
            stat = self._path.stat()
            if self._seen != (stat.st_mtime_ns, stat.st_ino):
                self._keys = _parsed(self._path.read_text("utf-8"), str(self._path))
                self._seen = (stat.st_mtime_ns, stat.st_ino)
        except (OSError, UnicodeDecodeError) as error:
            raise KeyringError(f"the master key file {self._path} cannot be read: {type(error).__name__}") from None
        return self._keys


def _make(path: Path) -> None:
    """Put a new master key into a file of its own, unless there is one; of several that try at once, one makes it."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write_keys(path, [token_bytes(KEY_BYTES)], new=True)
    except FileExistsError:
        return


def write_keys(path: Path, masters: Sequence[bytes], *, new: bool = False) -> None:
    """Write a key file, of mode 0600, whole or not at all.

    Raises
    ------
    FileExistsError
        Where it shall be new and is not.
    """
    lines = ["# Master keys of finrisk's store, the current one first. Without them nobody in it can be read again."]
    content = "\n".join([*lines, *(base64.b64encode(master).decode() for master in masters), ""])
    descriptor, aside = mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 0600
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if new:
            os.link(aside, path)
        else:
            os.replace(aside, path)
    finally:
        Path(aside).unlink(missing_ok=True)


def read_keys(path: Path) -> list[bytes]:
    """The master keys of a file, the current one first.

    Raises
    ------
    KeyringError
        If it cannot be read.
    """
    return list(_Changes(path).read())


def _parsed(given: str, where: str) -> list[bytes]:
    """Keys of 32 bytes in base64 or hex, with commas or white space between; a line that begins with # says something else."""
    words = [word for line in given.splitlines() if not line.lstrip().startswith("#") for word in re.split(r"[\s,]+", line) if word]
    keys = [_decoded(word) for word in words]
    if not keys or any(len(key) != KEY_BYTES or len(set(key)) < _DISTINCT_BYTES for key in keys):
        raise KeyringError(f"{where} must hold 32 random bytes in base64 or hex, as `openssl rand -base64 32` prints them")
    return list(dict.fromkeys(keys))


def _decoded(word: str) -> bytes:
    try:
        if len(word) == 2 * KEY_BYTES:
            return bytes.fromhex(word)
        return base64.b64decode(word.replace("-", "+").replace("_", "/") + "=" * (-len(word) % 4), validate=True)
    except ValueError:
        return b""


def _derived(secret: bytes, what: bytes, length: int = KEY_BYTES) -> bytes:
    """A key for one purpose (HKDF, RFC 5869)."""
    return HKDF(SHA256(), length, salt=None, info=b"finrisk/1 " + what).derive(secret)
