"""`finrisk keys`: make, list and revoke the API keys of the service. In a container: `python -m bento.cli.keys`.

The operator's command: it touches the service's store, not the graph.
"""

import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from bento.context import ROLES
from finrisk_assets.settings import Settings, SettingsError

_SPAN = re.compile(r"([1-9][0-9]{0,3})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def _span(_: click.Context, __: click.Parameter, text: str | None) -> timedelta | None:
    """A span of time as it is written: 12h, 90d, 4w."""
    if text is None:
        return None
    found = _SPAN.fullmatch(text)
    if found is None:
        raise click.BadParameter("say a number of hours, days or weeks: 12h, 90d, 4w")
    return int(found[1]) * _UNITS[found[2]]


@click.group("keys")
def keys() -> None:
    """The API keys of the service. See docs/access.md."""


@keys.command()
@click.option("--name", required=True, help="What the key is for; no person's name.")
@click.option(
    "--role", "roles", required=True, multiple=True, type=click.Choice(sorted(ROLES)), help="What its holder may do; may be repeated."
)
@click.option("--expires", callback=_span, help="After how long it ends: 12h, 90d, 4w. Default: never.")
@click.option(
    "--to", "target", type=click.Path(path_type=Path, dir_okay=False), help="A new file to write the key to, instead of showing it."
)
@click.pass_obj
def create(settings: Settings | None, name: str, roles: tuple[str, ...], expires: timedelta | None, target: Path | None) -> None:
    """Make a key and show it, this once."""
    from bento.access import api_keys as kept

    now = datetime.now(UTC)
    with _opened(settings) as store, store.writing() as connection:
        ends = _micros(now + expires) if expires else None
        made, shown = kept.create(connection, store.keyring.mac, name, roles, now=_micros(now), expires_at=ends)
        store.audit("key.create", output=made.id)
        if target is not None:
            _write(target, shown)
    until = f"until {_moment(made.expires_at)}" if made.expires_at else "until it is revoked"
    click.echo(f"key {made.id}, {' '.join(sorted(made.roles))}, good {until}; it cannot be shown again", err=True)
    if target is None:
        click.echo(shown)


@keys.command("list")
@click.pass_obj
def list_keys(settings: Settings | None) -> None:
    """List the keys that were ever made, without their secrets."""
    from bento.access import api_keys as kept

    now = _micros(datetime.now(UTC))
    with _opened(settings) as store, store.reading() as connection:
        found = kept.kept(connection)
    if not found:
        click.echo("there is no key: the service is open to this machine, and does not start for others")
    for key in found:
        ends = _moment(key.expires_at) if key.expires_at else "never"
        roles = ",".join(sorted(key.roles))
        click.echo(f"{key.id}  {key.state(now):<7}  made {_moment(key.created_at)}  expires {ends:<16}  {roles:<16}  {key.name}")


@keys.command()
@click.argument("key_id")
@click.pass_obj
def revoke(settings: Settings | None, key_id: str) -> None:
    """End the key with this id now."""
    from bento.access import api_keys as kept

    with _opened(settings) as store, store.writing() as connection:
        kept.revoke(connection, key_id, now=_micros(datetime.now(UTC)))
        store.audit("key.revoke", output=key_id)
    click.echo(f"key {key_id} is revoked; workers refuse it within {kept.SEEN_WITHIN_SECONDS:g} seconds")


@contextmanager
def _opened(settings: Settings | None) -> Iterator[Any]:
    """The service's store; what cannot be done with it or with a key is said in one sentence."""
    from bento.access.api_keys import KeysError
    from bento.store.keyring import KeyringError
    from bento.store.session import StoreError, StoreUnavailable, open_store

    try:
        settings = settings or Settings.from_environment()
        with closing(open_store(settings)) as store:
            yield store
    except (KeysError, KeyringError, SettingsError, StoreError) as error:
        raise click.ClickException(str(error)) from None
    except StoreUnavailable as error:
        raise click.ClickException(f"the service's store cannot be had now: {error}") from None


def _write(target: Path, key: str) -> None:
    """Write a key to a file that was not there and that only its owner reads."""
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise click.ClickException(f"{target} cannot be made: {error.strerror}") from None
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(key)


def _micros(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _moment(micros: int) -> str:
    """A time as an operator reads it, to the minute, in UTC."""
    return f"{_EPOCH + micros * _MICROSECOND:%Y-%m-%d %H:%M}"


if __name__ == "__main__":
    keys()
