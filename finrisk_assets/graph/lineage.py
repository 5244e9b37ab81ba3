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


class _Traced(NamedTuple):
    """Of one relation: the origins of each of its columns, and of which rows it has."""

    columns: Mapping[str, Origins]
    rows: Origins


def metadata(table: LazyTable) -> dict[str, Any]:
    """The lineage as metadata of the asset that stores a table: for Dagster, and as a table for people. A table is called as its asset is.

    The open-source Dagster UI draws no graph of columns, so that the table is what one reads there.
    """
    found = {column: sorted(came) for column, came in origins(table).items()}
    deps = {column: [dg.TableColumnDep(asset_key=dg.AssetKey(name), column_name=of) for name, of in came] for column, came in found.items()}
    rows = [f"| {column} | {', '.join(f'{name}.{of}' for name, of in came) or 'nothing stored'} |" for column, came in found.items()]
    told = "\n".join(["| column | is computed from |", "|---|---|", *rows])
    return {METADATA: dg.TableColumnLineage(deps), "computed_from": dg.MetadataValue.md(told)}


def origins(table: LazyTable) -> dict[str, Origins]:
    """Return for each column of a lazy table the stored columns that it is computed from.

    Rows that stand in the expression itself (`ibis.memtable`) come from nowhere.

    Raises
    ------
    TypeError
        For an expression that holds SQL as text, which is not read here.
    """
    root = table.op()
    relations: dict[Any, _Traced] = {}
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


def _value(node: Any, parts: Iterable[Any], relations: Mapping[Any, _Traced], values: Mapping[Any, Origins]) -> Origins:
    """The origins of an expression, or of a bundle of expressions (a sort key, a link of a join)."""
    parts = tuple(parts)
    found = _all(values[part] for part in parts if part in values)
    if isinstance(node, ops.Subquery):
        inner = relations[node.rel]
        return found | inner.rows | _all(inner.columns.values())
    if isinstance(node, ops.WindowFunction):
        return found | _all(relations[relation].rows for relation in node.relations)
    return found | _all(relations[part].rows for part in parts if part in relations and not isinstance(node, ops.JoinLink))


def _relation(node: Any, relations: Mapping[Any, _Traced], values: Mapping[Any, Origins]) -> _Traced:
    """The origins of a relation, from those of what it is made of."""
    match node:
        case ops.AliasedRelation() | ops.Reference():
            return relations[node.parent]
        case ops.InMemoryTable():
            return _Traced(dict.fromkeys(node.schema.names, _NONE), _NONE)
        case ops.PhysicalTable():
            return _Traced({name: frozenset({(node.name, name)}) for name in node.schema.names}, _NONE)
        case ops.SQLQueryResult() | ops.SQLStringView():
            raise TypeError("columns cannot be traced through SQL as text: write it as an Ibis expression")
        case ops.Project():
            return _Traced({name: values[value] for name, value in node.values.items()}, relations[node.parent].rows)
        case ops.DummyTable():
            return _Traced({name: values[value] for name, value in node.values.items()}, _NONE)
        case ops.Aggregate():
            grouped = {name: values[value] for name, value in node.groups.items()}
            chosen = relations[node.parent].rows | _all(grouped.values())
            return _Traced(grouped | {name: values[value] | chosen for name, value in node.metrics.items()}, chosen)
        case ops.JoinChain():
            chosen = _all(relations[table].rows for table in node.tables) | _all(values[link] for link in node.rest)
            return _Traced({name: values[value] for name, value in node.values.items()}, chosen)
        case ops.Set():
            left, right = relations[node.left], relations[node.right]
            both = {name: left.columns[name] | right.columns[name] for name in left.columns}
            if isinstance(node, ops.Union) and not node.distinct:
                return _Traced(both, left.rows | right.rows)
            kept = both if isinstance(node, ops.Union) else left.columns
            return _Traced(kept, left.rows | right.rows | _all(both.values()))
    parent = relations[node.parent]
    match node:
        case ops.DropColumns():
            return _Traced({name: parent.columns[name] for name in node.schema.names}, parent.rows)
        case ops.TableUnnest():
            more = dict.fromkeys([node.column_name, *([node.offset] if node.offset else [])], values[node.column])
            return _Traced({**parent.columns, **more}, parent.rows | values[node.column])
        case ops.Filter():
            return _Traced(parent.columns, parent.rows | _all(values[predicate] for predicate in node.predicates))
        case ops.Sort():
            # Which row comes first decides as soon as not all are taken.
            return _Traced(parent.columns, parent.rows | _all(values[key] for key in node.keys))
        case ops.Distinct() | ops.DropNull():
            looked_at = getattr(node, "subset", None)
            keys = parent.columns.values() if looked_at is None else (values[column] for column in looked_at)
            return _Traced(parent.columns, parent.rows | _all(keys))
    return parent  # what changes neither columns nor the choice of rows: a limit, a sample, a stand-in for nulls


def _all(parts: Iterable[Origins]) -> Origins:
    return _NONE.union(*parts)
