"""The Handbook's September 2018 through the stream, beside the batch evaluation of the same champion.

    python -m benchmarks.stream_handbook [--days 30] [--every 1]

The champion learns from what was known on 1 September. A worker then decides on the transactions from 25 August on, day by day, over a
store that has those before. Every label from 25 August on comes to the store by `feedback.record`, which `POST /v1/feedback` calls: at the
beginning of the day on which it becomes known, a week after its transaction, with the moment of that day from which it is known. The
batch path computes features and scores over the whole ledger at once. Each score must be the same, and with it average precision and
CP@100. `--every 10` takes every tenth customer. Needs the real data (FINRISK_DATA_DIR) and Java 17.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import ibis
import numpy as np

from benchmarks.handbook import validated_transactions
from bento.decisions import feedback
from bento.store.bulk_load import read_transactions
from bento.store.records import Transaction
from bento.store.session import open_store
from bento.stream.kafka_clients import open_consumer
from bento.stream.messages import DOMAIN
from finrisk_assets.domains.transaction_anomaly import features
from finrisk_assets.domains.transaction_anomaly.definition import TRANSACTION_ANOMALY, lookback
from finrisk_assets.graph import packaging
from finrisk_assets.graph.stages.common import load_frame
from finrisk_assets.ledger.sources import handbook
from finrisk_assets.modelling.evaluation.fraud_metrics import fraud_scores
from finrisk_assets.policy.policy_file import load_policy
from finrisk_assets.scoring.bundle import Bundle, write
from finrisk_assets.settings import Settings
from schemas.api import FeedbackRequest
from tests.stream.broker import Broker, started
from tests.stream.topics import Stream, WorkerProcess, processes

if TYPE_CHECKING:
    import pandas as pd

SEPTEMBER = datetime(2018, 9, 1)
DAY, DELAY = timedelta(days=1), timedelta(days=handbook.LABEL_DELAY_DAYS)
FIRST = SEPTEMBER - DELAY
"""Begin of the stream: every label that becomes known from `SEPTEMBER` on is of a transaction that the worker has decided."""
LABELS_AT_ONCE = 1_000
"""Labels of one transaction of the store."""
PATIENCE_S = 120.0
"""Seconds for which labels wait while the worker has the store."""


@dataclass(frozen=True)
class Outcome:
    """The days from `SEPTEMBER` on, decided on both ways.

    Attributes
    ----------
    batch, stream
        Transactions with `score` and `decision` of each path, in the same order.
    sent
        Number of messages.
    seconds
        Seconds in which the worker decided on them, without those in which labels were recorded.
    """

    batch: "pd.DataFrame"
    stream: "pd.DataFrame"
    sent: int
    seconds: float


def compare_paths(settings: Settings, broker: Broker, folder: Path, days: int, every: int = 1) -> Outcome:
    """Decide on the first days of September on both ways.

    Parameters
    ----------
    days
        Days of September.
    every
        Number of customers of whom one is taken: 1 for all.
    """
    import pandas as pd

    settings = replace(settings, source="handbook", as_of=SEPTEMBER)
    connection = ibis.duckdb.connect(threads=settings.threads)
    transactions, filled = validated_transactions(connection, settings, folder)
    chosen = transactions.filter(transactions.customer_id.cast("int64") % every == 0)
    ledger = connection.create_table("ledger", chosen.filter(chosen.occurred_at < SEPTEMBER + days * DAY))
    table = connection.create_table("features", features.build(ledger, features.select_features(filled)))
    bundle = train_champion(table, settings, folder / "bundle")
    batch = load_frame(table.filter(table.occurred_at >= SEPTEMBER), TRANSACTION_ANOMALY)
    scored = TRANSACTION_ANOMALY.score(batch, bundle)
    batch = batch.assign(score=scored["score"], decision=scored["decision"])

    since = FIRST - lookback(handbook.source(settings)) - DAY
    history = folder / "history.parquet"
    ledger.filter((ledger.occurred_at >= since) & (ledger.occurred_at < FIRST)).select(*Transaction._fields).to_parquet(str(history))
    sent = ledger.filter(ledger.occurred_at >= FIRST).order_by("occurred_at", "transaction_id").to_pandas()
    connection.disconnect()
    answers, seconds = stream_days(broker, folder, history, sent)
    stream = batch[["transaction_id"]].merge(pd.DataFrame(answers), on="transaction_id", how="left", validate="one_to_one")
    return Outcome(batch, stream, len(sent), seconds)


def train_champion(table: ibis.Table, settings: Settings, folder: Path) -> Bundle:
    """Return the champion of the transactions whose labels are known on the day of the settings, written to a folder."""
    known = load_frame(table.filter(table.occurred_at < settings.now), TRANSACTION_ANOMALY)
    source = handbook.source(settings)
    frame = TRANSACTION_ANOMALY.labelled_rows(known, settings)
    trained = TRANSACTION_ANOMALY.train(frame, TRANSACTION_ANOMALY.select_features(source), source, settings)
    write(folder, trained.spec)
    return Bundle.load(folder, threads=settings.threads).under(load_policy(settings))


def stream_days(broker: Broker, folder: Path, history: Path, sent: "pd.DataFrame") -> tuple[list[dict[str, Any]], float]:
    """Let a worker decide on transactions day by day; return identifier, score and decision of each, and the seconds it took.

    Parameters
    ----------
    history
        File of the transactions before, with their labels.
    sent
        The transactions that are sent, in the order of their times; their labels are recorded when they become known.
    """
    stream = _open_stream(broker, folder)
    packaging.store_model(folder / "models", DOMAIN, folder / "bundle", {})
    days = sent.occurred_at.dt.floor("D")
    answers: list[dict[str, Any]] = []
    seconds = 0.0
    worker = WorkerProcess(stream.settings, folder / "models", folder / "worker.log")
    with closing(open_store(stream.settings, wait_s=PATIENCE_S)) as store, processes(worker):
        store.load_transactions(read_transactions(history))
        worker.wait_until_ready()
        consumer = open_consumer(stream.settings, uuid4().hex)
        consumer.subscribe([stream.settings.stream_decisions])
        for day in days.unique():
            for requests in _list_labels(sent[days == day - DELAY]):
                with store.writing():
                    for request in requests:
                        feedback.record(store, request)
            began = time.perf_counter()
            stream.send([_to_message(row) for row in sent[days == day].itertuples(index=False)])
            n_decided = int((days <= day).sum())
            while len(answers) < n_decided:
                assert worker.process.poll() is None, worker.log.read_text()
                for message in consumer.consume(1_000, 0.2):
                    if message.error() is None:
                        answer = json.loads(message.value() or b"")
                        answers.append({name: answer[name] for name in ("transaction_id", "score", "decision")})
            seconds += time.perf_counter() - began
        consumer.close()
        assert worker.stop() == 0, worker.log.read_text()
    return answers, seconds


def _open_stream(broker: Broker, folder: Path) -> Stream:
    name = f"h{uuid4().hex[:8]}"
    names = {"stream_topic": name, "stream_decisions": f"{name}-decisions", "stream_group": f"{name}-group"}
    return Stream(Settings(source="handbook", home=folder / "home", kafka=broker.address, **names), 1)  # type: ignore[arg-type]


def _list_labels(transactions: "pd.DataFrame") -> Iterator[list[FeedbackRequest]]:
    """Yield the labels of transactions as an analyst's system would send them."""
    requests = [
        FeedbackRequest(transaction_id=row.transaction_id, label=bool(row.is_fraud), known_at=row.label_known_at.to_pydatetime())
        for row in transactions.itertuples(index=False)
    ]
    for at in range(0, len(requests), LABELS_AT_ONCE):
        yield requests[at : at + LABELS_AT_ONCE]


def _to_message(row: Any) -> dict[str, Any]:
    return {
        "transaction_id": row.transaction_id,
        "user_id": row.customer_id,
        "amount": row.amount,
        "timestamp": row.occurred_at.isoformat(),
        "direction": row.direction,
        "merchant": row.merchant,
    }


def judge(outcome: Outcome) -> dict[str, tuple[float, float]]:
    """Return average precision and CP@100 of the batch evaluation and of the stream."""
    rows = outcome.batch
    of_day, fraud = rows.occurred_at.to_numpy().astype("datetime64[D]"), rows.is_fraud.to_numpy(bool)
    batch, stream = (
        fraud_scores(of_day, rows.customer_id.to_numpy(), fraud, path.score.to_numpy()) for path in (outcome.batch, outcome.stream)
    )
    return {name: (batch[name], stream[name]) for name in ("ap", "card_precision_at_100")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=30, help="of September")
    parser.add_argument("--every", type=int, default=1, help="take one of so many customers")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="finrisk-handbook-") as name, started(Path(name) / "kafka") as broker:
        outcome = compare_paths(Settings.from_environment(), broker, Path(name), given.days, given.every)
    n, n_frauds = len(outcome.batch), int(outcome.batch.is_fraud.sum())
    gap = float(np.abs(outcome.batch.score.to_numpy() - outcome.stream.score.to_numpy()).max())
    n_other = int((outcome.batch.decision != outcome.stream.decision).sum())
    print(f"{outcome.sent:,} transactions decided in {outcome.seconds:.0f} s, {n:,} of them in September, {n_frauds:,} fraud")
    figures = judge(outcome)
    for title, (batch, stream) in zip(("average precision", "CP@100"), figures.values(), strict=True):
        print(f"  {title:18} batch {batch:.6f}   stream {stream:.6f}")
    print(f"  largest distance of two scores {gap:.2e}; {n_other:,} decisions differ")
    is_equal = gap == 0.0 and n_other == 0 and all(batch == stream for batch, stream in figures.values())
    print("the stream equals the batch evaluation" if is_equal else "the stream DIFFERS from the batch evaluation")
    return 0 if is_equal else 1


if __name__ == "__main__":
    sys.exit(main())
