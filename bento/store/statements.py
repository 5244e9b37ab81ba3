"""Statements that are compiled once for each kind of database and then go straight to the driver. No table is named here."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, exc


class CompiledStatement:
    """A statement whose text is compiled once for each kind of database and sent straight to the driver.

    SQLAlchemy takes longer to execute a statement of the request's path than SQLite does. Values come back as the driver returns them:
    on SQLite a boolean is 0 or 1.

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
        self._text: dict[str, tuple[str, Sequence[str]]] = {}

    def __call__(self, connection: Connection, values: Mapping[str, Any]) -> Any:
        """Execute the statement in the connection's transaction and return the driver's cursor.

        Raises
        ------
        sqlalchemy.exc.IntegrityError
            As where SQLAlchemy executes the statement.
        """
        statement, names = self._compile(connection)
        return self._run(connection, "execute", statement, [values[name] for name in names])

    def execute_many(self, connection: Connection, rows: Sequence[Mapping[str, Any]]) -> Any:
        """Execute the statement for every row and return the driver's cursor.

        Raises
        ------
        sqlalchemy.exc.IntegrityError
            As where SQLAlchemy executes the statement.
        """
        statement, names = self._compile(connection)
        return self._run(connection, "executemany", statement, [[row[name] for name in names] for row in rows])

    def _run(self, connection: Connection, execute: str, statement: str, values: Sequence[Any]) -> Any:
        cursor: Any = connection.connection.cursor()
        try:
            getattr(cursor, execute)(statement, values)
        except Exception as error:
            if type(error).__name__ == "IntegrityError":  # each driver has its own class
                raise exc.IntegrityError(statement, None, error) from None
            raise
        return cursor

    def _compile(self, connection: Connection) -> tuple[str, Sequence[str]]:
        dialect = connection.dialect
        if dialect.name not in self._text:
            compiled: Any = self._statement.compile(dialect=dialect, column_keys=self._names)
            self._text[dialect.name] = str(compiled), tuple(compiled.positiontup)
        return self._text[dialect.name]
