"""Export of analysts' labels from the service's store to the ledger: `finrisk load-feedback`.

The labels become a file for each table of the ledger, and land with that table: see `ledger.sources.feedback`.
"""

import os
from contextlib import closing
from typing import NamedTuple

from bento.decisions.feedback import list_labels
from bento.store.session import open_store
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.sources.feedback import LABEL_COLUMNS, SCHEMA, labels_file
from finrisk_assets.settings import Settings


class LabelFile(NamedTuple):
    """The labels written for label table of the ledger."""

    table: str
    labels: int
    months: tuple[str, ...]
    """Months in which the labels became known, in order."""

    def __str__(self) -> str:
        return f"{self.table}: {self.labels:,} labels" + (f", known in {self.months[0]} to {self.months[-1]}" if self.months else "")


def load(settings: Settings) -> list[LabelFile]:
    """Write every label in the store to the files of the ledger; the same labels give the same files."""
    source = sources.load(settings)
    with closing(open_store(settings)) as store:
        feedback = [(labels, list(list_labels(store, labels.domain))) for labels in LABEL_COLUMNS if labels.table in source.tables]
    files = []
    for labels, domain_labels in feedback:
        # The last label of a row counts, because it became known last.
        newest = {str(label.answer[labels.key]): label for label in domain_labels if label.answer.get(labels.key) is not None}
        _write(settings, labels.table, [(key, label.label, label.known_at) for key, label in sorted(newest.items())])
        months = sorted({f"{label.known_at:%Y-%m}" for label in newest.values()})
        files.append(LabelFile(labels.table, len(newest), tuple(months)))
    return files


def _write(settings: Settings, table: str, rows: list[tuple[str, bool, object]]) -> None:
    """Replace the rows of a table's label file atomically; without rows, no new file is created."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = labels_file(settings.root, table)
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
