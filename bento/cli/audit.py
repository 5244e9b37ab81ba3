"""`finrisk audit` and `finrisk replay`: is the service's record whole, who did what, and do its decisions come out as they were stored?

In a container: `python -m bento.cli.audit`. The operator's and the auditor's commands: they touch the service's store, not the graph.
"""

import re
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from bento.cli.common import format_instant, opened_store
from finrisk_assets.settings import Settings

_PSEUDONYMOUS_ID = re.compile(r"[0-9a-f]{32}")
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

    receipts = [receipt for file in files for receipt in _read_receipts(file)]
    with opened_store(settings, must_exist=True) as store:
        verdict = audit_verify.verify(store.database, store.keyring, receipts)
    if verdict.broken is not None:
        click.echo(f"{verdict.broken}.")
        sys.exit(1)
    beside = f", {len(receipts):,} kept elsewhere" if receipts else ""
    click.echo(f"{verdict.records:,} records of {verdict.writers:,} writers, {verdict.checkpoints:,} checkpoints{beside}: all whole")


@audit.command()
@click.pass_obj
def checkpoint(settings: Settings | None) -> None:
    """Print a line that proves everything recorded up to now; keep it where nobody can change it."""
    from bento.store import audit_verify

    with opened_store(settings, must_exist=True) as store, store.writing() as connection:
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
    from finrisk_assets.features.online import micros

    with opened_store(settings, must_exist=True) as store:
        surrogate = None if person is None else _pseudonymous_id(store, person)
        with store.writing() as connection:
            records = audit_verify.find(
                connection, since=micros(since) if since else None, most=most, person=surrogate, action=action, caller=caller
            )
            store.audit("read", person=surrogate, domain="audit")
    for record in records:
        model = f"{record.domain or ''} {record.model_version or ''}".strip()
        where = f"{record.writer[:8]}/{record.number}"
        columns = (f"{record.caller:<16}", f"{record.action:<12}", f"{record.person or '–':<32}", f"{record.request_id:<32}", model)
        click.echo("  ".join((format_instant(record.at, "seconds"), f"{where:<15}", *columns)))


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
    from bento.decisions import replay as replays
    from finrisk_assets.features.online import micros

    with opened_store(settings, must_exist=True) as store:
        with store.writing():
            store.audit("replay", domain=domain)
        report = replays.replay(store, replays.Versions(models or _models(settings)), since=micros(since) if since else None, domain=domain)
    click.echo(f"{report.decisions:,} decisions, {report.different + report.damaged + report.unrecorded:,} differences")
    for count, what in (
        (report.equal, "come out as they were stored"),
        (report.different, "come out otherwise"),
        (report.damaged, "cannot be unsealed: their bytes were changed"),
        (report.unrecorded, "are not what the audit has recorded"),
        (report.erased, "are of people who were erased, and cannot be read"),
        *((count, f"were made by {model}, which is no longer there") for model, count in sorted(report.unknown.items())),
    ):
        if count:
            click.echo(f"  {count:,} {what}")
    for one in report.told:
        click.echo(f"decision {one.decision}: {one.what}")
    sys.exit(0 if report.agrees else 1)


def _models(settings: Settings | None) -> Path:
    return (settings or Settings.from_environment()).bentoml_home / "models"


def _read_receipts(file: Path) -> Iterator[Any]:
    """Yield the checkpoint receipts of a file, one from each line."""
    from bento.store.audit_verify import CheckpointReceipt

    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if line.strip():
            try:
                yield CheckpointReceipt.parse(line)
            except ValueError as error:
                raise click.ClickException(f"{file}, line {number}: {error}") from None


def _pseudonymous_id(store: Any, person: str) -> str:
    """Return the pseudonymous id of a customer's identifier, or the text itself where it is such an id."""
    customer = store.person(person)
    if customer is not None:
        return str(customer.person)
    if _PSEUDONYMOUS_ID.fullmatch(person):
        return person
    raise click.ClickException("no such customer is known here; an erased person is found by the surrogate alone")


if __name__ == "__main__":
    audit.add_command(replay)
    audit()
