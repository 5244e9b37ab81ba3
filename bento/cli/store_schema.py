"""`finrisk store upgrade` and `finrisk store check`: the schema of the service's store.

In a container: `python -m bento.store.migrations`.
"""

import click

from finrisk_assets.settings import Settings


@click.command()
@click.pass_obj
def upgrade(settings: Settings) -> None:
    """Bring the store to the layout that this code reads and writes; one on SQLite is brought there by the service itself."""
    _tell(settings, upgrades=True)


@click.command()
@click.pass_obj
def check(settings: Settings) -> None:
    """Say whether the store has the layout that this code needs; exit 1 if not."""
    _tell(settings, upgrades=False)


def _tell(settings: Settings, *, upgrades: bool) -> None:
    from bento.store.database import StoreError, StoreUnavailable
    from bento.store.migrations import told

    try:
        click.echo(told(settings, upgrades=upgrades))
    except StoreError as error:
        raise click.ClickException(str(error)) from None
    except StoreUnavailable as error:
        raise click.ClickException(f"the service's store cannot be had now: {error}") from None
