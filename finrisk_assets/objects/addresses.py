"""Addresses of objects in buckets: ``s3://bucket/key``, ``gs://bucket/key`` and ``abfs://container/key``.

Everything after the bucket is the name, as it is: ``#``, ``?``, ``%`` and ``[`` have no meaning in it.
"""

import re
from pathlib import Path

SCHEMES = ("s3", "gs", "abfs")

_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)}):/{{1,2}}([^/].*)", re.DOTALL)
_ANY_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)


class ObjectError(ValueError):
    """An error for objects that cannot be read or written; it names the address, the fault and the fix, and no credential."""


def find_address(path: Path | str) -> str | None:
    """Return the address that a path or text is; None for a file of this machine.

    `pathlib` makes one slash of two, so that ``s3:/bucket/key`` is ``s3://bucket/key``.

    Raises
    ------
    ObjectError
        If the text is a URL of another kind, or holds an account or a credential.
    """
    text = path.as_posix() if isinstance(path, Path) else path
    address = _ADDRESS.fullmatch(text)
    if address is None:
        scheme = _ANY_SCHEME.match(text)
        if scheme is None:
            return None
        # The address is not repeated: a signed URL is a credential.
        raise ObjectError(f"an address begins with s3://, gs:// or abfs://, not with {scheme[1]}://; name the bucket so")
    bucket = address[2].partition("/")[0]
    if "@" in bucket or ":" in bucket:
        raise ObjectError(
            f"an address is {address[1]}://BUCKET/NAME, without an account or a credential: those are read from the environment "
            "(docs/object-storage.md)"
        )
    return f"{address[1]}://{address[2]}"


def join_address(address: str, name: str) -> str:
    """Return the address of a name below another address."""
    return f"{address.rstrip('/')}/{name}"


def split_address(address: str) -> tuple[str, str]:
    """Return the address of the folder of an object, and the object's name in it."""
    folder, _, name = address.rpartition("/")
    return folder, name
