"""Transactions sent to the stream's topic as a bank's systems would send them: those of the ledger, or of a file.

The command `finrisk simulate stream` runs it. The ledger's transactions go out under new identifiers, moved in time so that the first one
happens now and the distances stay: customers go on from the history that the service has of them.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from bento.store.bulk_load import read_transactions
from bento.store.records import Transaction
from bento.stream.kafka_clients import check_topics, open_producer
from finrisk_assets.settings import Settings

REPORT_INTERVAL_S = 1.0
"""Seconds between two reports of progress."""
CHUNK = 5_000
"""Rows of a batch read from the warehouse."""
LINGER_MS = 5
"""Milliseconds for which messages are gathered. More take fewer requests of the broker."""


class SimulateStreamError(RuntimeError):
    """Transactions that cannot be sent; the message says what to do."""


class StreamMessage(NamedTuple):
    """A message's key, which decides its partition, and its value."""

    key: bytes
    value: bytes


class SendReport(NamedTuple):
    """The progress of sending: messages that the brokers have, and the seconds it took."""

    sent: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.sent:,} transactions sent in {self.seconds:.1f} s, {self.sent / max(self.seconds, 1e-9):,.0f} a second"


def read_ledger(settings: Settings, limit: int | None, start: datetime) -> Iterator[StreamMessage]:
    """Yield the ledger's newest transactions as messages, in the order of their times.

    Parameters
    ----------
    limit
        Number of transactions; None for all.
    start
        The new time of the first one, naive UTC.

    Raises
    ------
    SimulateStreamError
        Where the graph has not made the transactions of this source yet.
    """
    import ibis

    from finrisk_assets.graph.warehouse import Warehouse

    warehouse = Warehouse.of(settings)
    if not warehouse.has("validated_transactions"):
        raise SimulateStreamError(
            f"the warehouse of the source {settings.source} has no validated_transactions: run `make demo` first, or name a file"
        )
    table = warehouse.table("validated_transactions")
    columns = [name for name in Transaction._fields if name in table.columns and name not in ("is_fraud", "label_known_at")]
    ordered = [table.occurred_at, table.transaction_id]
    newest = table.select(*columns).order_by([ibis.desc(column.get_name()) for column in ordered])
    chosen = newest.limit(limit) if limit is not None else newest
    rows = chosen.order_by([column.get_name() for column in ordered]).to_pyarrow_batches(chunk_size=CHUNK)
    return _move((Transaction(**row) for batch in rows for row in batch.to_pylist()), start)


def read_file(file: Path, start: datetime) -> Iterator[StreamMessage]:
    """Yield the transactions of a file as messages: Parquet with the ledger's columns, or JSON Lines, whose lines are sent as they are.

    Raises
    ------
    SimulateStreamError
        Where the file cannot be read.
    """
    try:
        if file.suffix == ".parquet":
            yield from _move(read_transactions(file), start)
            return
        with file.open("rb") as lines:
            for line in lines:
                yield StreamMessage(_find_key(line), line.rstrip(b"\r\n"))
    except (OSError, ValueError) as error:
        raise SimulateStreamError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from None


def send_messages(
    settings: Settings,
    messages: Iterable[StreamMessage],
    rate: float | None,
    duration_s: float | None,
    report: Callable[[SendReport], None] = lambda _: None,
) -> SendReport:
    """Send messages at a steady rate, and return once the brokers have them.

    Parameters
    ----------
    rate
        Messages a second; None for as many as the brokers take.
    duration_s
        Seconds to send for; None until there are no more.
    report
        Called with the progress every `REPORT_INTERVAL_S`.

    Raises
    ------
    bento.stream.kafka_clients.StreamError
        Where no broker answers, or a topic is missing.
    """
    check_topics(settings)
    producer = open_producer(settings, **{"linger.ms": LINGER_MS})
    began = reported = time.monotonic()
    number = 0
    try:
        for message in messages:
            now = time.monotonic()
            due = began if rate is None else began + number / rate
            if duration_s is not None and max(now, due) - began >= duration_s:
                break
            if due > now:
                producer.poll(0)
                time.sleep(due - now)
            while True:
                try:
                    producer.produce(settings.stream_topic, message.value, message.key)
                    break
                except BufferError:  # the brokers are slower than this loop
                    producer.poll(0.1)
            number += 1
            if now - reported >= REPORT_INTERVAL_S:
                reported = now
                producer.poll(0)
                report(SendReport(number - len(producer), now - began))
    finally:
        producer.flush()
    return SendReport(number, time.monotonic() - began)


def _move(transactions: Iterable[Transaction], start: datetime) -> Iterator[StreamMessage]:
    """Yield transactions as messages, the first of them at a new time."""
    shift, suffix = None, f"@{start:%Y%m%dT%H%M%S}"
    for transaction in transactions:
        if shift is None:
            shift = start - transaction.occurred_at
        body: dict[str, Any] = {
            "transaction_id": transaction.transaction_id + suffix,
            "user_id": transaction.customer_id,
            "amount": transaction.amount,
            "timestamp": (transaction.occurred_at + shift).isoformat(),
            "direction": transaction.direction,
        }
        body |= {name: value for name in ("merchant", "country") if (value := getattr(transaction, name)) is not None}
        yield StreamMessage(transaction.customer_id.encode(), json.dumps(body).encode())


def _find_key(line: bytes) -> bytes:
    """Return the user of a line, so that all their transactions are in one partition; nothing where the line has none."""
    try:
        body = json.loads(line)
    except ValueError:
        return b""
    return str(body.get("user_id", "")).encode() if isinstance(body, dict) else b""
