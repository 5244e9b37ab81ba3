"""The check of a mapping without training: its files land, its rows meet their contract, and each domain says whether it will run."""

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finrisk_assets.ledger import contract, sources
from finrisk_assets.ledger.landing import escape_pattern
from finrisk_assets.ledger.quarantine_report import TableReport, report_table
from finrisk_assets.objects.addresses import find_address
from finrisk_assets.objects.object_copies import open_copies
from finrisk_assets.objects.object_store import describe_object
from finrisk_assets.settings import Settings
from schemas.text_files.column_names import LEAKS, PROTECTED

if TYPE_CHECKING:
    from ibis.expr.types import Table as LazyTable

    from finrisk_assets.ledger.sources.source_definition import RawTable, Source
    from schemas.mapping import ExtraColumn, TableMap

LEAK_CORRELATION = 0.95
"""Correlation with the outcome from which a feature looks like a leak."""
DISTINCT_SHARE = 0.98
"""Share of distinct values from which a whole number or a text looks like an identifier, of at least `DISTINCT_ROWS` rows."""
DISTINCT_ROWS = 50

_OUTCOMES = {"loans": "is_default", "transactions": "is_fraud", "offers": "is_accepted"}
_LEARNS_FROM = {"loan_default": "loans", "loan_offers": "offers"}
"""Domain -> the table whose outcomes it needs; transaction anomaly does without."""


@dataclass(frozen=True)
class DomainReport:
    """Whether a domain will run on the ledger; the reason where it will not, or what it has to learn from."""

    runs: bool
    reason: str


@dataclass(frozen=True)
class MappingReport:
    """The report on a mapping: its tables and the domains."""

    name: str
    tables: Mapping[str, TableReport]
    domains: Mapping[str, DomainReport]

    @property
    def has_quarantine(self) -> bool:
        """Whether any row is in quarantine."""
        return any(table.quarantined for table in self.tables.values())

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON's types."""
        return {
            "tables": {name: table.to_json() for name, table in self.tables.items()},
            "domains": {name: {"runs": domain.runs, "reason": domain.reason} for name, domain in self.domains.items()},
        }


def check_mapping(settings: Settings, path: Path, n_rows: int = 0) -> MappingReport:
    """Land and validate the files of a mapping, in a folder that is removed; copies of objects stay in the ledger's landing folder.

    Parameters
    ----------
    settings
        The data folder, the time at which the ledger is read, and the share of rows that may be in quarantine.
    path
        The mapping file; also its address in a bucket, as `finrisk_assets.objects.addresses` reads it.
    n_rows
        How many valid and quarantined rows of each table the report shows.

    Raises
    ------
    schemas.mapping.MappingError
        If the mapping is invalid.
    finrisk_assets.ledger.landing.LandingError
        If a file cannot land.
    finrisk_assets.objects.addresses.ObjectError
        If an object cannot be read.
    """
    if (address := find_address(path)) is None:
        return _check_local_mapping(settings, path, n_rows)
    with (
        tempfile.TemporaryDirectory(prefix="finrisk-mapping-") as folder,
        open_copies([describe_object(address)], Path(folder)) as (copy,),
    ):
        return _check_local_mapping(settings, copy, n_rows)


def _check_local_mapping(settings: Settings, path: Path, n_rows: int) -> MappingReport:
    import ibis

    from schemas.mapping import read_mapping

    mapping = read_mapping(path)
    source = sources.load(replace(settings, source="mapped", mapping=path))
    reports: dict[str, TableReport] = {}
    outcomes: dict[str, tuple[int, int]] = {}
    with tempfile.TemporaryDirectory(prefix="finrisk-check-") as folder:
        connection = ibis.duckdb.connect(str(Path(folder) / "check.duckdb"))
        try:
            valid: dict[str, LazyTable] = {}
            for name, raw_table in source.tables.items():
                landed = Path(folder) / f"{name}.parquet"
                landing = raw_table.land(landed)
                raw = connection.read_parquet(escape_pattern(landed), hive_partitioning=False)
                split = contract.split(raw_table.table, raw_table.columns, raw, valid, settings.now)
                quarantine = connection.create_table(f"quarantine_{name}", split.quarantine)
                valid_rows = contract.valid_rows(raw_table.table, raw_table.columns, raw, quarantine)
                valid[name] = connection.create_table(f"validated_{name}", valid_rows)
                notes = _note_columns(mapping.tables[name], raw_table, valid[name])
                if landing.repeated:
                    keys = ", ".join(mapping.tables[name].unique_by)
                    why = (
                        f"repeat an earlier {keys}: the first row of each counts"
                        if keys
                        else "are repeated by overlapping files and landed once"
                    )
                    notes.insert(0, f"{landing.repeated:,} rows {why}")
                maps = mapping.tables[name].maps
                reports[name] = report_table(raw_table, valid[name], quarantine, maps=maps, notes=notes, n_rows=n_rows)
                outcome = _OUTCOMES.get(name)
                if outcome in raw_table.columns:
                    outcomes[name] = _count_outcomes(valid[name], str(outcome))
        finally:
            connection.disconnect()
    return MappingReport(source.name, reports, _report_domains(source, reports, outcomes, settings.quarantine_max_share))


def _report_domains(
    source: "Source", tables: Mapping[str, TableReport], outcomes: Mapping[str, tuple[int, int]], largest_share: float
) -> dict[str, DomainReport]:
    """Say of each domain whether it will run, by its tables and their valid rows."""
    from finrisk_assets.domains.registry import DOMAINS

    domains = {}
    for domain in DOMAINS:
        present = [name for name in domain.tables if name in tables]
        reason = domain.unavailable_reason(source) or _fault_of_tables(present, tables, largest_share)
        learns_from, of_them = _LEARNS_FROM.get(domain.name, ""), ""
        if learns_from in outcomes:
            positive, negative = outcomes[learns_from]
            of_them = f"{positive + negative:,} outcomes, {positive:,} of them true"
            if reason is None and not (positive and negative):
                kind = "there is none" if not positive + negative else "all are the same"
                reason = f"the model needs outcomes of both kinds, and {kind}: look at {_OUTCOMES[learns_from]} in the mapping"
        domains[domain.name] = DomainReport(reason is None, reason or of_them)
    return domains


def _fault_of_tables(names: list[str], tables: Mapping[str, TableReport], largest_share: float) -> str | None:
    """Return why the run would stop at one of these tables."""
    for name in names:
        table = tables[name]
        if not table.valid:
            return f"{name} has no valid row"
        if table.quarantined > largest_share * table.rows:
            return (
                f"{table.quarantined:,} of {table.rows:,} rows of {name} are in quarantine, more than the share of {largest_share:g} "
                "at which a run stops: mend them, or raise FINRISK_QUARANTINE_MAX_SHARE"
            )
    return None


def _count_outcomes(rows: "LazyTable", outcome: str) -> tuple[int, int]:
    """Return the number of true and of false outcomes."""
    label = rows[outcome]
    counts = rows.aggregate(positive=label.sum(), negative=(~label).sum()).to_pyarrow().to_pylist()[0]
    return counts["positive"] or 0, counts["negative"] or 0


# --- columns that need a look --------------------------------------------------------------------------------------


def _note_columns(mapping: "TableMap", raw_table: "RawTable", rows: "LazyTable") -> list[str]:
    """Return a sentence for each extra column that looks like a protected attribute, an identifier or a leak."""
    notes = []
    outcome = _OUTCOMES.get(raw_table.table.name, "")
    for column in mapping.extra:
        names = " ".join(re.sub(r"\W+", "_", name.lower()) for name in (column.name, *column.reads))
        if column.personal != "protected" and any(PROTECTED.search(name) for name in names.split()):
            fix = "say `personal: protected` and take `feature` away" if column.feature else "say `personal: protected`"
            notes.append(f"{column.name} looks like a protected attribute; {fix}")
        if not column.feature:
            continue
        if any(LEAKS.search(name) for name in names.split()):
            notes.append(f"{column.name} sounds like what is known only after the decision; say `known` and take `feature` away if so")
        elif outcome in raw_table.columns and (correlation := _correlate(rows, column, outcome)) >= LEAK_CORRELATION:
            notes.append(
                f"{column.name} looks like a leak: its correlation with {outcome} is {correlation:.2f}; is it known at the decision?"
            )
        if column.unit == "share" and column.type == "float64" and not _is_share(rows, column.name):
            notes.append(f"{column.name} is a share, but rows lie outside of 0 to 1, which the service refuses; say `unit: ratio`")
        if column.type in ("int64", "string") and _is_distinct(rows, column.name):
            notes.append(
                f"{column.name} looks like an identifier: nearly every row has a value of its own; take `feature` away if it is one"
            )
    return notes


def _correlate(rows: "LazyTable", column: "ExtraColumn", outcome: str) -> float:
    """Return the absolute correlation of a column with the outcome, of a category the correlation ratio; 0 where none can be computed."""
    name = column.name
    known = rows.filter(rows[name].notnull() & rows[outcome].notnull())
    if column.type == "string":
        return _correlate_levels(known.group_by(name).aggregate(n=known.count(), true=known[outcome].sum()).to_pyarrow().to_pydict())
    left, right = known[name].cast("float64"), known[outcome].cast("int64").cast("float64")
    figures = known.aggregate(x=left.std(), y=right.std(), n=known.count()).to_pyarrow().to_pylist()[0]
    if figures["n"] < DISTINCT_ROWS or not figures["x"] or not figures["y"]:
        return 0.0
    return abs(float(known.aggregate(r=left.corr(right, how="pop")).to_pyarrow().to_pylist()[0]["r"] or 0.0))


def _correlate_levels(levels: Mapping[str, list[int]]) -> float:
    """Return the correlation ratio of rows of each level, `n`, with their `true` outcomes, less what chance makes of many levels."""
    n, n_true, n_levels = sum(levels["n"]), sum(levels["true"]), len(levels["n"])
    spread = n_true * (n - n_true) / n if n else 0.0
    if n < DISTINCT_ROWS or not spread or n == n_levels:
        return 0.0
    within = sum(true * (size - true) / size for size, true in zip(levels["n"], levels["true"], strict=True))
    return float(max(0.0, 1 - within / spread * (n - 1) / (n - n_levels)) ** 0.5)


def _is_share(rows: "LazyTable", name: str) -> bool:
    bounds = rows.aggregate(low=rows[name].min(), high=rows[name].max()).to_pyarrow().to_pylist()[0]
    return (bounds["low"] or 0) >= 0 and (bounds["high"] or 0) <= 1


def _is_distinct(rows: "LazyTable", name: str) -> bool:
    figures = rows.aggregate(n=rows[name].count(), distinct=rows[name].nunique()).to_pyarrow().to_pylist()[0]
    return figures["n"] >= DISTINCT_ROWS and figures["distinct"] >= DISTINCT_SHARE * figures["n"]
