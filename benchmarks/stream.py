"""The stream on a Kafka of this machine: decisions a second, their delay, the worker's processor time beside its bare parts, recovery.

    python -m benchmarks.stream [--messages 50000] [--rounds 3] [--batch 512] [--usual 500]

Broker, producer and worker share the machine. The worker takes the champion of FINRISK_HOME/<source> and an SQLite store of its own; the
messages are the ledger's movements under new identifiers. Each figure is the median of the rounds, except the percentile, which is over
all messages of a round at half of the reached rate. A bare round trip is a message that is produced and consumed with nothing between.

The usual consumer (`peers.usual_consumer`) decides some messages of the same run. `--messages 1000000 --rounds 1` is the long run: the
memory is looked at ten times on the way, and each message must have one decision in the store.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import cast
from uuid import uuid4

import numpy as np
import psutil  # type: ignore[import-untyped]
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

from benchmarks.micro_batches import movements
from benchmarks.peers.usual_consumer import consume, pickle_model
from benchmarks.stream_parts import ChunkRecorder, cpu_us, measure_parts, split
from bento.context import request_id
from bento.decisions.engine import ChunkItem, Decisions
from bento.decisions.models import Champions
from bento.decisions.scorers.transaction import TransactionScorer
from bento.decisions.scorers.transaction_features import read_definitions
from bento.store.records import RequestOrigin
from bento.store.session import open_store
from bento.stream.kafka_clients import open_consumer, open_producer
from bento.stream.messages import DOMAIN, parse_message
from bento.stream.micro_batch import decide_micro_batch
from bento.stream.offsets import PartitionPlace
from finrisk_assets.graph import packaging
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.bundle_io import GOLDEN, read_golden_rows
from finrisk_assets.settings import Settings
from tests.stream.broker import Broker, started
from tests.stream.topics import Stream, WorkerProcess, processes

WARM_UP = 4_000
LATENCY_S = 10.0
DEMANDED_RATE, DEMANDED_TRIPS, DEMANDED_PARTS, DEMANDED_RECOVERY, DEMANDED_TIMES = 5_000, 20.0, 1.5, 2.0, 20.0
DEMANDED_GROWTH = 0.05
LOOKS = 10
"""Looks at the worker's memory in a round."""
TAZAMA_RATE, TAZAMA_CPUS = 2_240, 944
"""The peer's published transactions a second and virtual processors."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=50_000, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=512, help="messages of a micro-batch at most")
    parser.add_argument("--usual", type=int, default=500, help="messages of the usual consumer; 0 leaves it out")
    given = parser.parse_args()
    ledger = Settings.from_environment()
    bundle = ledger.root / "champions" / DOMAIN / "bundle"
    requests = list(islice(movements(ledger), given.messages))
    with tempfile.TemporaryDirectory(prefix="finrisk-stream-") as folder, started(Path(folder) / "kafka") as broker:
        root = Path(folder)
        packaging.store_model(root / "models", DOMAIN, bundle, {})
        stream = _new_stream(root / "home", broker, given.batch, ledger.source)
        worker = WorkerProcess(stream.settings, root / "models", root / "worker.log")
        with processes(worker):
            worker.wait_until_ready()
            process = psutil.Process(worker.process.pid)
            _send_and_wait(stream, _values(requests[:WARM_UP]))
            rates, cpu_us, memory = [], [], []
            for _ in range(given.rounds):
                before = sum(process.cpu_times()[:2])
                seconds = _send_and_wait(stream, _values(requests), lambda: memory.append(process.memory_info().rss / 1e6))
                rates.append(given.messages / seconds)
                cpu_us.append((sum(process.cpu_times()[:2]) - before) / given.messages * 1e6)
            rate = statistics.median(rates)
            lost, double = _count_lost_and_double(stream, len(requests[:WARM_UP]) + given.rounds * given.messages)
            usual = _measure_usual(stream, root, bundle, _values(requests[: given.usual])) if given.usual else None
            trip = _measure_delay(stream, _values(requests), rate / 2, stream.settings.stream_decisions, stream.settings.stream_decisions)
            delay = _measure_delay(stream, _values(requests), rate / 2, stream.settings.stream_topic, stream.settings.stream_decisions)
            recovery, restart = _measure_recovery(stream, broker, _values(requests[:10]))
            worker.stop()
        parts = _measure_parts(root / "parts", broker, bundle, _values(requests[: given.messages // 2]), given.batch)

    print(f"end to end: {rate:,.0f} decisions a second (median of {given.rounds} rounds of {given.messages:,}); "
          f"demanded {DEMANDED_RATE:,}: {_verdict(rate >= DEMANDED_RATE)}")  # fmt: skip
    print(f"p99 at half that rate: {delay * 1e3:,.1f} ms, {delay / trip:,.1f} bare round trips of {trip * 1e3:,.1f} ms; "
          f"demanded {DEMANDED_TRIPS:.0f}: {_verdict(delay <= DEMANDED_TRIPS * trip)}")  # fmt: skip
    bare, worker_us = sum(parts.values()), statistics.median(cpu_us)
    for name, part in parts.items():
        print(f"  {name}: {part:,.1f} µs")
    print(f"the worker's processor: {worker_us:,.1f} µs a decision, {worker_us / bare:,.2f} times its parts of {bare:,.1f} µs; "
          f"demanded {DEMANDED_PARTS}: {_verdict(worker_us <= DEMANDED_PARTS * bare)}")  # fmt: skip
    warm, grown = memory[0], max(memory) / min(memory) - 1
    print(f"its memory: {warm:,.0f} MB at first, {min(memory):,.0f} to {max(memory):,.0f} MB; "
          f"demanded ± {DEMANDED_GROWTH:.0%}: {_verdict(grown <= 2 * DEMANDED_GROWTH)}")  # fmt: skip
    print(f"of {len(requests[:WARM_UP]) + given.rounds * given.messages:,} messages {lost:,} lost, {double:,} double: "
          f"{_verdict(lost == double == 0)}")  # fmt: skip
    if usual is not None:
        print(f"the usual consumer: {usual:,.0f} a second; ours is {rate / usual:,.1f} times as fast; "
              f"demanded {DEMANDED_TIMES:.0f}: {_verdict(rate >= DEMANDED_TIMES * usual)}")  # fmt: skip
    print(f"Tazama, as published: {TAZAMA_RATE:,} a second on {TAZAMA_CPUS} vCPU, {TAZAMA_RATE / TAZAMA_CPUS:.1f} a vCPU; "
          f"here {rate / 2:,.0f} a processor. It evaluates rules and typologies in services of their own and keeps them in databases of "
          "their own on several machines; ours has one model with SHAP values and rules in one process, and one store")  # fmt: skip
    print(f"after a broker's kill: {recovery:.1f} s to the next decision, the broker alone {restart:.1f} s; "
          f"demanded {DEMANDED_RECOVERY:.0f} times: {_verdict(recovery <= DEMANDED_RECOVERY * restart)}")  # fmt: skip


def _verdict(is_reached: bool) -> str:
    return "reached" if is_reached else "MISSED"


def _new_stream(home: Path, broker: Broker, batch: int, source: str = "simulator") -> Stream:
    """Return topics and a store of their own; a worker keeps its store with the source that its model is of."""
    name = f"s{uuid4().hex[:8]}"
    names = {"stream_topic": name, "stream_decisions": f"{name}-decisions", "stream_group": f"{name}-group"}
    return Stream(Settings(source=source, home=home, kafka=broker.address, stream_batch=batch, **names), 1)


def _values(requests: Sequence[object]) -> list[bytes]:
    """Return messages under identifiers that are new each time."""
    run = uuid4().hex[:8]
    return [
        request.model_copy(update={"transaction_id": f"{run}-{number}"}).model_dump_json().encode()  # type: ignore[attr-defined]
        for number, request in enumerate(requests)
    ]


def _open_end(stream: Stream, topic: str) -> Consumer:
    """Return a consumer of what comes from now on."""
    consumer = Consumer({"bootstrap.servers": stream.settings.kafka, "group.id": uuid4().hex, "fetch.wait.max.ms": 5, "log_level": 0})
    place = TopicPartition(topic, 0, OFFSET_END)
    consumer.assign([TopicPartition(topic, 0, consumer.get_watermark_offsets(place, 10)[1])])
    consumer.poll(0.5)
    return consumer


def _send_and_wait(stream: Stream, values: Sequence[bytes], look: Callable[[], None] = lambda: None) -> float:
    """Return the seconds from the first message that is sent to the last decision that is read; call `look` `LOOKS` times meanwhile."""
    consumer, n_read, n_looks = _open_end(stream, stream.settings.stream_decisions), 0, 0
    began = time.perf_counter()
    sender = threading.Thread(target=stream.send, args=(values,))
    sender.start()
    while n_read < len(values):
        n_read += sum(message.error() is None for message in consumer.consume(1_000, 0.05))
        if n_read * LOOKS >= (n_looks + 1) * len(values):
            n_looks += 1
            look()
    seconds = time.perf_counter() - began
    sender.join()
    consumer.close()
    return seconds


def _measure_delay(stream: Stream, values: Sequence[bytes], rate: float, source: str, target: str) -> float:
    """Return the 99th percentile of the seconds from a message's sending to its copy, or its decision, at a steady rate."""
    consumer = _open_end(stream, target)
    producer = Producer({"bootstrap.servers": stream.settings.kafka, "linger.ms": 0})
    sent_at: dict[str, float] = {}
    number = min(len(values), int(rate * LATENCY_S))

    def send() -> None:
        began = time.perf_counter()
        for at, value in enumerate(values[:number]):
            while (remaining := began + at / rate - time.perf_counter()) > 0:
                time.sleep(min(remaining, 0.001))
            sent_at[json.loads(value)["transaction_id"]] = time.perf_counter()
            producer.produce(source, value, b"1")
            producer.poll(0)
        producer.flush()

    sender, delays = threading.Thread(target=send), []
    sender.start()
    while len(delays) < number:
        for message in consumer.consume(100, 0.005):
            if message.error() is None and (began := sent_at.get(json.loads(message.value())["transaction_id"])):
                delays.append(time.perf_counter() - began)
    sender.join()
    consumer.close()
    return float(np.percentile(delays, 99))


def _measure_recovery(stream: Stream, broker: Broker, values: Sequence[bytes]) -> tuple[float, float]:
    """Return the seconds from a broker's restart to the next decision, and those of the broker alone."""
    stream.wait_for_all()
    broker.kill()
    began = time.perf_counter()
    restart = broker.start()
    before = stream.read_end(stream.settings.stream_decisions)
    stream.send([values[0]])
    while stream.read_end(stream.settings.stream_decisions) == before:
        time.sleep(0.02)
    return time.perf_counter() - began, restart


def _count_lost_and_double(stream: Stream, sent: int) -> tuple[int, int]:
    """Return the messages without a decision, and the decisions beyond one for each message."""
    with closing(open_store(stream.settings)) as store, store.reading() as connection:
        query = "select count(*), count(distinct transaction_token) from decisions"
        decisions, transactions = connection.exec_driver_sql(query).one()
    return sent - transactions, decisions - transactions


def _measure_usual(stream: Stream, root: Path, bundle: Path, values: Sequence[bytes]) -> float:
    """Return the messages a second of the usual consumer, on topics of its own."""
    loaded = Bundle.load(bundle)
    own = _new_stream(root / "usual", Broker(address=stream.settings.kafka), 1)
    own.send(values)
    pickle_model((bundle / "trees-0.json").read_bytes(), root / "usual.pickle")
    rows = read_golden_rows(json.loads((bundle / GOLDEN).read_text(encoding="utf-8")), bundle / GOLDEN)
    names = [feature.name for feature in loaded.features]
    settings, store = own.settings, root / "usual.sqlite"
    arguments = settings.kafka, settings.stream_topic, settings.stream_decisions, root / "usual.pickle", store, names, rows
    began = time.perf_counter()
    consume(*arguments, len(values))
    return len(values) / (time.perf_counter() - began)


def _measure_parts(home: Path, broker: Broker, bundle: Path, values: Sequence[bytes], batch: int) -> dict[str, float]:
    """Return the processor's µs of each part alone, for one message."""
    stream = _new_stream(home, broker, batch)
    stream.send(values)
    settings, n = stream.settings, len(values)

    def take() -> None:
        consumer, n_read = open_consumer(settings, uuid4().hex), 0
        consumer.assign([TopicPartition(settings.stream_topic, 0, 0)])
        while n_read < n:
            n_read += sum(message.error() is None and message.value() is not None for message in consumer.consume(batch, 0.2))
        consumer.close()

    def publish() -> None:
        producer = open_producer(settings)
        for answers_of_batch in split(answers, batch):
            for answer in answers_of_batch:
                producer.produce(settings.stream_decisions, answer, "0" * 32)
            producer.flush()

    loaded, answers = Bundle.load(bundle).under(default_policy()), list[bytes]()
    features = ChunkRecorder(read_definitions(loaded))
    features.chunks = []
    with closing(open_store(settings)) as store:
        decisions = Decisions.of(Champions({DOMAIN: loaded}, "", {}, {}, {}, folders={DOMAIN: bundle}), store, home)
        scorer = cast(TransactionScorer, decisions.scorer(DOMAIN))
        scorer._features._online = features
        request_id.set("-")
        for chunk in split(values, batch):
            items = [ChunkItem(parse_message(value), None, RequestOrigin("stream", "-")) for value in chunk]
            places = [PartitionPlace(settings.stream_topic, 0, len(answers) + len(chunk), 0)]
            answers += [result.body for result in decide_micro_batch(decisions, scorer, items, places)]  # type: ignore[union-attr]
        parts = {"take from Kafka": cpu_us(take, n)}
        parts |= measure_parts(settings, home / "bare", loaded, features, values, answers, batch)
    parts["publish"] = cpu_us(publish, n)
    return parts


if __name__ == "__main__":
    main()
