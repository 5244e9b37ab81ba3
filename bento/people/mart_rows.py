"""The rows of the marts `decisions` and `alerts`, read from the store: no sealed byte is opened, and nothing is written.

`finrisk export` and the asset `marts` run `python -m bento.people.mart_rows FOLDER` in a process of its own. The folder has
``customers.parquet``: the customers of the ledger, each with the name that the marts give it. The rows are written beside it.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Select, bindparam, func, select

from bento.store import migrations
from bento.store.database import Database, StoreError, StoreUnavailable, location
from bento.store.keyring import Keyring, KeyringError
from bento.store.records import UNKNOWN_LOSS
from bento.store.tables import alerts, decisions, feedback, people
from finrisk_assets.settings import Settings, SettingsError
from schemas.ledger import ARROW_TYPES, Table
from schemas.marts import ALERTS, DECISIONS
from schemas.timestamps import from_micros

if TYPE_CHECKING:
    from sqlalchemy import Connection

PAGE_ROWS = 20_000
"""Rows in memory at a time. More take fewer queries and more memory."""
PATIENCE_S = 10.0
"""Seconds to wait for the service to finish what it is writing."""

_NEWEST = select(func.max(feedback.c.position)).group_by(feedback.c.decision)
_LABEL = select(feedback.c.decision, feedback.c.label, feedback.c.known_at).where(feedback.c.position.in_(_NEWEST)).subquery()
_DECISIONS = (
    select(
        *(decisions.c.position, decisions.c.id.label("decision_id"), decisions.c.decided_at, decisions.c.domain),
        *(decisions.c.person, people.c.lookup, decisions.c.decision, decisions.c.probability, decisions.c.route),
        *(decisions.c.model_version, decisions.c.policy_version, decisions.c.caller),
        *(_LABEL.c.label, _LABEL.c.known_at.label("label_known_at")),
    )
    .select_from(decisions.outerjoin(people, decisions.c.person == people.c.person).outerjoin(_LABEL, decisions.c.id == _LABEL.c.decision))
    .where(decisions.c.position > bindparam("after"))
    .order_by(decisions.c.position)
    .limit(PAGE_ROWS)
)
_ALERTS = (
    select(
        *(alerts.c.position, alerts.c.decision.label("alert_id"), alerts.c.opened_at, alerts.c.person, people.c.lookup),
        *(alerts.c.outcome.label("decision"), alerts.c.expected_loss.label("expected_loss_amount"), alerts.c.state, alerts.c.assignee),
        *(alerts.c.claimed_at, alerts.c.disposition, alerts.c.closed_at),
    )
    .select_from(alerts.outerjoin(people, alerts.c.person == people.c.person))
    .where(alerts.c.position > bindparam("after"))
    .order_by(alerts.c.position)
    .limit(PAGE_ROWS)
)


def write_mart_rows(settings: Settings, folder: Path) -> None:
    """Write ``from_store_decisions.parquet`` and ``from_store_alerts.parquet`` to a folder with ``customers.parquet``.

    The rows are in the order of writing. A person is named as ``shown`` of that file says; a person whom the ledger lacks by the
    pseudonymous id, an erased person not at all.

    Raises
    ------
    bento.store.database.StoreError, bento.store.database.StoreUnavailable, bento.store.keyring.KeyringError
        Where the store or its keys cannot be read.
    """
    with closing(Database(location(settings), wait_s=PATIENCE_S)) as database:
        migrations.check(database, upgrades=False)
        with database.reading() as connection:
            names = _read_names(connection, settings, folder / "customers.parquet")
            for table, query in ((DECISIONS, _DECISIONS), (ALERTS, _ALERTS)):
                _write(folder / f"from_store_{table.name}.parquet", table, _read_pages(connection, query, names))


def _read_names(connection: "Connection", settings: Settings, file: Path) -> dict[str, str]:
    """Return the name of each customer of the ledger by the look-up token."""
    from pyarrow.parquet import read_table

    keyring = Keyring.of(settings)
    keyring.unlock(connection, 0)
    customers = read_table(file).to_pydict()
    return {keyring.token("customer", name): shown for name, shown in zip(customers["customer_id"], customers["shown"], strict=True)}


def _read_pages(connection: "Connection", query: Select[Any], names: dict[str, str]) -> Iterator[list[dict[str, Any]]]:
    after = -1
    while True:
        page = [dict(row) for row in connection.execute(query, {"after": after}).mappings()]
        for row in page:
            row["customer_id"] = None if row["lookup"] is None else names.get(row["lookup"], row["person"])
            if row.get("expected_loss_amount") == UNKNOWN_LOSS:
                row["expected_loss_amount"] = None
        yield page
        if len(page) < PAGE_ROWS:
            return
        after = page[-1]["position"]


def _write(file: Path, table: Table, pages: Iterator[Sequence[dict[str, Any]]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(column.name, pa.type_for_alias(ARROW_TYPES[column.dtype])) for column in table.columns])
    times = [column.name for column in table.columns if column.dtype == "timestamp"]
    with pq.ParquetWriter(file, schema) as writer:
        for page in pages:
            for row in page:
                row.update({name: from_micros(row[name]) for name in times if row[name] is not None})
            writer.write_table(pa.Table.from_pylist([{name: row[name] for name in table.names} for row in page], schema))


def main() -> int:
    """Write the rows to the folder of the command line; the exit status is 1, with one sentence, where the store cannot be read."""
    try:
        write_mart_rows(Settings.from_environment(), Path(sys.argv[1]))
    except StoreUnavailable as error:
        sys.stderr.write(f"the service's store is not available now: {error}\n")
    except (SettingsError, StoreError, KeyringError) as error:
        sys.stderr.write(f"{error}\n")
    else:
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
