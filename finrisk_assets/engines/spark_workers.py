"""Functions that Spark's workers carry out. They load this module by its name, so it imports no more than they need."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from unicodedata import normalize

import pyarrow as pa

PACKED = "packed"
"""The one column of rows that are whole Arrow batches."""


def pack(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield each batch as one row that holds its bytes, for an iterator of rows to carry it to the driver."""
    for batch in batches:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        yield pa.RecordBatch.from_arrays([pa.array([sink.getvalue().to_pybytes()], pa.binary())], [PACKED])


def unpack(row: bytes) -> pa.Table:
    """Return the batch that a row of `pack` holds."""
    with pa.ipc.open_stream(row) as reader:
        return reader.read_all()


def rename_columns(
    names: Sequence[str], work: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]], batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Yield what a function makes of the batches under their own names, which travel apart from them."""
    return work(batch.rename_columns(list(names)) for batch in batches)


def map_each(score: Callable[[pa.RecordBatch], pa.RecordBatch], batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield what a function makes of each batch."""
    yield from map(score, batches)


def normalise_nfc(text: str | None) -> str | None:
    """Return a text in Unicode's form NFC."""
    return None if text is None else normalize("NFC", text)


def write_float(value: float | None) -> str | None:
    """Return a number as text, in the fewest digits that read back as the same number."""
    return None if value is None else repr(value)
