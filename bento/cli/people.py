"""`finrisk people`, `finrisk keyring`, `finrisk store`: commands on people's data, master keys and backups.

In a container: `python -m bento.cli.people`. The commands read and write the service's store, not the graph; docs/privacy.md explains them.
"""

import json
import os
from pathlib import Path

import click

from bento.cli.common import operator_store, write_private_file
from bento.cli.output import AS_JSON, print_json
from finrisk_assets.settings import Settings

WAIT_S = 10.0
"""Seconds to wait for the service to finish a write. More lets a command wait longer before it fails."""
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group("people")
def people() -> None:
    """Stored personal data: export, erasure, retention. See docs/privacy.md."""


@people.command("export")
@click.argument("customer_id")
@click.option("--to", "target", type=_FILE, required=True, help="A new file to write to; only its owner can read it.")
@click.pass_obj
def export_person(settings: Settings | None, customer_id: str, target: Path) -> None:
    """Write all stored data of a person into a file, as JSON. The audit records the export."""
    from bento.decisions.bundle_versions import BundleVersions
    from bento.decisions.record_tiers import AnswerRebuilder
    from bento.people.data_rights import export

    models = (settings or Settings.from_environment()).bentoml_home / "models"
    with operator_store(settings, wait_s=WAIT_S) as store:
        exported = export(store, customer_id, AnswerRebuilder(store, BundleVersions(models, store)))
        write_private_file(target, json.dumps(exported.model_dump(mode="json"), indent=1) + "\n")


@people.command("erase")
@click.argument("customer_ids", nargs=-1, required=True)
@click.confirmation_option(prompt="The sealed data of these people can never be read again. Go on?")
@click.pass_obj
def erase_people(settings: Settings | None, customer_ids: tuple[str, ...]) -> None:
    """Erase people: their keys, transactions and scores. Erasure cannot be undone."""
    from bento.people.backup import wipe
    from bento.people.data_rights import erase
    from bento.problems import Problem

    erased = 0
    with operator_store(settings, wait_s=WAIT_S) as store:
        for customer_id in customer_ids:
            try:
                erase(store, customer_id, wiping=False)
                erased += 1
            except Problem as problem:
                if problem.status != 404:
                    raise
        wiped = wipe(store)
    click.echo(f"{erased} erased, {len(customer_ids) - erased} not known here")
    _report_wiped(wiped)


@people.command()
@click.option("--older-than", "days", type=int, required=True, help="Age in days above which rows are deleted.")
@click.option("--wipe/--no-wipe", "wiping", default=True, help="Rewrite the store's file at the end; requests that write wait meanwhile.")
@click.pass_obj
def retain(settings: Settings | None, days: int, wiping: bool) -> None:
    """Delete transactions and decisions older than DAYS, and erase people without remaining rows.

    For a scheduler, once a day. The audit stays and still verifies.
    """
    from bento.people import retention
    from bento.people.backup import wipe

    with operator_store(settings, wait_s=WAIT_S) as store:
        try:
            deleted = retention.retain(store, days)
        except ValueError as error:
            raise click.ClickException(str(error)) from None
        wiped = wiping and wipe(store)
    click.echo(f"deleted {deleted.transactions:,} transactions and {deleted.decisions:,} decisions; forgot {deleted.people:,} people")
    if wiping:
        _report_wiped(wiped)


@click.group("keyring")
def keyring() -> None:
    """The master key, which wraps people's data keys. See docs/privacy.md."""


@keyring.command()
@click.argument("file", type=_FILE)
def new(file: Path) -> None:
    """Write a new master key into FILE, in front of the existing keys; only the file's owner can read it."""
    from bento.store.keyring import KEY_BYTES, KeyringError, read_keys, write_keys

    try:
        existing = read_keys(file) if file.exists() else []
        file.parent.mkdir(parents=True, exist_ok=True)
        write_keys(file, [os.urandom(KEY_BYTES), *existing], new=not existing)
    except (KeyringError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{file} holds {len(existing) + 1} master keys; keep a copy where the store's backups are not")


@keyring.command()
@AS_JSON
@click.pass_obj
def show(settings: Settings | None, as_json: bool) -> None:
    """List the ids of the master keys, and the number of keys wrapped under each."""
    from bento.people.data_rights import count_keys_by_master

    with operator_store(settings, wait_s=WAIT_S) as store:
        with store.reading() as connection:
            counts = count_keys_by_master(connection)
        if as_json:
            masters = enumerate(store.keyring.masters)
            print_json([{"master": master, "is_current": at == 0, "keys": counts.get(master, 0)} for at, master in masters])
            return
        for at, master in enumerate(store.keyring.masters):
            click.echo(f"{master}  {'current' if at == 0 else 'old':<7}  {counts.get(master, 0):,} keys wrapped under it")


@keyring.command()
@click.pass_obj
def rotate(settings: Settings | None) -> None:
    """Wrap all keys under the current master key, the first in the file. May be interrupted and repeated while the service answers."""
    from bento.people.backup import wipe
    from bento.people.data_rights import rewrap

    with operator_store(settings, wait_s=WAIT_S) as store:
        rewrapped = rewrap(store)
        wiped = wipe(store)
        click.echo(f"{rewrapped:,} keys wrapped anew; all are under master key {store.keyring.master} now")
    _report_wiped(wiped)


@keyring.command()
@click.pass_obj
def drop(settings: Settings | None) -> None:
    """Remove old master keys from the key file, where no key is wrapped under them."""
    from bento.people.data_rights import count_keys_by_master
    from bento.store.keyring import key_file, read_keys, write_keys

    with operator_store(settings, wait_s=WAIT_S) as store, store.writing() as connection:  # no person is added meanwhile
        old = sorted(count_keys_by_master(connection).keys() - {store.keyring.master})
        if old:
            raise click.ClickException(f"keys are still wrapped under {', '.join(old)}: run `finrisk keyring rotate` first")
        settings = settings or Settings.from_environment()
        if settings.master_key:
            raise click.ClickException("the master keys are in FINRISK_MASTER_KEY: leave the old ones out of it")
        keys = read_keys(key_file(settings))
        write_keys(key_file(settings), keys[:1])
        store.audit("keyring.drop", output=store.keyring.master)
    click.echo(f"{len(keys) - 1} old master keys dropped from {key_file(settings)}")


@click.group("store")
def store() -> None:
    """The file of the service's store. See docs/privacy.md."""


@store.command()
@click.argument("file", type=_FILE)
@click.pass_obj
def backup(settings: Settings | None, file: Path) -> None:
    """Write the store's present state to a new FILE without deleted data, while the service goes on."""
    from bento.people import backup as backups

    with operator_store(settings, wait_s=WAIT_S) as service_store:
        try:
            backups.backup(service_store, file)
        except backups.BackupError as error:
            raise click.ClickException(str(error)) from None
    click.echo(f"{file}: {file.stat().st_size:,} bytes; the master key is not in it")


@store.command()
@click.pass_obj
def wipe(settings: Settings | None) -> None:
    """Rewrite the store's file, so that no deleted data is left in the file; requests that write wait meanwhile."""
    from bento.people import backup as backups

    with operator_store(settings, wait_s=WAIT_S) as service_store:
        wiped = backups.wipe(service_store)
    _report_wiped(wiped)


def _report_wiped(wiped: bool) -> None:
    if wiped:
        click.echo("the store's file holds nothing that was deleted")
    else:
        click.echo("the file was not written anew: on PostgreSQL run VACUUM FULL, else `finrisk store wipe` in a quieter moment", err=True)


@click.group()
def main() -> None:
    """People, keys and backups of the service's store."""


for group in (people, keyring, store):
    main.add_command(group)

if __name__ == "__main__":
    main()
