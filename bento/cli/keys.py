"""`finrisk keys`: create, list and revoke the API keys of the service. In a container: `python -m bento.cli.keys`.

The command reads and writes the service's store, not the graph.
"""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from bento.cli.common import find_missing_store, format_instant, operator_store, write_private_file
from bento.cli.output import AS_JSON, print_json, print_table
from bento.context import ROLES
from finrisk_assets.settings import Settings

_DURATION = re.compile(r"([1-9][0-9]{0,3})([hdw])")
_DURATION_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def _parse_duration(_: click.Context, __: click.Parameter, text: str | None) -> timedelta | None:
    """Return the duration of a text such as 12h, 90d, 4w."""
    if text is None:
        return None
    match = _DURATION.fullmatch(text)
    if match is None:
        raise click.BadParameter("name a number of hours, days or weeks: 12h, 90d, 4w")
    return int(match[1]) * _DURATION_UNITS[match[2]]


@click.group("keys")
def keys() -> None:
    """The API keys of the service. See docs/access.md."""


@keys.command()
@click.option("--name", required=True, help="What the key is for; no person's name.")
@click.option(
    "--role", "roles", required=True, multiple=True, type=click.Choice(sorted(ROLES)), help="What the key's holder may do; may be repeated."
)
@click.option("--expires", callback=_parse_duration, help="Time until the key expires: 12h, 90d, 4w. Default: never.")
@click.option(
    "--to", "target", type=click.Path(path_type=Path, dir_okay=False), help="A new file to write the key to, instead of showing it."
)
@click.pass_obj
def create(settings: Settings | None, name: str, roles: tuple[str, ...], expires: timedelta | None, target: Path | None) -> None:
    """Create a key and show it, only this once."""
    from bento.access import api_keys
    from bento.store.keyring import CLOSED
    from schemas.timestamps import to_micros

    now = datetime.now(UTC)
    with operator_store(settings, may_create=True) as store, store.writing() as connection:
        ends = to_micros(now + expires) if expires else None
        api_key, secret = api_keys.create_key(connection, store.keyring.mac, name, roles, now=to_micros(now), expires_at=ends)
        store.keyring.add_mark(connection, CLOSED)
        store.audit("key.create", inputs=api_key.mac, output=api_key.id)
        if target is not None:
            write_private_file(target, secret)
    until = f"until {format_instant(api_key.expires_at)}" if api_key.expires_at else "until it is revoked"
    click.echo(f"key {api_key.id}, {' '.join(sorted(api_key.roles))}, good {until}; it cannot be shown again", err=True)
    if target is None:
        click.echo(secret)


@keys.command("list")
@AS_JSON
@click.pass_obj
def list_keys(settings: Settings | None, as_json: bool) -> None:
    """List all keys, also expired and revoked keys, without their secrets."""
    from bento.access import api_keys
    from bento.store.keyring import CLOSED
    from schemas.timestamps import to_micros

    now = to_micros(datetime.now(UTC))
    api_keys_by_age, had_keys, changed = list[api_keys.ApiKey](), False, set[str]()
    if find_missing_store(settings) is None:
        with operator_store(settings) as store, store.reading() as connection:
            api_keys_by_age = api_keys.list_keys(connection)
            had_keys = CLOSED in store.keyring.read_marks(connection)
            changed = {key.id for key in api_keys_by_age if not key.is_genuine(store.keyring.mac)}
    headings = ("id", "state", "made", "expires", "roles", "name")
    rows = [
        (
            key.id,
            "changed" if key.id in changed else key.state(now),
            format_instant(key.created_at),
            format_instant(key.expires_at) if key.expires_at else "never",
            ",".join(sorted(key.roles)),
            key.name,
        )
        for key in api_keys_by_age
    ]
    if as_json:
        print_json({"keys": [dict(zip(headings, row, strict=True)) for row in rows], "is_closed": had_keys or bool(rows)})
        return
    if not api_keys_by_age and had_keys:
        click.echo(
            "there is no key, but there were keys: their rows were deleted, and the service answers nobody; run `finrisk audit verify`"
        )
    elif not api_keys_by_age:
        click.echo("there is no key: the service is open to this machine, and does not start for others")
    if rows:
        print_table(headings, rows)


@keys.command()
@click.argument("key_id")
@click.pass_obj
def revoke(settings: Settings | None, key_id: str) -> None:
    """Revoke the key with this id, now."""
    from bento.access import api_keys
    from schemas.timestamps import to_micros

    if find_missing_store(settings) is not None:
        raise click.ClickException(api_keys.UNKNOWN_KEY)
    with operator_store(settings) as store, store.writing() as connection:
        revoked = api_keys.revoke_key(connection, store.keyring.mac, key_id, now=to_micros(datetime.now(UTC)))
        store.audit("key.revoke", inputs=revoked.mac, output=key_id)
    click.echo(f"key {key_id} is revoked; workers refuse it within {api_keys.KEY_REFRESH_S:g} seconds")


if __name__ == "__main__":
    keys()
