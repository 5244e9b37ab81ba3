"""Tests of faults: whatever dies, each valid transaction has one decision and each invalid message is one dead letter.

STREAM_MESSAGES is the number of messages of each test: a few thousand by default, more for a long run. Each fault comes in several rounds,
and one test has 100,000 messages, whatever STREAM_MESSAGES says.
"""

import json
import os
import threading
import time
from contextlib import closing
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from bento.store.session import Store, open_store
from bento.store.unit_of_work import now_us
from bento.stream.kafka_clients import SESSION_TIMEOUT_MS
from tests.stream.outcome import check_outcome, make_transactions
from tests.stream.topics import Stream, WorkerProcess, needs_own_broker, processes, wait_for_number, wait_until, working

N = int(os.environ.get("STREAM_MESSAGES") or 2_000)
ROUNDS = 3
BATCH = 64
"""Messages of a micro-batch: many of them, so that each fault meets one."""

pytestmark = pytest.mark.slow


def add_poison(transactions: list[dict[str, Any]], number: int) -> tuple[list[Any], dict[bytes, str]]:
    """Return the transactions with invalid messages among them, and these with their reasons."""
    rng, mixed = Random(7), list[Any](transactions)
    bodies = [transactions[0] | {"transaction_id": f"poison-{at}", "amount": -1} for at in range(number)]
    poison = {json.dumps(body).encode(): "invalid_request" for body in bodies}
    for message in poison:
        mixed.insert(rng.randrange(len(mixed)), message)
    return mixed, poison


def count_stored(store: Store) -> int:
    with store.reading() as connection:
        return int(connection.exec_driver_sql("select count(*) from decisions").scalar_one())


def count_decisions(stream: Stream) -> int:
    with closing(open_store(stream.settings)) as store:
        return count_stored(store)


def wait_for_decisions(stream: Stream, number: int) -> None:
    with closing(open_store(stream.settings)) as store:
        wait_for_number(lambda: count_stored(store), lambda decided: decided >= number, f"there are not {number} decisions")


def test_a_worker_is_killed_in_the_middle_of_a_batch(new_stream, models, tmp_path):
    stream = new_stream(stream_batch=BATCH)
    transactions = make_transactions(N)
    mixed, poison = add_poison(transactions, 40)
    rng, size = Random(5), len(mixed) // ROUNDS + 1
    for number in range(ROUNDS):
        worker = WorkerProcess(stream.settings, models, tmp_path / "worker.log")
        with processes(worker):
            worker.wait_until_ready()
            before = count_decisions(stream)
            stream.send(mixed[number * size : (number + 1) * size])
            wait_for_decisions(stream, before + 1)
            time.sleep(rng.uniform(0, 0.15))
            worker.kill()
    last = WorkerProcess(stream.settings, models, tmp_path / "worker.log")
    with processes(last):
        stream.wait_for_all()
        assert last.stop() == 0, last.log.read_text()

    check_outcome(stream, transactions, poison)


def test_the_broker_is_killed(broker, new_stream, models, tmp_path):
    needs_own_broker(broker)
    stream = new_stream(stream_batch=BATCH)
    transactions = make_transactions(N)
    mixed, poison = add_poison(transactions, 40)
    worker = WorkerProcess(stream.settings, models, tmp_path / "worker.log")
    size = len(mixed) // ROUNDS + 1
    with processes(worker):
        worker.wait_until_ready()
        for number in range(ROUNDS):
            before = count_decisions(stream)
            sender = threading.Thread(target=stream.send, args=(mixed[number * size : (number + 1) * size],))
            sender.start()
            wait_for_decisions(stream, before + 1)
            broker.kill()
            broker.start()
            sender.join()
        stream.wait_for_all()
        assert worker.stop() == 0, worker.log.read_text()

    check_outcome(stream, transactions, poison)


def test_the_store_is_away_for_ten_seconds(new_stream, models, tmp_path):
    stream = new_stream(stream_batch=BATCH)
    transactions = make_transactions(N)
    mixed, poison = add_poison(transactions, 40)
    worker = WorkerProcess(stream.settings, models, tmp_path / "worker.log")
    size = len(mixed) // 2
    with processes(worker):
        for part in (mixed[:size], mixed[size:]):
            worker.wait_until_ready()
            before = count_decisions(stream)
            stream.send(part)
            wait_for_decisions(stream, before + 1)
            with closing(open_store(stream.settings, wait_s=30)) as other, other.writing():
                began = time.monotonic()
                wait_until(lambda: worker.get("/readyz")[0] == 503, "the worker says that it is ready")
                assert worker.get("/livez")[0] == 200
                time.sleep(max(0.0, 10 - (time.monotonic() - began)))
            stream.wait_for_all()
        worker.wait_until_ready()
        assert worker.stop() == 0, worker.log.read_text()

    check_outcome(stream, transactions, poison)


def test_a_poison_message_in_each_batch(new_stream, models, tmp_path):
    stream = new_stream(stream_batch=BATCH)
    transactions = make_transactions(N)
    mixed, poison = add_poison(transactions, N // 20)
    worker = WorkerProcess(stream.settings, models, tmp_path / "worker.log")
    with processes(worker):
        stream.send(mixed)
        stream.wait_for_all()
        assert worker.stop() == 0, worker.log.read_text()

    check_outcome(stream, transactions, poison)


def test_three_workers_share_the_topic_while_some_come_and_go(new_stream, models, postgresql, tmp_path):
    stream = new_stream(6, stream_batch=BATCH, store_url=postgresql.new())
    open_store(stream.settings, upgrades=True).close()
    transactions = make_transactions(N)
    mixed, poison = add_poison(transactions, 40)
    workers = [WorkerProcess(stream.settings, models, tmp_path / f"worker-{number}.log") for number in range(3)]
    with processes(*workers):
        for worker in workers:
            worker.wait_until_ready()
        size = len(mixed) // 3 + 1
        stream.send(mixed[:size])
        wait_for_decisions(stream, 1)
        workers[0].kill()
        stream.send(mixed[size : 2 * size])
        fourth = WorkerProcess(stream.settings, models, tmp_path / "worker-3.log")
        with processes(fourth):
            fourth.wait_until_ready()
            assert workers[1].stop() == 0, workers[1].log.read_text()
            stream.send(mixed[2 * size :])
            stream.wait_for_all()
            for worker in (workers[2], fourth):
                assert worker.stop() == 0, worker.log.read_text()

    check_outcome(stream, transactions, poison)


def test_two_workers_share_the_topic_and_one_is_killed(new_stream, models, postgresql, tmp_path):
    """Nobody takes the dead one's place: the other one goes on with all partitions, once the session of the dead one is over.

    A busy machine has as long again.
    """
    stream = new_stream(4, stream_batch=BATCH, store_url=postgresql.new())
    open_store(stream.settings, upgrades=True).close()
    transactions = make_transactions(N)
    mixed, poison = add_poison(transactions, 40)
    workers = [WorkerProcess(stream.settings, models, tmp_path / f"worker-{number}.log") for number in range(2)]
    with processes(*workers):
        for worker in workers:
            worker.wait_until_ready()
        stream.send(mixed[: len(mixed) // 2])
        wait_for_decisions(stream, 1)
        wait_until(lambda: stream.shares() == [2, 2], "the workers do not share the partitions")
        workers[0].kill()
        killed_at = time.monotonic()
        stream.send(mixed[len(mixed) // 2 :])
        wait_until(lambda: stream.shares() == [4], "the other worker has not taken the partitions of the dead one")
        assert time.monotonic() - killed_at < 2 * SESSION_TIMEOUT_MS / 1_000
        stream.wait_for_all()
        assert workers[1].stop() == 0, workers[1].log.read_text()

    check_outcome(stream, transactions, poison)


def test_the_same_messages_twice(new_stream, models, tmp_path):
    """Each round sends them all, to another worker than the round before; in the first one they are new and repeated at once."""
    stream = new_stream(3, stream_batch=256)
    transactions = make_transactions(N)
    for number in range(ROUNDS - 1):
        worker = WorkerProcess(stream.settings, models, tmp_path / "worker.log")
        with processes(worker):
            for _ in range(2 - number):
                stream.send(transactions)
            stream.wait_for_all()
            assert worker.stop() == 0, worker.log.read_text()

        check_outcome(stream, transactions)
    assert len(stream.published()) >= ROUNDS * N


def test_a_hundred_thousand_messages_twice(new_stream, models, tmp_path):
    """The worker is killed once within the first hundred thousand, and once within their repetition."""
    stream = new_stream(stream_batch=512)
    transactions = make_transactions(100_000)
    mixed, poison = add_poison(transactions, 200)
    worker = WorkerProcess(stream.settings, models, tmp_path / "worker.log")
    with processes(worker):
        stream.send(mixed)
        wait_for_decisions(stream, 30_000)
        worker.kill()
    second = WorkerProcess(stream.settings, models, tmp_path / "worker.log")
    with processes(second):
        wait_for_decisions(stream, 100_000)
        stream.send(transactions)
        stream.wait_for_lag(60_000)
        second.kill()
    last = WorkerProcess(stream.settings, models, tmp_path / "worker.log")
    with processes(last):
        stream.wait_for_all()
        assert last.stop() == 0, last.log.read_text()

    check_outcome(stream, transactions, poison)
    assert sum(1 for _ in stream.walk(stream.settings.stream_decisions)) >= 200_000


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_worker_whose_clock_is_an_hour_off(new_stream, champions, hours):
    stream, transactions = new_stream(), make_transactions(N)
    mixed, poison = add_poison(transactions, 40)
    size = len(mixed) // 4 + 1
    for number in range(4):
        off_us = int(timedelta(hours=hours * (number % 2)).total_seconds() * 1e6)
        stream.send(mixed[number * size : (number + 1) * size])
        with working(stream, champions, clock=lambda off_us=off_us: now_us() + off_us):
            stream.wait_for_all()

    check_outcome(stream, transactions, poison)


# The process


def test_probes_metrics_and_a_clean_end(new_stream, models, tmp_path):
    stream = new_stream()
    worker = WorkerProcess(stream.settings, models, tmp_path / "worker.log")
    with processes(worker):
        worker.wait_until_ready()
        stream.send([*make_transactions(20), b"{", None])
        stream.wait_for_all()
        status, page = worker.get("/metrics")
        assert worker.get("/nowhere")[0] == 404
        assert worker.stop() == 0, worker.log.read_text()

    assert status == 200
    for line in (
        'finrisk_stream_messages_total{fate="decided"} 20.0',
        'finrisk_stream_messages_total{fate="dead"} 1.0',
        'finrisk_stream_messages_total{fate="tombstone"} 1.0',
        "finrisk_stream_latency_seconds_count 20.0",
        'finrisk_audit_records_total{action="decide"} 20.0',
    ):
        assert line in page
    assert f'finrisk_stream_lag{{partition="0",topic="{stream.settings.stream_topic}"}}' in page
    assert "Traceback" not in worker.log.read_text()


def test_a_second_worker_on_an_sqlite_store_is_refused(new_stream, models, tmp_path):
    stream = new_stream()
    first = WorkerProcess(stream.settings, models, tmp_path / "first.log")
    with processes(first):
        first.wait_until_ready()
        second = WorkerProcess(stream.settings, models, tmp_path / "second.log")
        with processes(second):
            assert second.process.wait(60) == 1
    assert "Error: another worker uses this SQLite store" in second.log.read_text()
    assert "Traceback" not in second.log.read_text()
