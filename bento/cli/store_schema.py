"""`finrisk store upgrade` and `finrisk store check`: the schema of the service's store.

In a container: `python -m bento.store.migrations`, or by this module's name.
"""

import click

from bento.cli.common import find_missing_store, store_faults_as_click_errors
from finrisk_assets.settings import Settings


@click.command()
@click.pass_obj
def upgrade(settings: Settings) -> None:
    """Migrate the store to the schema that this code needs; the service migrates an SQLite store itself."""
    _upgrade_or_check(settings, upgrades=True)


@click.command()
@click.pass_obj
def check(settings: Settings) -> None:
    """Check that the store has the schema that this code needs; exit 1 if not."""
    _upgrade_or_check(settings, upgrades=False)


def _upgrade_or_check(settings: Settings, *, upgrades: bool) -> None:
    from bento.store.migrations import upgrade_or_check

    missing = None if upgrades else find_missing_store(settings)
    if missing is not None:
        raise click.ClickException(f"there is no store at {missing}: run `finrisk store upgrade`, or start the service, which creates it")
    with store_faults_as_click_errors():
        click.echo(upgrade_or_check(settings, upgrades=upgrades))


if __name__ == "__main__":
    from bento.store.migrations.__main__ import main

    main()
