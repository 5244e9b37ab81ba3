"""`python -m bento.store.migrations upgrade|check`: the commands of `finrisk store` in a container."""

import click

from bento.store.database import StoreError, StoreUnavailable
from bento.store.migrations import upgrade_or_check
from finrisk_assets.settings import Settings, SettingsError


@click.command()
@click.argument("action", type=click.Choice(["upgrade", "check"]))
def main(action: str) -> None:
    """Migrate the store to the schema of this code, or check its schema."""
    try:
        click.echo(upgrade_or_check(Settings.from_environment(), upgrades=action == "upgrade"))
    except (StoreError, StoreUnavailable, SettingsError) as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
