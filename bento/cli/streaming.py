"""`finrisk stream`: the worker of the stream, its topics, its dead letters. In a container: `python -m bento.cli.streaming`."""

import json
import logging.config
import os
from collections.abc import Iterator
from contextlib import contextmanager

import click

from bento.cli.common import store_faults_as_click_errors
from finrisk_assets.settings import Settings


@contextmanager
def stream_faults_as_click_errors() -> Iterator[None]:
    """Report every fault of the stream, its models and its store as one sentence without a traceback.

    Raises
    ------
    click.ClickException
        For each of these faults.
    """
    from bentoml.exceptions import BentoMLException

    from bento.stream.kafka_clients import StreamError

    try:
        with store_faults_as_click_errors():
            yield
    except (BentoMLException, StreamError) as error:
        raise click.ClickException(str(error)) from None


@click.group("stream", invoke_without_command=True)
@click.option("--bento", envvar="BENTO_PATH", help="The Bento whose models decide. Default: the newest of this source.")
@click.pass_context
def stream(context: click.Context, bento: str | None) -> None:
    """Decide on the transactions of a Kafka topic, until the command is ended. See docs/streaming.md."""
    context.obj = context.obj or Settings.from_environment()
    if context.invoked_subcommand is not None:
        return
    from finrisk_assets.private_files import restrict_new_files

    settings: Settings = context.obj
    restrict_new_files()
    os.environ.setdefault("BENTOML_HOME", str(settings.bentoml_home))
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "true")
    # Threads of a matrix's score would wait for each other: the other cores are the broker's and the database's.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with stream_faults_as_click_errors():
        from bento.stream.stream_process import run_process
        from bento.web.server_log import LOGGING, enable_loggers

        logging.config.dictConfig(LOGGING)
        enable_loggers()
        run_process(settings, bento or "finrisk:latest")


@stream.command()
@click.option("--partitions", default=3, show_default=True, help="Partitions of each topic: workers that can share it, at most.")
@click.option("--replicas", default=1, show_default=True, help="Brokers that hold each message; 3 in production.")
@click.pass_obj
def topics(settings: Settings, partitions: int, replicas: int) -> None:
    """Create those of the stream's three topics that are missing."""
    from bento.stream.kafka_clients import create_topics

    with stream_faults_as_click_errors():
        created = create_topics(settings, partitions, replicas)
    click.echo(f"created: {', '.join(created)}" if created else "all topics are there")


@stream.command()
@click.option("--limit", type=click.IntRange(min=1), help="Letters to look at, at most. Default: all.")
@click.option("--reason", help="Send only letters with this reason; others are passed over for good.")
@click.pass_obj
def redrive(settings: Settings, limit: int | None, reason: str | None) -> None:
    """Send the dead letters again, each once, after their cause is mended."""
    from bento.stream.dead_letters import redrive as send_again

    with stream_faults_as_click_errors():
        sent, passed = send_again(settings, limit, reason)
    click.echo(f"{sent:,} dead letters sent again, {passed:,} passed over")


@stream.command()
def schema() -> None:
    """Print the JSON schema of a message."""
    from bento.stream.messages import message_schema

    click.echo(json.dumps(message_schema(), indent=2))


if __name__ == "__main__":
    stream()
