"""The stream on a Kafka of this machine: decisions a second, their delay, the worker's processor time beside its bare parts, recovery.

    python -m benchmarks.stream [--messages 50000] [--rounds 3] [--batch 512]

Broker, producer and worker share the machine. The worker takes the champion of FINRISK_HOME/<source> and an SQLite store of its own; the
messages are the ledger's movements under new identifiers. Each figure is the median of the rounds, except the percentile, which is over
all messages of a round at half of the reached rate. A bare round trip is a message that is produced and consumed with nothing between.
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
from uuid import uuid4

import numpy as np
import psutil  # type: ignore[import-untyped]
from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

from benchmarks.micro_batches import movements
from bento.context import request_id
from bento.decisions.engine import ChunkItem, Decisions
from bento.decisions.models import Champions
from bento.store.records import RequestOrigin
from bento.store.session import open_store
from bento.stream.kafka_clients import open_consumer, open_producer
from bento.stream.messages import DOMAIN, parse_message
from bento.stream.micro_batch import decide_micro_batch
from bento.stream.offsets import PartitionPlace
from finrisk_assets.graph import packaging
from finrisk_assets.policy.policy_file import default_policy
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.settings import Settings
from tests.stream.broker import Broker, started
from tests.stream.topics import Stream, WorkerProcess, processes

WARM_UP = 4_000
LATENCY_S = 10.0
DEMANDED_RATE, DEMANDED_TRIPS, DEMANDED_PARTS, DEMANDED_RECOVERY = 5_000, 20.0, 1.5, 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=50_000, help="of each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=512, help="messages of a micro-batch at most")
    given = parser.parse_args()
    ledger = Settings.from_environment()
    bundle = ledger.root / "champions" / DOMAIN / "bundle"
    requests = list(islice(movements(ledger), given.messages))
    with tempfile.TemporaryDirectory(prefix="finrisk-stream-") as folder, started(Path(folder) / "kafka") as broker:
        root = Path(folder)
        packaging.store_model(root / "models", DOMAIN, bundle, {})
        stream = _new_stream(root / "home", broker, given.batch)
        worker = WorkerProcess(stream.settings, root / "models", root / "worker.log")
        with processes(worker):
            worker.wait_until_ready()
            process = psutil.Process(worker.process.pid)
            _send_and_wait(stream, _values(requests[:WARM_UP]))
            rates, cpu_us, memory = [], [], []
            for _ in range(given.rounds):
                before = sum(process.cpu_times()[:2])
                seconds = _send_and_wait(stream, _values(requests))
                rates.append(given.messages / seconds)
                cpu_us.append((sum(process.cpu_times()[:2]) - before) / given.messages * 1e6)
                memory.append(process.memory_info().rss / 1e6)
            rate = statistics.median(rates)
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
    print(f"its memory after each round: {', '.join(f'{megabytes:,.0f}' for megabytes in memory)} MB")
    print(f"after a broker's kill: {recovery:.1f} s to the next decision, the broker alone {restart:.1f} s; "
          f"demanded {DEMANDED_RECOVERY:.0f} times: {_verdict(recovery <= DEMANDED_RECOVERY * restart)}")  # fmt: skip


def _verdict(is_reached: bool) -> str:
    return "reached" if is_reached else "MISSED"


def _new_stream(home: Path, broker: Broker, batch: int) -> Stream:
    name = f"s{uuid4().hex[:8]}"
    names = {"stream_topic": name, "stream_decisions": f"{name}-decisions", "stream_group": f"{name}-group"}
    return Stream(Settings(home=home, kafka=broker.address, stream_batch=batch, **names), 1)


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


def _send_and_wait(stream: Stream, values: Sequence[bytes]) -> float:
    """Return the seconds from the first message that is sent to the last decision that is read."""
    consumer, n_read = _open_end(stream, stream.settings.stream_decisions), 0
    began = time.perf_counter()
    sender = threading.Thread(target=stream.send, args=(values,))
    sender.start()
    while n_read < len(values):
        n_read += sum(message.error() is None for message in consumer.consume(1_000, 0.05))
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


def _measure_parts(home: Path, broker: Broker, bundle: Path, values: Sequence[bytes], batch: int) -> dict[str, float]:
    """Return the processor's µs of each part alone, for one message."""
    stream = _new_stream(home, broker, batch)
    stream.send(values)
    settings, n = stream.settings, len(values)

    def cpu_us(part: Callable[[], object]) -> float:
        began = time.process_time()
        part()
        return (time.process_time() - began) / n * 1e6

    def consume() -> None:
        consumer, n_read = open_consumer(settings, uuid4().hex), 0
        consumer.assign([TopicPartition(settings.stream_topic, 0, 0)])
        while n_read < n:
            n_read += sum(message.error() is None and message.value() is not None for message in consumer.consume(batch, 0.2))
        consumer.close()

    def produce() -> None:
        producer = open_producer(settings)
        for first in range(0, n, batch):
            for answer in answers[first : first + batch]:
                producer.produce(settings.stream_decisions, answer, "0" * 32)
            producer.flush()

    items: list[ChunkItem] = []
    answers: list[bytes] = []

    def decide() -> None:
        waiting = iter(items)
        while chunk := list(islice(waiting, batch)):
            places = [PartitionPlace(settings.stream_topic, 0, len(answers) + len(chunk), 0)]
            answers.extend(result.body for result in decide_micro_batch(decisions, scorer, chunk, places))  # type: ignore[union-attr]

    parts = {"take from Kafka": cpu_us(consume)}
    parts["parse"] = cpu_us(lambda: items.extend(ChunkItem(parse_message(value), None, RequestOrigin("stream", "-")) for value in values))
    loaded = Bundle.load(bundle).under(default_policy())
    with closing(open_store(settings)) as store:
        champions = Champions({DOMAIN: loaded}, "", {}, {}, {}, folders={DOMAIN: bundle})
        decisions = Decisions.of(champions, store, home)
        scorer = decisions.scorer(DOMAIN)
        request_id.set("-")
        parts["decide, store, audit"] = cpu_us(decide)
    parts["publish"] = cpu_us(produce)
    return parts


if __name__ == "__main__":
    main()
