"""Pseudonyms in the place of identifiers: an identifier of one kind has the same pseudonym in every mart and every export of a home."""

import os
from contextlib import suppress
from pathlib import Path
from secrets import token_hex

from finrisk_assets.private_files import make_private_folder

KEY_BYTES = 32
PSEUDONYM_DIGITS = 20
"""Hexadecimal digits of a pseudonym: among 100 million identifiers two are alike with a probability below one in a hundred million."""


def read_key(file: Path) -> str:
    """Return the key of a home's pseudonyms, in hex; a file without one is written, of mode 0600.

    Whoever has the key can find the pseudonym of an identifier by trial, so the file never lies among the marts.
    """
    make_private_folder(file.parent)
    with suppress(FileExistsError):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as opened:
            opened.write(token_hex(KEY_BYTES) + "\n")
    return file.read_text(encoding="utf-8").strip()


def define_pseudonym(key: str | None) -> str:
    """Return the statement that defines ``shown(kind, id)`` in DuckDB: the pseudonym, or without a key the identifier itself.

    A pseudonym is the beginning of SHA-256 over key, kind and identifier. The key stands in front and has a fixed length, and most of the
    hash is cut off: without the key nobody can compute or continue it.
    """
    if key is None:
        return "CREATE MACRO shown(kind, id) AS id"
    return f"CREATE MACRO shown(kind, id) AS substr(sha256('{key}' || kind || chr(0) || id), 1, {PSEUDONYM_DIGITS})"
