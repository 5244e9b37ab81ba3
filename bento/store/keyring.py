"""Envelope encryption: data keys that seal people's data, tokens in place of identifiers, and the audit's MAC key.

The master key comes from outside and only wraps other keys. Each person has a data key, and the store has a root secret, from which the
keys for tokens, for the audit and for data without a person are derived (HKDF). All of them lie wrapped in the store's table `people`: a
new master key means to wrap them again and changes no token, no MAC and no sealed byte. A data key is wrapped about its person and their
look-up token; the root secret is wrapped together with the store's marks. Deleting a wrapped key erases what it sealed
(crypto-shredding). docs/privacy.md has the whole scheme.
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
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import Connection, bindparam, select, text

from bento.store.tables import metadata, people
from finrisk_assets.private_files import is_open_to_others, make_private_folder
from finrisk_assets.settings import Settings
from schemas.normal_form import normalise_country, normalise_text

SERVICE_KEY_OWNER = "0" * 32
"""Pseudonymous id of the row in `people` that holds the root secret in place of a data key."""
BOUND = "bound"
"""Mark of a store whose rows are bound to the audit and whose data keys are bound to their look-up tokens."""
CLOSED = "closed"
"""Mark of a store that ever had an API key: without keys it answers nobody."""
AUDIT_BEGAN = "audit:"
"""Start of the mark that holds the MAC of the audit's first checkpoint: an audit that was wiped and begun again has another."""
KEY_BYTES = 32
MASTER_ID_BYTES = 8
"""Bytes of a master key's id, which stands in front of each key that is wrapped under it."""
_NONCE_BYTES = 12
_TAG_BYTES = 16
_DISTINCT_BYTES = 12
"""Least number of distinct bytes of a key: of 32 random bytes about 30 differ, a placeholder has fewer."""
_NORMALISE_BY_KIND = dict.fromkeys(("account", "customer", "merchant", "transaction"), normalise_text) | {"country": normalise_country}
"""Kind of identifier -> the function that brings it into normal form. Tokens of other kinds replace texts of the service itself."""


class KeyringError(RuntimeError):
    """A key is missing or wrong, or sealed bytes were changed. The message never contains a key or a person's data."""


def seal(key: bytes, plain: bytes, about: bytes = b"") -> bytes:
    """Encrypt with AES-256-GCM, with a random nonce of 96 bits in front.

    Parameters
    ----------
    about
        Associated data: the identifier of the row. Sealed bytes that were moved to another row do not open there.
    """
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, plain, about)


def unseal(key: bytes, sealed: bytes, about: bytes = b"") -> bytes:
    """Decrypt what `seal` encrypted.

    Raises
    ------
    KeyringError
        If the key is wrong, or the bytes or their associated data were changed.
    """
    if not isinstance(sealed, bytes) or len(sealed) < _NONCE_BYTES + _TAG_BYTES:
        raise KeyringError("sealed data is cut off or is no bytes")
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about)
    except InvalidTag:
        raise KeyringError("sealed data does not open: it was changed, moved to another row, or sealed with another key") from None


def key_context(person: str, lookup: str | None) -> bytes:
    """Return the associated data of a person's wrapped data key: with another `lookup` in the row the key does not open."""
    return person.encode() if lookup is None else f"{person} {lookup}".encode()


def snapshot_context(domain: str, subject: str, account: str | None, as_of: int | None) -> bytes:
    """Return the associated data of a sealed feature snapshot: in the row of another domain, account or time it does not open."""
    return f"{domain} {subject} {account} {as_of}".encode()


class Keyring:
    """The master keys and the keys derived from the store's root secret.

    A keyring can wrap and unwrap at once; tokens and MACs need the root secret, which `unlock` reads from the store.

    Parameters
    ----------
    masters
        The master keys, the current one first; the others unwrap keys that are not rewrapped yet.
    reload
        Returns the current master keys; called before each wrap, and where a master key is unknown.
    """

    def __init__(self, masters: Sequence[bytes], reload: Callable[[], Sequence[bytes]] | None = None) -> None:
        self._reload = reload
        self._use_masters(masters)
        self._lookup: HMAC | None = None
        self._audit: HMAC | None = None
        self._service = b""
        self.marks: frozenset[str] = frozenset()

    @classmethod
    def of(cls, settings: Settings, *, make: bool = True) -> "Keyring":
        """Return the keyring of a source: FINRISK_MASTER_KEY, or the file FINRISK_MASTER_KEY_FILE, or a file beside the store.

        Parameters
        ----------
        make
            Whether a key file beside the store is created where no key is set. A copy of the folder then has both: for one machine only.

        Raises
        ------
        KeyringError
            If both are set, none is set and none may be created, or a value is no master key.
        """
        if settings.master_key and settings.master_key_file:
            raise KeyringError("FINRISK_MASTER_KEY and FINRISK_MASTER_KEY_FILE are both set: set one")
        if settings.master_key:
            return cls(_parse_keys(settings.master_key, "FINRISK_MASTER_KEY"))
        path = key_file(settings)
        if settings.master_key_file is None:
            if not make:
                raise KeyringError(
                    "a service that other machines reach needs a master key that does not lie beside its data: set FINRISK_MASTER_KEY or "
                    "FINRISK_MASTER_KEY_FILE (`finrisk keyring new FILE` makes one; docs/privacy.md)"
                )
            _create_key_file(path)
        key_file_reader = _KeyFileReader(path)
        return cls(key_file_reader.read(), key_file_reader.read)

    @property
    def master(self) -> str:
        """Id of the current master key: 16 hex digits from which the key cannot be derived."""
        return self._master.hex()

    @property
    def masters(self) -> list[str]:
        """Ids of all master keys, the current one first."""
        return [master_id.hex() for master_id in self._masters]

    @property
    def service_key(self) -> bytes:
        """Key that seals data without a person.

        Raises
        ------
        KeyringError
            If the keyring is locked.
        """
        if not self._service:
            raise _locked_error()
        return self._service

    def unlock(self, connection: Connection, now: int) -> None:
        """Read the root secret from the store, or create it in an empty store. Call this once, in a transaction.

        Parameters
        ----------
        now
            Microseconds since 1970, UTC.

        Raises
        ------
        KeyringError
            If the root secret is wrapped under another master key, or is missing.
        """
        root = self._root(connection)
        if root is None:
            if any(connection.execute(select(table).limit(1)).first() is not None for table in metadata.sorted_tables):
                raise KeyringError("the store's root secret is missing: no person in the store can be found; restore the table `people`")
            created = {
                "person": SERVICE_KEY_OWNER,
                "wrapped": self.wrap(self.new_key() + BOUND.encode(), SERVICE_KEY_OWNER.encode()),
                "master": self.master,
                "now": now,
            }
            connection.execute(_INSERT_ROOT, created)
            root = self._root(connection)  # another process may have been first
            assert root is not None
        self.marks = _read_marks(root)
        root = root[:KEY_BYTES]
        # OpenSSL's HMAC through `cryptography` takes a third of the time of Python's own.
        self._lookup = HMAC(_derive_key(root, b"lookup"), SHA256())
        self._audit = HMAC(_derive_key(root, b"audit"), SHA256())
        self._service = _derive_key(root, b"service data")

    def read_marks(self, connection: Connection) -> frozenset[str]:
        """Return the store's marks as they are now.

        Raises
        ------
        KeyringError
            If the root secret is missing or is not the one with which this keyring was unlocked: another store is in its place.
        """
        root = self._root(connection)
        if root is None or not hmac.compare_digest(_derive_key(root[:KEY_BYTES], b"service data"), self.service_key):
            raise KeyringError("another store is in the place of the one that was opened: put that one back, or restart the service")
        return _read_marks(root)

    def add_mark(self, connection: Connection, mark: str) -> bool:
        """Put a mark on the store, in a transaction that writes, and return whether it is new.

        A mark is sealed with the root secret, so it cannot be taken off without the root secret.
        """
        locked = connection.execute(_SELECT_ROOT.with_for_update(), {"owner": SERVICE_KEY_OWNER}).scalar_one()
        root = self.unwrap(locked, SERVICE_KEY_OWNER.encode())
        self.marks = _read_marks(root)
        if mark in self.marks:
            return False
        self.marks |= {mark}
        plain = root[:KEY_BYTES] + " ".join(sorted(self.marks)).encode()
        wrapped = {"wrapped_key": self.wrap(plain, SERVICE_KEY_OWNER.encode()), "master": self.master}
        connection.execute(people.update().where(people.c.person == SERVICE_KEY_OWNER).values(wrapped))
        return True

    def _root(self, connection: Connection) -> bytes | None:
        wrapped = connection.execute(_SELECT_ROOT, {"owner": SERVICE_KEY_OWNER}).scalar_one_or_none()
        return None if wrapped is None else self.unwrap(wrapped, SERVICE_KEY_OWNER.encode())

    def token(self, kind: str, value: str) -> str:
        """Return the token that replaces an identifier: 32 hex digits, equal for equal kind and value in normal form.

        HMAC-SHA256 under the lookup key: without the key identifiers cannot be guessed by trial.

        Raises
        ------
        KeyringError
            If the keyring is locked.
        """
        if self._lookup is None:
            raise _locked_error()
        normalise = _NORMALISE_BY_KIND.get(kind)
        value = value if normalise is None else normalise(value)
        keyed = self._lookup.copy()
        keyed.update(f"{kind}\0{value}".encode(errors="surrogatepass"))
        return keyed.finalize().hex()[:32]

    def mac(self, content: bytes) -> str:
        """Return the HMAC-SHA256 under the audit key, in hex.

        Raises
        ------
        KeyringError
            If the keyring is locked.
        """
        if self._audit is None:
            raise _locked_error()
        keyed = self._audit.copy()
        keyed.update(content)
        return keyed.finalize().hex()

    def new_key(self) -> bytes:
        """Return a new random data key."""
        return token_bytes(KEY_BYTES)

    def wrap(self, key: bytes, about: bytes) -> bytes:
        """Seal a key under the current master key, with that key's id in front."""
        self._refresh()
        return self._master + seal(self._masters[self._master], key, about)

    def unwrap(self, wrapped: bytes, about: bytes) -> bytes:
        """Return the key that `wrap` sealed.

        Raises
        ------
        KeyringError
            If the wrapping master key is unknown or does not open the key.
        """
        if not isinstance(wrapped, bytes) or len(wrapped) < MASTER_ID_BYTES:
            raise KeyringError("a wrapped key is cut off or is no key")
        master_id = wrapped[:MASTER_ID_BYTES]
        if master_id not in self._masters:
            self._refresh()
        if master_id not in self._masters:
            raise KeyringError(f"a key is wrapped under master key {master_id.hex()}, which is not given; given: {', '.join(self.masters)}")
        return unseal(self._masters[master_id], wrapped[MASTER_ID_BYTES:], about)

    def _refresh(self) -> None:
        if self._reload is not None:
            self._use_masters(self._reload())

    def _use_masters(self, masters: Sequence[bytes]) -> None:
        self._masters = {_derive_key(master, b"master id", MASTER_ID_BYTES): master for master in masters}
        self._master = next(iter(self._masters))


_SELECT_ROOT = select(people.c.wrapped_key).where(people.c.person == bindparam("owner"))
_INSERT_ROOT = text(
    "insert into people (person, wrapped_key, master, created_at) values (:person, :wrapped, :master, :now) on conflict do nothing"
)


def _read_marks(root: bytes) -> frozenset[str]:
    return frozenset(root[KEY_BYTES:].decode().split())


def _locked_error() -> KeyringError:
    return KeyringError("this keyring is locked: `unlock` it with a connection to the store")


def key_file(settings: Settings) -> Path:
    """Return the path of the master key file, used where FINRISK_MASTER_KEY is not set."""
    return settings.master_key_file or settings.root / "service" / "master.key"


def check_private(path: Path) -> None:
    """Refuse a key file that every user of the machine can read.

    Raises
    ------
    KeyringError
        If its mode allows that; the message has the command that ends it.
    OSError
        If there is no such file.
    """
    if is_open_to_others(path):
        raise KeyringError(f"the master key file {path} is open to every user of this machine: run `chmod 600 {path}`")


class _KeyFileReader:
    """A reader of a key file that reads again only after the file changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version: tuple[int, int, int] | None = None
        self._keys: Sequence[bytes] = ()

    def read(self) -> Sequence[bytes]:
        try:
            stat = self._path.stat()
            if self._version != (stat.st_mtime_ns, stat.st_ino, stat.st_mode):
                check_private(self._path)
                self._keys = _parse_keys(self._path.read_text("utf-8"), str(self._path))
                self._version = (stat.st_mtime_ns, stat.st_ino, stat.st_mode)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise KeyringError(
                f"the master key file {self._path} cannot be read: {reason}; put the file back, or set FINRISK_MASTER_KEY_FILE to its path"
            ) from None
        return self._keys


def _create_key_file(path: Path) -> None:
    """Write a new master key to a file, unless the file exists; of several processes one writes it."""
    if path.exists():
        return
    make_private_folder(path.parent)
    try:
        write_keys(path, [token_bytes(KEY_BYTES)], new=True)
    except FileExistsError:
        return


def write_keys(path: Path, masters: Sequence[bytes], *, new: bool = False) -> None:
    """Write a key file of mode 0600 atomically.

    Raises
    ------
    FileExistsError
        If `new` and the file exists.
    """
    lines = ["# Master keys of finrisk's store, the current one first. Without them no person in the store can be read again."]
    content = "\n".join([*lines, *(base64.b64encode(master).decode() for master in masters), ""])
    descriptor, temporary = mkstemp(dir=path.parent, prefix=f".{path.name}.")  # of mode 0600
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if new:
            os.link(temporary, path)
        else:
            os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def read_keys(path: Path) -> list[bytes]:
    """Return the master keys of a file, the current one first.

    Raises
    ------
    KeyringError
        If it cannot be read.
    """
    return list(_KeyFileReader(path).read())


def _parse_keys(text: str, source: str) -> list[bytes]:
    """Return the keys of 32 bytes in base64 or hex, separated by commas or white space; a line that begins with # is a comment."""
    words = [word for line in text.splitlines() if not line.lstrip().startswith("#") for word in re.split(r"[\s,]+", line) if word]
    keys = [_decode_key(word) for word in words]
    if not keys or any(len(key) != KEY_BYTES or len(set(key)) < _DISTINCT_BYTES for key in keys):
        raise KeyringError(f"{source} must hold 32 random bytes in base64 or hex, as `openssl rand -base64 32` prints them")
    return list(dict.fromkeys(keys))


def _decode_key(word: str) -> bytes:
    try:
        if len(word) == 2 * KEY_BYTES:
            return bytes.fromhex(word)
        return base64.b64decode(word.replace("-", "+").replace("_", "/") + "=" * (-len(word) % 4), validate=True)
    except ValueError:
        return b""


def _derive_key(secret: bytes, purpose: bytes, length: int = KEY_BYTES) -> bytes:
    """Derive a key for one purpose (HKDF, RFC 5869)."""
    return HKDF(SHA256(), length, salt=None, info=b"finrisk/1 " + purpose).derive(secret)
