"""`finrisk audit` and `finrisk replay`: verify the audit, list its records, and re-score the stored decisions.

In a container: `python -m bento.cli.audit`. The commands read and write the service's store, not the graph; docs/audit.md explains them.
"""

import re
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from bento.cli.common import format_instant, operator_store
from bento.cli.output import AS_JSON, EMPTY, print_json, print_table
from finrisk_assets.settings import Settings

_PSEUDONYMOUS_ID = re.compile(r"[0-9a-f]{32}")
_SINCE = click.option("--since", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]), help="Earliest time, UTC.")


def _check_domain(_: click.Context, __: click.Parameter, domain: str | None) -> str | None:
    """Return a domain of the service; without this check a misspelt domain would report no differences."""
    from bento.decisions.domains import DOMAINS

    if domain is not None and domain not in DOMAINS:
        raise click.BadParameter(f"the service has no domain {domain!r}; name one of {', '.join(sorted(DOMAINS))}")
    return domain


@click.group("audit")
def audit() -> None:
    """The audit of the service's actions. See docs/audit.md."""


@audit.command()
@click.option(
    "--checkpoint",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A file of lines that `finrisk audit checkpoint` printed; may be repeated.",
)
@AS_JSON
@click.pass_obj
def verify(settings: Settings | None, files: tuple[Path, ...], as_json: bool) -> None:
    """Verify every record and every row that a record is about; exit 0 with the number of records, or 1 with what is wrong."""
    from bento.decisions.reconcile import reconcile
    from bento.store import audit_verify

    receipts = [receipt for file in files for receipt in _read_receipts(file)]
    with operator_store(settings) as store:
        verdict = audit_verify.verify(store.database, store.keyring, receipts)
        report = reconcile(store)
        unreported = [replacement for replacement in verdict.replaced if not replacement.reported]
        if unreported:
            with store.writing():
                for replacement in unreported:
                    store.audit(audit_verify.REPORTED, inputs=f"{replacement.writer} {replacement.number}")
    if as_json:
        print_json(
            {
                "records": verdict.records,
                "writers": verdict.writers,
                "checkpoints": verdict.checkpoints,
                "stored_outside": len(receipts),
                "broken": None if verdict.broken is None else str(verdict.broken),
                "replaced": [str(replacement) for replacement in verdict.replaced],
                "mismatches": report.mismatches,
                "first_mismatches": [str(mismatch) for mismatch in report.listed],
            }
        )
        sys.exit(1 if verdict.broken is not None or report.mismatches or unreported else 0)
    for replacement in verdict.replaced:
        click.echo(f"{replacement}{'' if replacement in unreported else '; reported before'}.")
    if verdict.broken is not None:
        click.echo(f"{verdict.broken}.")
    for mismatch in report.listed:
        click.echo(f"{mismatch}.")
    if report.mismatches > len(report.listed):
        click.echo(f"{report.mismatches - len(report.listed):,} further rows differ from the audit.")
    if verdict.broken is not None or report.mismatches or unreported:
        sys.exit(1)
    external = f", {len(receipts):,} stored outside" if receipts else ""
    click.echo(f"{verdict.records:,} records of {verdict.writers:,} writers, {verdict.checkpoints:,} checkpoints{external}: all whole")


@audit.command()
@click.pass_obj
def checkpoint(settings: Settings | None) -> None:
    """Print a line that proves all records so far; store it where the service and its operators cannot change it."""
    from bento.store import audit_verify

    with operator_store(settings) as store, store.writing() as connection:
        now = store.clock()
        line = audit_verify.create_checkpoint(connection, store.keyring, now).line(now)
    click.echo(line)


@audit.command()
@click.option("--person", help="A customer's identifier, or the pseudonymous id of a record.")
@_SINCE
@click.option("--action", help="Such as decide, read, export, erase.")
@click.option("--caller", help="Such as key:4f2a, local.")
@click.option("--most", default=50, show_default=True, type=click.IntRange(1, 10_000), help="Largest number of records.")
@AS_JSON
@click.pass_obj
def show(
    settings: Settings | None, person: str | None, since: datetime | None, action: str | None, caller: str | None, most: int, as_json: bool
) -> None:
    """List the actions of callers, newest first. The audit records this command too."""
    from bento.store import audit_verify
    from schemas.timestamps import to_micros

    with operator_store(settings) as store:
        pseudonymous_id = None if person is None else _pseudonymous_id(store, person)
        with store.writing() as connection:
            records = audit_verify.find(
                connection, since=to_micros(since) if since else None, most=most, person=pseudonymous_id, action=action, caller=caller
            )
            store.audit("read", person=pseudonymous_id, domain="audit")
    headings = ("at", "record", "caller", "action", "person", "request", "domain", "model")
    rows = [
        (
            format_instant(record.at, "seconds"),
            f"{record.writer[:8]}/{record.number}",
            record.caller,
            record.action,
            record.person or EMPTY,
            record.request_id or EMPTY,
            record.domain or EMPTY,
            (record.model_version or EMPTY)[:12],
        )
        for record in records
    ]
    if as_json:
        print_json([{name: None if cell == EMPTY else cell for name, cell in zip(headings, row, strict=True)} for row in rows])
    elif sys.stdout.isatty():
        if rows:
            print_table(headings, rows)
    else:
        # A record is a line, for programs that read lines; no terminal is wide enough for its two ids.
        widths = (0, 15, 16, 12, 32, 32, 0, 0)
        for row in rows:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@click.command()
@_SINCE
@click.option("--domain", callback=_check_domain, help="Only decisions of this domain, such as loan_default.")
@click.option(
    "--models",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The folder `models` of a BentoML home. Default: the home of this source.",
)
@AS_JSON
@click.pass_obj
def replay(settings: Settings | None, since: datetime | None, domain: str | None, models: Path | None, as_json: bool) -> None:
    """Re-score every stored decision and compare; exit 0 if all were re-scored and are as stored, else 1."""
    from bento.decisions import replay as replays
    from bento.decisions.bundle_versions import BundleVersions
    from schemas.timestamps import to_micros

    with operator_store(settings) as store:
        with store.writing():
            store.audit("replay", domain=domain)
        versions = BundleVersions(models or _models(settings), store)
        report = replays.replay(store, versions, since=to_micros(since) if since else None, domain=domain)
    if as_json:
        counts = {name: getattr(report, name) for name in ("decisions", "equal", "different", "damaged", "unrecorded", "erased")}
        differences = [{"decision": difference.decision, "reason": difference.reason} for difference in report.differences]
        print_json({**counts, "unknown": dict(report.unknown), "differences": differences})
        sys.exit(0 if report.agrees else 1)
    click.echo(f"{report.decisions:,} decisions, {report.different + report.damaged + report.unrecorded:,} differences")
    for count, finding in (
        (report.equal, "come out as they were stored"),
        (report.different, "differ from what was stored"),
        (report.damaged, "cannot be unsealed: their bytes were changed"),
        (report.unrecorded, "are not what the audit has recorded"),
        (report.erased, "are of people who were erased, and cannot be read"),
        *(
            (count, f"were made by {model}, which is no longer there: they were not re-scored")
            for model, count in sorted(report.unknown.items())
        ),
    ):
        if count:
            click.echo(f"  {count:,} {finding}")
    for difference in report.differences:
        click.echo(f"decision {difference.decision}: {difference.reason}")
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
    raise click.ClickException("no such customer is stored; name an erased person by the pseudonymous id of a record")


if __name__ == "__main__":
    audit.add_command(replay)
    audit()
