"""Functions that Spark's workers carry out. They load this module by its name, so it imports no more than they need."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pyarrow as pa

PACKED = "packed"
"""The one column of rows that are whole Arrow batches."""
CHECKPOINT_ROUNDS = 20
"""Rounds of boosting after which the model is stored: of a worker's failure no more rounds are lost."""


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


def join_batches(
    n_rows: int, work: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]], batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Yield what a function makes of the batches, joined to batches of at least so many rows."""

    def join() -> Iterator[pa.RecordBatch]:
        waiting: list[pa.RecordBatch] = []
        for batch in batches:
            waiting.append(batch)
            if sum(map(len, waiting)) >= n_rows:
                yield pa.concat_batches(waiting)
                waiting = []
        if waiting:
            yield pa.concat_batches(waiting)

    return work(join())


def normalise_nfc(text: str | None) -> str | None:
    """Return a text in Unicode's form NFC."""
    return None if text is None else normalize("NFC", text)


def write_float(value: float | None) -> str | None:
    """Return a number as text, in the fewest digits that read back as the same number."""
    return None if value is None else repr(value)


@dataclass(frozen=True)
class BoostingTask:
    """The model that a group of workers fits together.

    Attributes
    ----------
    parameters, rounds
        XGBoost's parameters, and the number of rounds in all.
    group
        Arguments of XGBoost's tracker, by which the workers of the group find each other.
    begun
        A model with fewer rounds, from which the fit goes on; None where it begins.
    checkpoint
        The file that holds the model after every `CHECKPOINT_ROUNDS`, for a group that goes on after this one.
    progress
        The file whose time says when the group last got on.
    """

    parameters: Mapping[str, Any]
    rounds: int
    group: Mapping[str, str | int]
    begun: bytes | None
    checkpoint: Path
    progress: Path


def boost(task: BoostingTask, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Fit a boosted model to the rows of all workers of a group; yield the number of rows here, and at the first worker the model.

    Parameters
    ----------
    batches
        With ``label`` and ``features``, a list of as many numbers in every row, NaN where missing.
    """
    import numpy as np
    import xgboost
    from pyspark import TaskContext
    from xgboost import collective

    labels, parts = [], []
    for batch in batches:
        labels.append(batch["label"].to_numpy())
        parts.append(batch["features"].flatten().to_numpy().reshape(len(batch), -1))
        task.progress.touch()
    here: Any = TaskContext.get()
    with collective.CommunicatorContext(**task.group, dmlc_task_id=f"{here.partitionId():06}"):
        rows = xgboost.QuantileDMatrix(
            np.concatenate(parts), np.concatenate(labels), nthread=here.cpus(), max_bin=task.parameters.get("max_bin", 256)
        )
        del parts
        begun = None if task.begun is None else xgboost.Booster(model_file=bytearray(task.begun))
        model = xgboost.train(
            # Each round draws by its own number: a group that goes on draws what the first one would have drawn.
            {**task.parameters, "nthread": here.cpus(), "seed_per_iteration": True},
            rows,
            task.rounds - (begun.num_boosted_rounds() if begun else 0),
            xgb_model=begun,
            callbacks=[_build_checkpoints(task)] if collective.get_rank() == 0 else [],
        )
        is_first = collective.get_rank() == 0
    made = bytes(model.save_raw("ubj")) if is_first else None
    yield pa.RecordBatch.from_pydict({"rows": [rows.num_row()], "model": pa.array([made], pa.binary())})


def _build_checkpoints(task: BoostingTask) -> Any:
    """Return XGBoost's callback that says that the group got on, and stores the model now and then."""
    from xgboost.callback import TrainingCallback

    class Checkpoints(TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            task.progress.touch()
            if (epoch + 1) % CHECKPOINT_ROUNDS == 0:
                part = task.checkpoint.with_suffix(".part")
                part.write_bytes(model.save_raw("ubj"))
                part.replace(task.checkpoint)
            return False

    return Checkpoints()
