"""Helpers of the operator commands: the open store, faults as click errors, private files, times as text."""

import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click

from finrisk_assets.settings import Settings, SettingsError


@contextmanager
def store_faults_as_click_errors() -> Iterator[None]:
    """Report every fault of settings, store, keyring, audit and API keys as one sentence without a traceback.

    Raises
    ------
    click.ClickException
        For each of these faults.
    """
    from bento.access.api_keys import ApiKeyError
    from bento.problems import Problem
    from bento.store.audit_chain import AuditError
    from bento.store.database import StoreError, StoreUnavailable
    from bento.store.keyring import KeyringError

    try:
        yield
    except (AuditError, KeyringError, ApiKeyError, SettingsError, StoreError) as error:
        raise click.ClickException(str(error)) from None
    except Problem as problem:
        raise click.ClickException(problem.message) from None
    except StoreUnavailable as error:
        raise click.ClickException(f"the service's store is not available now: {error}") from None


def find_missing_store(settings: Settings | None) -> Path | None:
    """Return the path of an SQLite store that does not exist yet; None where there is a store, or the store is on a server."""
    from bento.store.database import location

    with store_faults_as_click_errors():
        target = location(settings or Settings.from_environment())
    return target if isinstance(target, Path) and not target.is_file() else None


@contextmanager
def operator_store(settings: Settings | None, *, may_create: bool = False, **options: Any) -> Iterator[Any]:
    """Open the service's store for a command.

    Parameters
    ----------
    settings
        The settings; None where the command runs without `finrisk`, and the settings come from the environment.
    may_create
        Whether a missing SQLite file is created; else it is an error, and nothing is left behind.
    **options
        Options of `bento.store.session.Store`.

    Raises
    ------
    click.ClickException
        If the store is missing and may not be created, or a fault of it occurs in the block.
    """
    from bento.store.session import open_store

    with store_faults_as_click_errors():
        settings = settings or Settings.from_environment()
        missing = None if may_create else find_missing_store(settings)
        if missing is not None:
            raise click.ClickException(f"there is no store at {missing}: the service creates it when it starts")
        with closing(open_store(settings, **options)) as store:
            yield store


def write_private_file(target: Path, content: str) -> None:
    """Write a new file that only its owner can read.

    Raises
    ------
    click.ClickException
        If the file exists or cannot be created.
    """
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise click.ClickException(f"{target} cannot be created: {error.strerror}") from None
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(content)


def format_instant(microseconds: int, timespec: str = "minutes") -> str:
    """Return microseconds since 1970 as a time in UTC, to the minute or to the second: ``2024-05-06 12:00``."""
    from schemas.timestamps import from_micros

    return from_micros(microseconds).isoformat(sep=" ", timespec=timespec)
