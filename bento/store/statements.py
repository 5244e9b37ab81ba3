"""Statements that are compiled once for each kind of database and then go straight to the driver. No table is named here."""

import json
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, Column, ColumnElement, Connection, Insert, Select, Text, any_, bindparam, exc, func, select

_INTEGRITY_CLASS = "23"
"""First digits of PostgreSQL's error codes for violated constraints."""


class CompiledStatement:
    """A statement whose text is compiled once for each kind of database and sent straight to the driver.

    SQLAlchemy takes longer to execute a statement of the request's path than SQLite does. On PostgreSQL the statement is prepared once for
    each connection: then it takes one round trip, where the driver's cursor takes three. Values come back as the driver returns them: on
    SQLite a boolean is 0 or 1.

    Parameters
    ----------
    statement
        A statement without values of its own: every parameter is given at each call.
    names
        The columns of an insert.
    """

    def __init__(self, statement: Any, names: Sequence[str] | None = None) -> None:
        self._statement = statement
        self._names = None if names is None else list(names)
        self._text: dict[tuple[str, bool], tuple[str, Sequence[str]]] = {}

    def __call__(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        """Execute the statement in the connection's transaction and return the driver's cursor, or what answers like it.

        Raises
        ------
        sqlalchemy.exc.IntegrityError
            As where SQLAlchemy executes the statement.
        """
        statement, names = self._compile(connection)
        return _run(connection, "execute", statement, [values[name] for name in names])

    def execute_many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Execute an insert of rows and return the driver's cursor, or what answers like it; on PostgreSQL it is one statement.

        Raises
        ------
        sqlalchemy.exc.IntegrityError
            As where SQLAlchemy executes the statement.
        """
        if connection.dialect.name == "postgresql":
            statement, names = self._compile(connection, unnests=True)
            return _run(connection, "execute", statement, [[row[name] for row in rows] for name in names])
        statement, names = self._compile(connection)
        take: Any = itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],)
        return _run(connection, "executemany", statement, [*map(take, rows)])

    def _compile(self, connection: Connection, *, unnests: bool = False) -> tuple[str, Sequence[str]]:
        key = connection.dialect.name, unnests
        if key not in self._text:
            dialect, statement = connection.dialect, self._unnest() if unnests else self._statement
            if dialect.name == "postgresql":
                numbered: Any = type(dialect)
                dialect = numbered(paramstyle="numeric_dollar")  # of prepared statements
            compiled: Any = statement.compile(dialect=dialect, column_keys=self._names)
            self._text[key] = str(compiled), tuple(compiled.positiontup)
        return self._text[key]

    def _unnest(self) -> Insert:
        """Return the insert of many rows that are given as an array for each column."""
        statement, names = self._statement, self._names or []
        arrays = [bindparam(name, type_=ARRAY(statement.table.c[name].type)) for name in names]
        return statement.from_select(names, select(func.unnest(*arrays).table_valued(*names).render_derived()), include_defaults=False)


class TextsQuery:
    """A query of the rows in which a column has one of several texts, compiled once however many they are.

    Parameters
    ----------
    query
        The query without the condition on the column.
    column
        A column with an index.
    """

    def __init__(self, query: Select[Any], column: Column[str]) -> None:
        texts = func.json_each(bindparam("texts")).table_valued("value")
        conditions: dict[str, ColumnElement[bool]] = {
            "sqlite": column.in_(select(texts.c.value)),
            "postgresql": column == any_(bindparam("texts", type_=ARRAY(Text))),
        }
        self._statements = {dialect: CompiledStatement(query.where(condition)) for dialect, condition in conditions.items()}

    def __call__(self, connection: Connection, texts: Iterable[str]) -> Sequence[Any]:
        """Return the rows in which the column has one of these texts; values as of `CompiledStatement`."""
        dialect, listed = connection.dialect.name, [*texts]
        rows: Sequence[Any] = self._statements[dialect](
            connection, {"texts": json.dumps(listed) if dialect == "sqlite" else listed}
        ).fetchall()
        return rows


class PreparedResult(NamedTuple):
    """The result of a prepared statement of PostgreSQL, as a cursor answers."""

    rows: list[Sequence[Any]]
    rowcount: int

    def fetchone(self) -> Sequence[Any] | None:
        """Return the first row."""
        return self.rows[0] if self.rows else None

    def fetchall(self) -> list[Sequence[Any]]:
        """Return all rows."""
        return self.rows


def _run(connection: Connection, execute: str, statement: str, values: Sequence[Any]) -> Any:
    try:
        if connection.dialect.name == "postgresql":
            return _run_prepared(connection, statement, values)
        cursor: Any = connection.connection.cursor()
        getattr(cursor, execute)(statement, values)
    except Exception as error:
        if type(error).__name__ == "IntegrityError" or _is_integrity_error(error):  # each driver has its own class
            raise exc.IntegrityError(statement, None, error) from None
        raise
    return cursor


def _is_integrity_error(error: Exception) -> bool:
    """Return whether an error of pg8000, whose argument holds the fields of the server's message, is a violated constraint."""
    fields = error.args[0] if error.args else None
    return isinstance(fields, dict) and str(fields.get("C")).startswith(_INTEGRITY_CLASS)


def _run_prepared(connection: Connection, statement: str, values: Sequence[Any]) -> PreparedResult:
    from pg8000.converters import make_params  # type: ignore[import-untyped] # not needed by a store on SQLite

    driver: Any = connection.connection.driver_connection
    prepared = connection.info.setdefault("prepared", {})  # as long as the driver's connection
    if statement not in prepared:
        prepared[statement] = driver.prepare_statement(statement, ())
    name, columns, functions = prepared[statement]
    context = driver.execute_named(name, make_params(driver.py_types, values), columns, functions, statement)
    return PreparedResult(context.rows or [], context.row_count)
