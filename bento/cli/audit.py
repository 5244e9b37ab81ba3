"""`finrisk audit` and `finrisk replay`: is the service's record whole, who did what, and do its decisions come out as they were stored?

In a container: `python -m bento.cli.audit`. The operator's and the auditor's commands: they touch the service's store, not the graph.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from finrisk_assets.settings import Settings

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SURROGATE = re.compile(r"[0-9a-f]{32}")
_SINCE = click.option("--since", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="From this moment on, UTC.")


@click.group("audit")
def audit() -> None:
    """The record of what the service did. See docs/audit.md."""


@audit.command()
@click.option(
    "--checkpoint",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file of lines that `finrisk audit checkpoint` printed; may be repeated.",
)
@click.pass_obj
def verify(settings: Settings | None, files: tuple[Path, ...]) -> None:
    """Look at every record; exit 0 with their number, or 1 with the first that is broken."""
    from bento.store import audit_verify

    lines = [line for file in files for line in _kept(file)]
    with _opened(settings) as store:
        verdict = audit_verify.verify(store.database, store.keyring, lines)
    if verdict.broken is not None:
        click.echo(f"{verdict.broken}.")
        sys.exit(1)
    beside = f", {len(lines):,} kept elsewhere" if lines else ""
    click.echo(f"{verdict.records:,} records of {verdict.writers:,} writers, {verdict.checkpoints:,} checkpoints{beside}: all whole")


@audit.command()
@click.pass_obj
def checkpoint(settings: Settings | None) -> None:
    """Print a line that proves everything recorded up to now; keep it where nobody can change it."""
    from bento.store import audit_verify

    with _opened(settings) as store, store.writing() as connection:
        now = store.clock()
        line = audit_verify.create_checkpoint(connection, store.keyring, now).line(now)
    click.echo(line)


@audit.command()
@click.option("--person", help="A customer's identifier, or the surrogate that stands in a record.")
@_SINCE
@click.option("--action", help="As in decide, read, export, erase.")
@click.option("--caller", help="As in key:4f2a, local.")
@click.option("--most", default=50, show_default=True, type=click.IntRange(1, 10_000), help="How many at most.")
@click.pass_obj
def show(settings: Settings | None, person: str | None, since: datetime | None, action: str | None, caller: str | None, most: int) -> None:
    """Show who did what, the newest first. That is recorded too."""
    from bento.store import audit_verify

    with _opened(settings) as store:
        surrogate = None if person is None else _surrogate(store, person)
        with store.writing() as connection:
            found = audit_verify.find(connection, since=_micros(since), most=most, person=surrogate, action=action, caller=caller)
            store.audit("read", person=surrogate, domain="audit")
    for one in found:
        model = f"{one.domain or ''} {one.model_version or ''}".strip()
        where = f"{one.writer[:8]}/{one.number}"
        click.echo(
            f"{_moment(one.at)}  {where:<15}  {one.caller:<16}  {one.action:<12}  {one.person or '–':<32}  {one.request_id:<32}  {model}"
        )


@click.command()
@_SINCE
@click.option("--domain", help="Only decisions of this one, as in loan_default.")
@click.option(
    "--models",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder `models` of a BentoML home. Default: that of this source.",
)
@click.pass_obj
def replay(settings: Settings | None, since: datetime | None, domain: str | None, models: Path | None) -> None:
    """Make every stored decision once more and compare; exit 0 if all come out as they were stored, else 1."""
    from bento.decisions import replay as again

    with _opened(settings) as store:
        with store.writing():
            store.audit("replay", domain=domain)
        found = again.replay(store, again.Versions(models or _models(settings)), since=_micros(since), domain=domain)
    click.echo(f"{found.decisions:,} decisions, {found.different + found.damaged + found.unrecorded:,} differences")
    for count, what in (
        (found.equal, "come out as they were stored"),
        (found.different, "come out otherwise"),
        (found.damaged, "cannot be unsealed: their bytes were changed"),
        (found.unrecorded, "are not what the audit has recorded"),
        (found.erased, "are of people who were erased, and cannot be read"),
        *((count, f"were made by {model}, which is no longer there") for model, count in sorted(found.unknown.items())),
    ):
        if count:
            click.echo(f"  {count:,} {what}")
    for one in found.told:
        click.echo(f"decision {one.decision}: {one.what}")
    sys.exit(0 if found.agrees else 1)


@contextmanager
def _opened(settings: Settings | None) -> Iterator[Any]:
    """The service's store; what cannot be done with it is said in one sentence."""
    from bento.store.audit_chain import AuditError
    from bento.store.keyring import KeyringError
    from bento.store.session import StoreError, StoreUnavailable, location, open_store

    settings = settings or Settings.from_environment()
    where = location(settings)
    if isinstance(where, Path) and not where.is_file():
        raise click.ClickException(f"there is no store at {where}: the service makes it when it starts")
    try:
        with closing(open_store(settings)) as store:
            yield store
    except (AuditError, KeyringError, StoreError) as error:
        raise click.ClickException(str(error)) from None
    except StoreUnavailable as error:
        raise click.ClickException(f"the service's store cannot be had now: {error}") from None


def _models(settings: Settings | None) -> Path:
    return (settings or Settings.from_environment()).bentoml_home / "models"


def _kept(file: Path) -> Iterator[Any]:
    """The checkpoints of a file, a line each."""
    from bento.store.audit_verify import CheckpointReceipt

    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if line.strip():
            try:
                yield CheckpointReceipt.parse(line)
            except ValueError as error:
                raise click.ClickException(f"{file}, line {number}: {error}") from None


def _surrogate(store: Any, person: str) -> str:
    """Who is meant: a customer, by the identifier that clients use, or somebody by the surrogate."""
    known = store.person(person)
    if known is not None:
        return str(known.person)
    if _SURROGATE.fullmatch(person):
        return person
    raise click.ClickException("no such customer is known here; somebody who was erased is found by the surrogate alone")


def _micros(moment: datetime | None) -> int | None:
    return None if moment is None else (moment.replace(tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def _moment(micros: int) -> str:
    """A time as a person reads it, in UTC."""
    return f"{_EPOCH + timedelta(microseconds=micros):%Y-%m-%d %H:%M:%S}"


if __name__ == "__main__":
    audit.add_command(replay)
    audit()
