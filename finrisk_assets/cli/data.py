"""Commands about a ledger's data: propose a mapping, check one without training, show the quarantine, and export the marts."""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bento.cli.output import AS_JSON, print_json, print_table
from finrisk_assets.cli import prerequisites
from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    from finrisk_assets.ledger.quarantine_report import TableReport

HAS_QUARANTINE, CANNOT_RUN = 1, 2
"""Exit statuses: rows are in quarantine; the mapping or a file is wrong."""
FIRST_ROWS = 3
"""Rows of each table that an import shows."""
WIDTH = 150
"""Columns of the output without a terminal."""


TABLES = ("customers", "accounts", "transactions", "loans", "offers")


def _print_keys(context: click.Context, option: click.Parameter, is_set: bool) -> None:
    """Print the reference of a mapping's keys and end."""
    if is_set:
        from finrisk_assets.operations.mapping_reference import write_reference

        click.echo(write_reference(), nl=False)
        context.exit()


@click.command("import")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--as", "table", type=click.Choice(TABLES), help="The ledger table of the files; by default their columns tell.")
@click.option(
    "-o", "--output", "out", type=click.Path(path_type=Path, dir_okay=False), help="Write the mapping to this file, and check it."
)
@click.option("--keys", is_flag=True, is_eager=True, expose_value=False, callback=_print_keys, help="Print the reference of all keys.")
@click.option("--overwrite", is_flag=True, help="Write files anew that are there already.")
@click.pass_obj
def import_files(settings: Settings, files: tuple[Path, ...], table: str | None, out: Path | None, overwrite: bool) -> None:
    """Propose a mapping of FILES: CSV, TSV, Parquet, Excel, OFX, QFX, CAMT.053 or MT940, on this machine or in a bucket (s3://…).

    At a terminal it asks what the files leave open; elsewhere it takes the likeliest answer and marks it with `confirm`. With -o it
    shows the first rows as the ledger will see them: personal data.
    """
    from finrisk_assets.ledger.intake.import_files import propose_mapping
    from finrisk_assets.ledger.landing import LandingError
    from finrisk_assets.objects.addresses import ObjectError
    from finrisk_assets.operations.check_mapping import check_mapping
    from schemas.mapping import MappingError

    try:
        text = propose_mapping(files, table, out, _ask, overwrites=overwrite)
        click.echo(text, nl=False)
        if out:
            _print_tables(check_mapping(settings, out, n_rows=FIRST_ROWS).tables)
            click.echo(f"Confirm the guesses in {out}, then: finrisk check {out}")
    except (MappingError, LandingError, ObjectError) as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(CANNOT_RUN)


def _ask(question: str, answers: Sequence[str], likeliest: str) -> str:
    """Ask at a terminal; elsewhere the likeliest answer is taken."""
    if not sys.stdin.isatty():
        return likeliest
    kind = click.Choice(answers) if answers else str
    return str(click.prompt(question, type=kind, default=likeliest))


@click.command("check")
@click.argument("mapping", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--rows", "n_rows", default=0, type=click.IntRange(0), help="Show the first N valid and quarantined rows: personal data.")
@click.pass_obj
def check_file(settings: Settings, mapping: Path, as_json: bool, n_rows: int) -> None:
    """Land and validate the files of a MAPPING without training: valid and quarantined rows, the fix of each rule, and the domains.

    A MAPPING in a bucket (s3://…) names its files by addresses.
    Exit status 0, 1 if rows are in quarantine, 2 if the mapping or a file is wrong.
    """
    from finrisk_assets.ledger.landing import LandingError
    from finrisk_assets.objects.addresses import ObjectError
    from finrisk_assets.operations.check_mapping import check_mapping
    from schemas.mapping import MappingError

    try:
        report = check_mapping(settings, mapping, n_rows)
    except (MappingError, LandingError, ObjectError) as error:
        if as_json:
            click.echo(json.dumps({"error": str(error)}, ensure_ascii=False, indent=2))
        click.echo(f"Error: {error}", err=True)
        sys.exit(CANNOT_RUN)
    if as_json:
        click.echo(json.dumps(report.to_json(), ensure_ascii=False, indent=2))
    else:
        _print_tables(report.tables)
        for name, domain in report.domains.items():
            click.echo(f"{name} {'runs' if domain.runs else 'is left out'}{f': {domain.reason}' if domain.reason else ''}")
    sys.exit(HAS_QUARANTINE if report.has_quarantine else 0)


@click.command("quarantine")
@click.argument("table", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--rows", "n_rows", default=0, type=click.IntRange(0), help="Show the first N valid and quarantined rows: personal data.")
@click.pass_obj
def show_quarantine(settings: Settings, table: str | None, as_json: bool, n_rows: int) -> None:
    """Show the quarantine of the ledger that was run, of a TABLE or of all: rows by broken rule, three examples and the fix."""
    from finrisk_assets.operations.stored_quarantine import read_quarantine

    reports = read_quarantine(settings, table, n_rows)
    if as_json:
        click.echo(json.dumps({"tables": {name: report.to_json() for name, report in reports.items()}}, ensure_ascii=False, indent=2))
    else:
        _print_tables(reports)


def _print_tables(reports: "Mapping[str, TableReport]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)
    for name, report in reports.items():
        console.print(Text(f"{name}: {report.rows:,} rows, {report.valid:,} valid, {report.quarantined:,} in quarantine"))
        if report.rules:
            table = Table("rows", "rule", "examples", "fix")
            for rule, of_rule in report.rules.items():
                examples = "\n".join(_show(example) for example in of_rule.examples)
                table.add_row(f"{of_rule.rows:,}", Text(rule), Text(examples), Text(of_rule.fix))
            console.print(table)
        for note in report.notes:
            console.print(Text(f"  {note}"))
        for title, rows in (("valid", report.valid_rows), ("in quarantine", report.quarantined_rows)):
            for row in rows or ():
                console.print(Text(f"  {title}: {json.dumps(row, ensure_ascii=False)}"))


def _show(example: Mapping[str, Any]) -> str:
    values = ", ".join(f"{name} {value!r}" for name, value in example.items() if name != "row")
    return f"row {example['row']}{f': {values}' if values else ''}"


@click.command("export")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="The folder to write to, or an address in a bucket (s3://…). Default: that of the asset `marts`.",
)
@AS_JSON
@click.pass_obj
def export(settings: Settings, folder: Path | None, as_json: bool) -> None:
    """Write scores, decisions, alerts, loans and transactions as Parquet, CSV and Tableau extracts. See docs/exports.md."""
    from finrisk_assets.domains.registry import domains_of
    from finrisk_assets.graph.stages.exports.marts import export_marts
    from finrisk_assets.graph.warehouse import Warehouse
    from finrisk_assets.ledger import sources
    from finrisk_assets.marts.mart_files import MartError, has_tableau, mart_folder, publish_marts
    from finrisk_assets.objects.addresses import find_address

    source, address = sources.load(settings), find_address(folder) if folder else None
    prerequisites.require_ledger(settings)
    with tempfile.TemporaryDirectory(dir=settings.root, prefix=".export-") if address else nullcontext("") as scratch:
        target = Path(scratch) if address else folder or mart_folder(settings)
        try:
            written = export_marts(target, domains_of(source), source, Warehouse.of(settings), settings)
        except MartError as error:
            raise click.ClickException(str(error)) from None
        except OSError as error:
            raise click.ClickException(f"{target} cannot be written: {error.strerror}") from None
        if address:
            publish_marts(written, address)
    place = address or str(target)
    if as_json:
        print_json([{"mart": one.mart.name, "rows": one.rows, "files": [f"{place}/{file.name}" for file in one.files]} for one in written])
        return
    rows = [(one.mart.name, f"{one.rows:,}", " ".join(file.suffix[1:] for file in one.files)) for one in written]
    print_table(("mart", "rows", "files"), rows)
    click.echo(f"They are in {place}; `dictionary` says what each column means.")
    if not has_tableau():
        click.echo("There are no Tableau extracts: `make tableau` installs what writes them.")
