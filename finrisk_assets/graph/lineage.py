"""Column lineage: which stored columns each column of an Ibis expression is computed from, read from the expression itself.

A column comes from the columns in its own expression. What is taken over several rows, an aggregate or a window, comes also from what
chooses and groups those rows: the keys of the grouping and, below it, the predicates of filters and joins. A column that a join merely
brings along does not come from the keys of that join, nor a value from a filter on its own row.
"""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import dagster as dg
import ibis.expr.operations as ops
from ibis.common.graph import Graph
from ibis.expr.types import Table as LazyTable

METADATA = "dagster/column_lineage"

Origins = frozenset[tuple[str, str]]
"""Stored columns, as table and column."""
_NONE: Origins = frozenset()


class _RelationOrigins(NamedTuple):
    """The origins of a relation's columns, and those of the choice of its rows."""

    columns: Mapping[str, Origins]
    rows: Origins


def lineage_metadata(table: LazyTable) -> dict[str, Any]:
    """Return a table's lineage as metadata of its asset: for Dagster, and as a Markdown table. Table names must be asset names.

    The open-source Dagster UI draws no graph of columns, so it shows the Markdown table.
    """
    origins = {column: sorted(columns) for column, columns in trace_columns(table).items()}
    deps = {
        column: [dg.TableColumnDep(asset_key=dg.AssetKey(name), column_name=of) for name, of in columns]
        for column, columns in origins.items()
    }
    rows = [
        f"| {column} | {', '.join(f'{name}.{of}' for name, of in columns) or 'nothing stored'} |" for column, columns in origins.items()
    ]
    table_of_origins = "\n".join(["| column | is computed from |", "|---|---|", *rows])
    return {METADATA: dg.TableColumnLineage(deps), "computed_from": dg.MetadataValue.md(table_of_origins)}


def trace_columns(table: LazyTable) -> dict[str, Origins]:
    """Return for each column of a lazy table the stored columns that it is computed from.

    Rows that stand in the expression itself (`ibis.memtable`) come from nowhere.

    Raises
    ------
    TypeError
        For an expression that holds SQL as text, which is not read here.
    """
    root = table.op()
    relations: dict[Any, _RelationOrigins] = {}
    values: dict[Any, Origins] = {}
    parts_first, _ = Graph.from_bfs(root).toposort()
    for node, parts in parts_first.items():
        if isinstance(node, ops.Relation):
            relations[node] = _relation(node, relations, values)
        elif isinstance(node, ops.Field):
            values[node] = relations[node.rel].columns[node.name]
        else:
            values[node] = _value(node, parts, relations, values)
    return dict(relations[root].columns)


def _value(node: Any, parts: Iterable[Any], relations: Mapping[Any, _RelationOrigins], values: Mapping[Any, Origins]) -> Origins:
    """Return the origins of an expression, or of a bundle of expressions (a sort key, a link of a join)."""
    parts = tuple(parts)
    origins = _union(values[part] for part in parts if part in values)
    if isinstance(node, ops.Subquery):
        inner = relations[node.rel]
        return origins | inner.rows | _union(inner.columns.values())
    if isinstance(node, ops.WindowFunction):
        return origins | _union(relations[relation].rows for relation in node.relations)
    return origins | _union(relations[part].rows for part in parts if part in relations and not isinstance(node, ops.JoinLink))


def _relation(node: Any, relations: Mapping[Any, _RelationOrigins], values: Mapping[Any, Origins]) -> _RelationOrigins:
    """Return the origins of a relation, from those of its parts."""
    match node:
        case ops.AliasedRelation() | ops.Reference():
            return relations[node.parent]
        case ops.InMemoryTable():
            return _RelationOrigins(dict.fromkeys(node.schema.names, _NONE), _NONE)
        case ops.PhysicalTable():
            return _RelationOrigins({name: frozenset({(node.name, name)}) for name in node.schema.names}, _NONE)
        case ops.SQLQueryResult() | ops.SQLStringView():
            raise TypeError("columns cannot be traced through SQL as text: write it as an Ibis expression")
        case ops.Project():
            return _RelationOrigins({name: values[value] for name, value in node.values.items()}, relations[node.parent].rows)
        case ops.DummyTable():
            return _RelationOrigins({name: values[value] for name, value in node.values.items()}, _NONE)
        case ops.Aggregate():
            grouped = {name: values[value] for name, value in node.groups.items()}
            chosen = relations[node.parent].rows | _union(grouped.values())
            return _RelationOrigins(grouped | {name: values[value] | chosen for name, value in node.metrics.items()}, chosen)
        case ops.JoinChain():
            chosen = _union(relations[table].rows for table in node.tables) | _union(values[link] for link in node.rest)
            return _RelationOrigins({name: values[value] for name, value in node.values.items()}, chosen)
        case ops.Set():
            left, right = relations[node.left], relations[node.right]
            both = {name: left.columns[name] | right.columns[name] for name in left.columns}
            if isinstance(node, ops.Union) and not node.distinct:
                return _RelationOrigins(both, left.rows | right.rows)
            columns = both if isinstance(node, ops.Union) else left.columns
            return _RelationOrigins(columns, left.rows | right.rows | _union(both.values()))
    parent = relations[node.parent]
    match node:
        case ops.DropColumns():
            return _RelationOrigins({name: parent.columns[name] for name in node.schema.names}, parent.rows)
        case ops.TableUnnest():
            unnested = dict.fromkeys([node.column_name, *([node.offset] if node.offset else [])], values[node.column])
            return _RelationOrigins({**parent.columns, **unnested}, parent.rows | values[node.column])
        case ops.Filter():
            return _RelationOrigins(parent.columns, parent.rows | _union(values[predicate] for predicate in node.predicates))
        case ops.Sort():
            # Which row comes first decides as soon as not all are taken.
            return _RelationOrigins(parent.columns, parent.rows | _union(values[key] for key in node.keys))
        case ops.Distinct() | ops.DropNull():
            subset = getattr(node, "subset", None)
            keys = parent.columns.values() if subset is None else (values[column] for column in subset)
            return _RelationOrigins(parent.columns, parent.rows | _union(keys))
    return parent  # what changes neither columns nor the choice of rows: a limit, a sample, a stand-in for nulls


def _union(parts: Iterable[Origins]) -> Origins:
    return _NONE.union(*parts)
