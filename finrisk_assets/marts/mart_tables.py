"""The marts as tables: which there are on a source, the contract of each, where each column comes from, and their dictionary."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from finrisk_assets.domains.base import Domain
from finrisk_assets.ledger.sources.source_definition import Source
from schemas.ledger import Column, Table
from schemas.marts import ALERTS, DECISIONS, DICTIONARY, SCORES_COLUMNS

if TYPE_CHECKING:
    from ibis.expr.types import Table as LazyTable

LEDGER_MARTS = ("loans", "transactions")
"""Tables of the ledger that are marts as they are."""
STORE_MARTS = (DECISIONS, ALERTS)
"""Contracts of the marts whose rows come from the service's store."""
KIND = "_kind"
"""Column of the rows of `scores` beside the contract's: the kind of the subject's identifier, as the ledger names it."""

TableOf = Callable[[str], "LazyTable"]


@dataclass(frozen=True)
class Mart:
    """A mart: its contract, and for each column the stored table and column that it comes from."""

    table: Table
    origins: Mapping[str, str]

    @property
    def name(self) -> str:
        """The mart's name, which its files have."""
        return self.table.name


def list_marts(source: Source, scored: Sequence[Domain], *, has_store: bool) -> list[Mart]:
    """Return the marts of a source, the dictionary last.

    Parameters
    ----------
    scored
        The domains that have batch scores.
    has_store
        Whether the service has a store.
    """
    marts = [_scores_mart(scored)] if scored else []
    if has_store:
        marts += [Mart(table, {name: f"the service's store, {table.name}" for name in table.names}) for table in STORE_MARTS]
    for name in LEDGER_MARTS:
        if name in source.tables:
            table = source.tables[name].table
            marts.append(Mart(table, {column: f"validated_{name}.{column}" for column in table.names}))
    return [*marts, Mart(DICTIONARY, dict.fromkeys(DICTIONARY.names, "the contract of each table"))]


def _scores_mart(scored: Sequence[Domain]) -> Mart:
    own: dict[str, Column] = {}
    domains_of: dict[str, list[str]] = {}
    for domain in scored:
        for column in domain.more_scores:
            own.setdefault(column.name, column)
            domains_of.setdefault(column.name, []).append(domain.name)
    more = [
        replace(column, nullable=True, description=f"{column.description} Of {' and '.join(domains_of[name])} alone.")
        for name, column in own.items()
    ]
    description = "Decisions of the champions over the whole population, all domains in one table."
    table = Table("scores", description, (*SCORES_COLUMNS, *more), "subject_id")
    origins = {column.name: f"scores_<domain>.{column.name}" for column in SCORES_COLUMNS}
    origins |= {
        "domain": "the name of scores_<domain>",
        "subject_id": "the key of scores_<domain>",
        "decided_at": "the decision time of scores_<domain>",
    }
    origins |= {name: ", ".join(f"scores_{domain}.{name}" for domain in domains) for name, domains in domains_of.items()}
    return Mart(table, origins)


def build_scores(scored: Sequence[Domain], table: TableOf) -> "LazyTable":
    """Return the rows of the mart `scores`, with `KIND`: the batch scores of all domains under common names."""
    import ibis

    contract = _scores_mart(scored).table

    def of_domain(domain: Domain) -> "LazyTable":
        rows, key = table(f"scores_{domain.name}"), domain.keys[0].name
        renamed = {"domain": ibis.literal(domain.name), "subject_id": rows[key], "decided_at": rows[domain.decision_time]}
        values = {
            column.name: renamed.get(column.name, rows[column.name] if column.name in rows.columns else ibis.null())
            for column in contract.columns
        }
        return rows.select(**{name: value.cast(contract[name].dtype) for name, value in values.items()}, **{KIND: ibis.literal(key)})

    return ibis.union(*(of_domain(domain) for domain in scored)) if len(scored) > 1 else of_domain(scored[0])


def build_customers(source: Source, table: TableOf) -> "LazyTable":
    """Return the identifiers of the ledger's customers, each once."""
    import ibis

    names = ["customers"] if "customers" in source.tables else [name for name in LEDGER_MARTS if name in source.tables]
    parts = [table(f"validated_{name}").select("customer_id") for name in names]
    if not parts:
        return ibis.memtable({"customer_id": []}, schema={"customer_id": "string"})
    return (ibis.union(*parts) if len(parts) > 1 else parts[0]).distinct()


def describe_columns(marts: Iterable[Mart]) -> list[dict[str, Any]]:
    """Return the rows of the dictionary: one for each column of each mart, from the contracts."""
    return [
        {
            "column_id": f"{mart.name}.{column.name}",
            "mart": mart.name,
            "position": position,
            "name": column.name,
            "type": column.dtype,
            "unit": column.unit or None,
            "meaning": column.description,
            "source": mart.origins[column.name],
            "is_nullable": column.nullable,
            "allowed": ", ".join(column.allowed) or None,
            "personal_data": column.personal,
            "known": column.known,
        }
        for mart in marts
        for position, column in enumerate(mart.table.columns, 1)
    ]
