"""Commands about the copies of snapshots and champions in a bucket."""

import click

from bento.cli.output import AS_JSON, print_json
from finrisk_assets.settings import Settings


@click.group("mirror")
def mirror() -> None:
    """Copies of snapshots and champions in the bucket of FINRISK_OBJECTS. See docs/object-storage.md."""


@mirror.command("push")
@AS_JSON
@click.pass_obj
def push(settings: Settings, as_json: bool) -> None:
    """Copy every snapshot and champion that this home has; runs copy new ones by themselves."""
    from finrisk_assets.ledger.mirror import mirror_all

    names = mirror_all(settings)
    if as_json:
        print_json(names)
    else:
        click.echo(f"{len(names)} snapshots and champions are in {settings.mirror}")


@mirror.command("restore")
@AS_JSON
@click.pass_obj
def restore(settings: Settings, as_json: bool) -> None:
    """Bring every copied snapshot and champion back to this home, each after checking its bytes; nothing is overwritten."""
    from finrisk_assets.ledger.mirror import restore_all

    names = []
    for name in restore_all(settings):
        names.append(name)
        if not as_json:
            click.echo(name)
    if as_json:
        print_json(names)
    else:
        click.echo(f"{len(names)} snapshots and champions are in {settings.root}")
