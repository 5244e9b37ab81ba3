"""Labels that analysts gave to the service's decisions, on their way into the ledger: `finrisk load-feedback`.

The service keeps them in its store; here they become a file for each table of the ledger, which lands with them: see
`ledger.sources.feedback`.
"""

import os
from contextlib import closing
from typing import NamedTuple

from bento.decisions.feedback import told
from bento.store.session import open_store
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.sources.feedback import SCHEMA, TOLD, file_of
from finrisk_assets.settings import Settings


class Written(NamedTuple):
    """What the ledger will find."""

    table: str
    labels: int
    months: tuple[str, ...]
    """In which they became known."""

    def __str__(self) -> str:
        return f"{self.table}: {self.labels:,} labels" + (f", known in {self.months[0]} to {self.months[-1]}" if self.months else "")


def load(settings: Settings) -> list[Written]:
    """Write what analysts told of decisions for the ledger, all of it anew: the same labels give the same files."""
    source = sources.load(settings)
    with closing(open_store(settings)) as store:
        found = [(labels, list(told(store, labels.domain))) for labels in TOLD if labels.table in source.tables]
    written = []
    for labels, one_by_one in found:
        # Of a row the last one stands: it became known last.
        newest = {str(one.answer[labels.key]): one for one in one_by_one if one.answer.get(labels.key) is not None}
        _write(settings, labels.table, [(key, one.label, one.known_at) for key, one in sorted(newest.items())])
        months = sorted({f"{one.known_at:%Y-%m}" for one in newest.values()})
        written.append(Written(labels.table, len(newest), tuple(months)))
    return written


def _write(settings: Settings, table: str, rows: list[tuple[str, bool, object]]) -> None:
    """Put rows in the place of those that the file holds, all or none; no file where there is nothing and never was."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = file_of(settings.root, table)
    if not rows and not file.is_file():
        return
    types = {"string": pa.string(), "boolean": pa.bool_(), "timestamp": pa.timestamp("us")}
    schema = pa.schema([(name, types[kind]) for name, kind in SCHEMA.items()])
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), fresh)
    os.replace(fresh, file)
