"""`finrisk store upgrade` and `finrisk store check`: the schema of the service's store.

In a container: `python -m bento.store.migrations`.
"""

import click

from bento.cli.common import store_faults_as_click_errors
from finrisk_assets.settings import Settings


@click.command()
@click.pass_obj
def upgrade(settings: Settings) -> None:
    """Bring the store to the layout that this code reads and writes; one on SQLite is brought there by the service itself."""
    _bring_or_check(settings, upgrades=True)


@click.command()
@click.pass_obj
def check(settings: Settings) -> None:
    """Say whether the store has the layout that this code needs; exit 1 if not."""
    _bring_or_check(settings, upgrades=False)


def _bring_or_check(settings: Settings, *, upgrades: bool) -> None:
    from bento.store.migrations import upgrade_or_check

    with store_faults_as_click_errors():
        click.echo(upgrade_or_check(settings, upgrades=upgrades))
