"""`finrisk`: what Dagster's, BentoML's and MLflow's own commands lack."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from finrisk_assets.settings import Settings, SettingsError

DAGSTER_YAML = """\
# One run at a time: the default warehouse is a DuckDB file, which one process may write.
concurrency:
  runs:
    max_concurrent_runs: 1
telemetry:
  enabled: false
nux:
  enabled: false
"""


class _Plain(click.Group):
    """Says what was wrong with a setting or a source in one sentence, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        from finrisk_assets.ledger.landing import LandingError
        from finrisk_assets.ledger.sources import SourceError
        from schemas.mapping import MappingError

        try:
            return super().invoke(ctx)
        except (SettingsError, SourceError, MappingError, LandingError) as error:
            raise click.ClickException(str(error)) from None


@click.group(cls=_Plain, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="finrisk")
@click.pass_context
def cli(context: click.Context) -> None:
    """Five personal-finance risk decisions from one ledger.

    FINRISK_SOURCE chooses the ledger (simulator, handbook, berka, taiwan, karlan_zinman, mapped), FINRISK_HOME where everything is kept
    (default .finrisk). All settings: docs/settings.md.
    """
    # Threads that wait by spinning stand in each other's way where cores are few; read when OpenMP is loaded, so set first.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    context.obj = Settings.from_environment()


@cli.command()
@click.option("--serve/--no-serve", default=True, help="Serve the Bento and ask it for decisions when the graph is done.")
@click.pass_obj
def demo(settings: Settings, serve: bool) -> None:
    """Materialise the whole graph, then let the served Bento decide on examples from the ledger."""
    from finrisk_assets import demo as show

    prepare_dagster(settings)
    sys.exit(show.run(settings, serve=serve))


@cli.command()
@click.option("--port", default=3000, show_default=True, help="Port on 127.0.0.1.")
@click.pass_obj
def dev(settings: Settings, port: int) -> None:
    """Open the Dagster UI over this source's graph and its past runs."""
    prepare_dagster(settings)
    command = ["dagster", "dev", "-m", "finrisk_assets.definitions", "-h", "127.0.0.1", "-p", str(port)]
    os.execv(Path(sys.executable).with_name("dagster"), command)


@cli.command()
@click.option("--port", default=3000, show_default=True, help="Port on 127.0.0.1.")
@click.pass_obj
def serve(settings: Settings, port: int) -> None:
    """Serve the newest Bento of this source."""
    from finrisk_assets.packaging import bentoml_home

    os.environ |= {"BENTOML_HOME": str(bentoml_home(settings)), "BENTOML_DO_NOT_TRACK": "true"}
    command = ["bentoml", "serve", "finrisk:latest", "--host", "127.0.0.1", "--port", str(port)]
    os.execv(Path(sys.executable).with_name("bentoml"), command)


@cli.command("load-history")
@click.pass_obj
def load_history(settings: Settings) -> None:
    """Put the ledger's recent transactions and what is known of each customer into the service's store."""
    from finrisk_assets import history

    click.echo(f"{history.load(settings)} in the service's store")


def prepare_dagster(settings: Settings) -> None:
    """Give the source a Dagster instance of its own, and name it to Dagster the only way it takes: by the environment."""
    folder = settings.root / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dagster.yaml").write_text(DAGSTER_YAML, encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(folder)


def main() -> None:
    """Entry point of the command `finrisk`."""
    cli()


if __name__ == "__main__":
    main()
