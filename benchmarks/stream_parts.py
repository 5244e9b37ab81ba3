"""The bare parts of a streamed decision: each alone, in micro-batches, without what binds them together; microseconds of the processor.

The parts work on what a worker really stored: its rows, its sealed bytes, its audit records. What is left of the worker's own time is
look-ups, tokens of the people concerned, checks and the building of answers and rows.
"""

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import islice
from os import urandom
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from pydantic_core import from_json, to_json

from bento.store.audit_chain import RECORD_COLUMNS
from bento.store.database import location
from bento.store.records import encode_json
from bento.store.session import open_store
from finrisk_assets.features.online_chunk import ChunkFeatures, HeldEvents
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings
from schemas.api import TransactionRequest

TABLES = ("transactions", "decisions", "audit", "alerts")
"""The tables into which a decision inserts rows."""
MACS = 6
"""MACs of a decision: the tokens of transaction, customer, merchant and request, and two over its row."""


def cpu_us(part: Callable[[], object], number: int) -> float:
    """Return the processor's microseconds that a call takes for each of so many messages."""
    began = time.process_time()
    part()
    return (time.process_time() - began) / number * 1e6


def split(values: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield micro-batches."""
    waiting = iter(values)
    while batch := list(islice(waiting, size)):
        yield batch


class ChunkRecorder(ChunkFeatures):
    """Features that keep what each chunk was computed from, so that it can be computed again alone."""

    chunks: list[tuple[Sequence[Mapping[str, Any]], HeldEvents]]

    def compute_chunk(self, events: Sequence[Mapping[str, Any]], held: HeldEvents) -> Any:
        self.chunks.append((events, held))
        return super().compute_chunk(events, held)


def measure_parts(
    settings: Settings, home: Path, bundle: Bundle, features: ChunkRecorder, values: Sequence[bytes], answers: Sequence[bytes], size: int
) -> dict[str, float]:
    """Return each part's microseconds for one message.

    Parameters
    ----------
    settings
        The settings of the store in which the messages were decided.
    home
        Folder for a store of the same tables.
    features
        The features that were computed, with their chunks.
    values, answers
        The messages, and their answers.
    size
        Messages of a micro-batch.
    """
    number = len(values)
    rows = read_rows(settings)
    chunks, plain = list(features.chunks), super(ChunkRecorder, features).compute_chunk
    matrix = np.concatenate([plain(*chunk) for chunk in chunks]).astype(np.float32)
    matrices = [matrix[first : first + size] for first in range(0, len(matrix), size)]
    sealed = [row["sealed"] for row in rows["decisions"] + rows["transactions"]]
    records = [tuple(row)[:-1] for row in rows["audit"]]
    decoded = [from_json(answer) for answer in answers]
    return {
        "parse": cpu_us(lambda: [TransactionRequest.model_validate_json(value) for value in values], number),
        "features": cpu_us(lambda: [plain(*chunk) for chunk in chunks], len(matrix)),
        "score, with SHAP values": cpu_us(lambda: [bundle.score(rows_of_batch) for rows_of_batch in matrices], len(matrix)),
        "answers as JSON": cpu_us(lambda: [to_json(answer) for answer in decoded], number),
        "seal": cpu_us(lambda: [AESGCM(bytes(32)).encrypt(urandom(12), blob[28:], b"about") for blob in sealed], number),
        "tokens and MACs": cpu_us(lambda: _compute_macs(values), number),
        "hash the audit": cpu_us(lambda: [hashlib.sha256(encode_json(record).encode()).hexdigest() for record in records], number),
        "store the rows": _measure_inserts(replace(settings, home=home), rows, number, size),
    }


def read_rows(settings: Settings) -> dict[str, list[sqlite3.Row]]:
    """Return the rows that decisions inserted, by table."""
    file = location(settings)
    audit = ", ".join(column.name for column in RECORD_COLUMNS)
    queries = {name: f"select * from {name}" for name in TABLES} | {"audit": f"select {audit} from audit order by number"}
    queries["transactions"] += " where sealed is not null"
    with closing(sqlite3.connect(file)) as connection:
        connection.row_factory = sqlite3.Row
        return {name: connection.execute(query).fetchall() for name, query in queries.items()}


def _compute_macs(values: Sequence[bytes]) -> None:
    keyed = HMAC(bytes(32), SHA256())
    for value in values:
        for _ in range(MACS):
            mac = keyed.copy()
            mac.update(value)
            mac.finalize().hex()


def _measure_inserts(settings: Settings, rows: Mapping[str, Sequence[sqlite3.Row]], number: int, size: int) -> float:
    """Insert the rows into empty tables with the driver alone, one durable commit for each micro-batch."""
    open_store(settings).close()
    with closing(sqlite3.connect(location(settings), isolation_level=None)) as connection:
        for pragma in ("journal_mode = wal", "synchronous = full", "cache_size = -32000", "secure_delete = on"):
            connection.execute(f"pragma {pragma}")
        connection.execute("delete from audit")
        statements = {
            name: f"insert into {name} ({', '.join(of_table[0].keys())}) values ({', '.join('?' * len(of_table[0]))})"
            for name, of_table in rows.items()
            if of_table
        }
        n_batches = -(-number // size)

        def insert() -> None:
            for batch in range(n_batches):
                connection.execute("begin immediate")
                for name, statement in statements.items():
                    of_table = rows[name]
                    first, last = len(of_table) * batch // n_batches, len(of_table) * (batch + 1) // n_batches
                    connection.executemany(statement, of_table[first:last])
                connection.execute("commit")

        return cpu_us(insert, number)
