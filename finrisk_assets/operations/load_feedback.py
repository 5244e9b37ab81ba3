"""Export of analysts' labels from the service's store to the ledger: `finrisk load-feedback`.

The labels become a file for each table of the ledger, and land with that table: see `ledger.sources.feedback`. Only labels that the audit
has recorded are exported: a row that was written into the store's database is no label.
"""

import os
from contextlib import closing
from typing import NamedTuple

from bento.decisions.feedback import list_labels, match_labels
from bento.store import audit_verify
from bento.store.audit_chain import AuditError
from bento.store.session import Store, open_store
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.sources.feedback import LABEL_COLUMNS, SCHEMA, labels_file
from finrisk_assets.settings import Settings


class LabelFile(NamedTuple):
    """The labels written for label table of the ledger."""

    table: str
    labels: int
    months: tuple[str, ...]
    """Months in which the labels became known, in order."""
    refused: int
    """Rows in the store that the audit has not recorded."""

    def __str__(self) -> str:
        known = f", known in {self.months[0]} to {self.months[-1]}" if self.months else ""
        refused = f"; {self.refused:,} refused: the audit has no record of them, so the service did not write them" if self.refused else ""
        return f"{self.table}: {self.labels:,} labels{known}{refused}"


def load(settings: Settings) -> list[LabelFile]:
    """Write every recorded label in the store to the files of the ledger; the same labels give the same files.

    Raises
    ------
    bento.store.audit_chain.AuditError
        Where the audit is broken, or a recorded label is missing in the store or in another order: no file is changed.
    """
    source = sources.load(settings)
    with closing(open_store(settings)) as store:
        _check_audit(store)
        feedback = [(labels, list_labels(store, labels.domain)) for labels in LABEL_COLUMNS if labels.table in source.tables]
    files = []
    for labels, (domain_labels, refused) in feedback:
        # The last label of a row counts, because it became known last.
        newest = {str(label.answer[labels.key]): label for label in domain_labels if label.answer.get(labels.key) is not None}
        _write(settings, labels.table, [(key, label.label, label.known_at) for key, label in sorted(newest.items())])
        months = sorted({f"{label.known_at:%Y-%m}" for label in newest.values()})
        files.append(LabelFile(labels.table, len(newest), tuple(months), refused))
    return files


def _check_audit(store: Store) -> None:
    """Refuse to export labels of a store whose audit does not say which labels there are."""
    broken = audit_verify.verify(store.database, store.keyring).broken
    if broken is not None:
        raise AuditError(f"no label was loaded, because the audit is broken: {broken}; run `finrisk audit verify`")
    with store.reading() as connection:
        match = match_labels(connection, store.keyring.mac)
    if match.missing:
        raise AuditError(
            f"no label was loaded: {len(match.missing):,} labels of the audit are missing in the store; run `finrisk audit verify`"
        )
    if match.reordered:
        raise AuditError(f"no label was loaded: the order of {len(match.reordered):,} labels was changed; run `finrisk audit verify`")


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
