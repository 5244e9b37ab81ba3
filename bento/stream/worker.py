"""The worker of the stream: it takes messages from Kafka in micro-batches, decides them, and publishes the decisions.

A micro-batch goes four steps: decisions and the worker's places are committed to the store, decisions are published, dead letters are
written, the consumer's offsets are committed. Whatever dies between two steps, the next worker reads from the last place that Kafka or the
store have as published, so a step is made again: decisions are found in the store, and published a second time under their own ids.

The store is the truth. An offset of Kafka beyond the store's place is not believed: the store was restored from a backup, or is new.
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from threading import Event
from time import monotonic, time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from bento.decisions.engine import ChunkItem, DecisionResult, Decisions
from bento.problems import Problem
from bento.store.records import RequestOrigin
from bento.store.session import STORE_FAULTS, Store
from bento.stream.dead_letters import DeadLetter, DeadLetterWriter
from bento.stream.kafka_clients import METADATA_TIMEOUT_S, StreamError, open_consumer, open_producer
from bento.stream.messages import DOMAIN, parse_message
from bento.stream.micro_batch import STREAM_CALLER, DecidedMessage, decide_micro_batch
from bento.stream.offsets import PartitionPlace, forget_place, load_places, save_places
from bento.stream.stream_metrics import StreamMetrics
from bento.web.health import PartFaults
from finrisk_assets.settings import Settings
from schemas.api import TransactionRequest

logger = logging.getLogger("finrisk.service")

POLL_S = 0.2
"""Seconds to wait for a message. A longer time makes the end of the worker slower."""
RETRY_S = 0.25
"""Seconds between two tries while the store or Kafka are away."""
HINT_INTERVAL_S = 1.0
"""Seconds between two commits of offsets to Kafka, which tools show as the group's lag. Each costs a round trip."""
STUCK_S = 60.0
"""Seconds without a turn of the loop after which the worker counts as stuck."""
CLOSE_TIMEOUT_S = 5.0
"""Seconds in which a worker that ends publishes what is decided."""


@dataclass
class MicroBatch:
    """Messages that were taken together, with what became of them.

    Attributes
    ----------
    transactions
        Valid messages with their requests.
    letters
        Messages that cannot be decided.
    places
        Partition -> the offset behind its last message.
    """

    messages: Sequence[Message]
    transactions: list[tuple[Message, TransactionRequest]]
    letters: list[DeadLetter]
    places: dict[int, int]


class StreamWorker:
    """A worker of the consumer group. `run` returns after `stop`, which any thread or signal handler may call.

    Parameters
    ----------
    settings
        The settings.
    decisions
        The decisions, as of the service.
    metrics
        The worker's metrics; the store's meter is its `shared`.

    Raises
    ------
    bento.problems.Problem
        501 where the Bento has no model of transactions.
    bento.stream.kafka_clients.StreamError
        Where librdkafka refuses a property.
    """

    def __init__(self, settings: Settings, decisions: Decisions, metrics: StreamMetrics) -> None:
        self._settings = settings
        self._decisions = decisions
        self._store: Store = decisions.store
        self._scorer = decisions.scorer(DOMAIN)
        self._metrics = metrics
        self._stop = Event()
        self._places: dict[int, PartitionPlace] = {}  # of the partitions that this worker has
        self._turns: dict[int, int] = {}
        self._hinted_at = 0.0
        self._undelivered: list[KafkaError] = []
        self._fault: KafkaError | None = None
        self._turned_at = monotonic()
        self._consumer: Consumer = open_consumer(settings, settings.stream_group, error_cb=self._note_fault)
        self._producer: Producer = self._open_publisher()
        self._letters = DeadLetterWriter(settings, self._consumer)

    def stop(self) -> None:
        """End the worker after its micro-batch."""
        self._stop.set()

    def run(self) -> None:
        """Decide messages until `stop`.

        Raises
        ------
        bento.stream.kafka_clients.StreamError
            Where Kafka refuses the worker for good.
        """
        topic = self._settings.stream_topic
        self._consumer.subscribe([topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)
        try:
            while not self._stop.is_set():
                self._turned_at = monotonic()
                messages = self._take_messages()
                if messages:
                    began = monotonic()
                    self._process(messages)
                    self._metrics.observe_batch(len(messages), monotonic() - began)
                    self._metrics.set_waiting(False)
                self._commit_hint()
        finally:
            self._close()

    def find_faults(self) -> PartFaults:
        """Return each part with its fault or None; any thread may ask."""
        try:
            self._producer.list_topics(self._settings.stream_topic, timeout=1.0)
            broker_fault = None
        except KafkaException:
            broker_fault = "No broker answers."
        faults = {
            "store": None if self._store.is_writable() else "It takes no write.",
            "kafka": broker_fault,
            f"models.{DOMAIN}": None,
        }
        try:
            self._scorer.bundle.check()
        except ValueError:
            faults[f"models.{DOMAIN}"] = "It no longer scores as when it was trained."
        self._metrics.shared.set_readiness(faults)
        return faults

    def is_alive(self) -> bool:
        """Return whether the worker's loop goes round; any thread may ask."""
        return monotonic() - self._turned_at < STUCK_S

    # Messages

    def _take_messages(self) -> list[Message]:
        """Return the messages that are there, after a short wait for the first one."""
        first = self._consume(1, POLL_S)
        if not first or self._settings.stream_batch == 1:
            return first
        turns = dict(self._turns)
        others = self._consume(self._settings.stream_batch - 1, 0.0)
        # Its partition may have gone between both calls, and come back: then it is read again from its place.
        return [message for message in first if self._has_kept(message.partition(), turns)] + others

    def _has_kept(self, partition: int | None, turns: Mapping[int, int]) -> bool:
        """Return whether this worker has had a partition without a break since these assignments."""
        return partition in self._places and partition is not None and self._turns[partition] == turns[partition]

    def _consume(self, number: int, timeout_s: float) -> list[Message]:
        messages = []
        for message in self._consumer.consume(number, timeout_s):
            error = message.error()
            if error is None:
                messages.append(message)
            elif error.fatal() or error.code() in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED):
                raise StreamError(f"Kafka refuses the worker: {error.str()}")
        return messages

    def _process(self, messages: Sequence[Message]) -> None:
        """Take a micro-batch through its four steps; leave what is open to the next worker where this one ends meanwhile."""
        batch = self._sort(messages)
        results = self._decide(batch)
        if results is None:
            return
        answered: list[tuple[Message, DecisionResult]] = []
        for (message, _), result in zip(batch.transactions, results, strict=True):
            if isinstance(result, Problem):
                batch.letters.append(DeadLetter(message, result))
            else:
                answered.append((message, result))
        if not self._publish([result for _, result in answered]):
            return
        self._count(batch, answered)
        places = [TopicPartition(self._settings.stream_topic, partition, offset) for partition, offset in batch.places.items()]
        letters = sorted(batch.letters, key=lambda letter: (letter.message.partition(), letter.message.offset()))
        if letters and not self._letters.write(letters, places):
            self._read_again(list(batch.places))
            return
        for partition, offset in batch.places.items():
            self._places[partition] = self._places[partition]._replace(published_offset=offset)

    def _read_again(self, partitions: Sequence[int]) -> None:
        """Go back to where partitions are known to be published: what was not done with the last messages is done then."""
        topic, consumer = self._settings.stream_topic, self._consumer
        while self._wait():
            try:
                self._letters.fence()
                committed = self._read_committed(consumer, [TopicPartition(topic, partition) for partition in partitions])
                break
            except KafkaException as error:
                logger.warning("dead letters wait for Kafka: %s", error.args[0].name())
        else:
            return
        for partition, offset in committed:
            place = self._places[partition]
            begin = min(place.next_offset, max(place.published_offset, offset))
            self._places[partition] = place._replace(published_offset=begin)
            consumer.incremental_unassign([TopicPartition(topic, partition)])
            consumer.incremental_assign([TopicPartition(topic, partition, begin)])

    def _sort(self, messages: Sequence[Message]) -> MicroBatch:
        batch = MicroBatch(messages, [], [], {})
        for message in messages:
            partition, offset, value = message.partition(), message.offset(), message.value()
            assert partition is not None and offset is not None
            batch.places[partition] = offset + 1
            if value is None:
                continue
            parsed = parse_message(value)
            if isinstance(parsed, Problem):
                batch.letters.append(DeadLetter(message, parsed))
            else:
                batch.transactions.append((message, parsed))
        return batch

    def _decide(self, batch: MicroBatch) -> list[DecidedMessage] | None:
        """Commit the decisions of a micro-batch with its places, once the store takes it; return None where the worker ends before."""
        topic = self._settings.stream_topic
        items = [
            ChunkItem(request, None, RequestOrigin(STREAM_CALLER.name, f"{topic}/{message.partition()}/{message.offset()}"))
            for message, request in batch.transactions
        ]
        published = {partition: place.published_offset for partition, place in self._places.items()}
        places = [PartitionPlace(topic, partition, offset, published[partition]) for partition, offset in batch.places.items()]
        while True:
            try:
                results = decide_micro_batch(self._decisions, self._scorer, items, places)
                break
            except Problem as problem:
                if problem.status != 503:
                    raise
            if not self._wait():
                return None
        self._places |= {place.partition: place for place in places}
        return results

    def _count(self, batch: MicroBatch, answered: Sequence[tuple[Message, DecisionResult]]) -> None:
        new = 0
        for _, result in answered:
            if result.answer is not None:
                new += 1
                self._metrics.shared.count_decision(DOMAIN, result.answer)
        for fate, number in (
            ("decided", new),
            ("repeated", len(answered) - new),
            ("dead", len(batch.letters)),
            ("tombstone", len(batch.messages) - len(answered) - len(batch.letters)),
        ):
            self._metrics.count_messages(fate, number)
        published_at = time()
        for message, _ in answered:
            _, sent_ms = message.timestamp()
            self._metrics.observe_latency(published_at - sent_ms / 1000)

    # Publishing

    def _open_publisher(self) -> Producer:
        return open_producer(self._settings, error_cb=self._note_fault, on_delivery=self._note_undelivered)

    def _publish(self, results: Sequence[DecisionResult]) -> bool:
        """Publish decisions under their ids and wait until the brokers have them; return False where the worker ends before."""
        while True:
            self._undelivered.clear()
            try:
                for result in results:
                    self._producer.produce(self._settings.stream_decisions, result.body, result.decision_id)
                is_flushed = self._flush()
            except (KafkaException, BufferError):
                is_flushed = False
            if is_flushed and not self._undelivered:
                self._fault = None
                return True
            if self._stop.is_set():
                return False
            # The producer cannot go on, after a broker that lost its log: a new one sends all of them again.
            logger.warning("decisions wait for Kafka")
            self._producer.purge()
            self._producer = self._open_publisher()
            if not self._wait():
                return False

    def _flush(self) -> bool:
        """Wait until all messages are delivered; return False where the worker ends before."""
        deadline = None
        while self._producer.flush(POLL_S) > 0:
            if self._stop.is_set():
                deadline = deadline or monotonic() + CLOSE_TIMEOUT_S
                if monotonic() > deadline:
                    return False
            self._metrics.set_waiting(True)
            self._turned_at = monotonic()
        return True

    def _note_undelivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._undelivered.append(error)

    def _note_fault(self, error: KafkaError) -> None:
        if self._fault is None:  # librdkafka says it again and again
            logger.warning("Kafka: %s", error.name())
        self._fault = error

    # Back-pressure: while the store or Kafka are away the worker takes no messages, and the client's queue, which is bounded, fills up. The
    # client stays in its group meanwhile, until `kafka_clients.MAX_POLL_INTERVAL_MS`.

    def _wait(self) -> bool:
        """Wait a moment; return False where the worker ends."""
        self._metrics.set_waiting(True)
        self._turned_at = monotonic()
        return not self._stop.wait(RETRY_S)

    # Partitions

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Begin each new partition at its place."""
        self._metrics.count_rebalance()
        new: list[TopicPartition] = []
        while not self._stop.is_set():
            self._turned_at = monotonic()
            try:
                new = [self._find_place(consumer, *each) for each in self._read_committed(consumer, partitions)]
                break
            except (*STORE_FAULTS, KafkaException) as error:
                logger.warning("partitions wait for their places: %s", type(error).__name__)
                self._stop.wait(RETRY_S)
        consumer.incremental_assign(new)
        if partitions:
            logger.info("partitions taken: %s", ", ".join(f"{each.partition} from offset {each.offset}" for each in new))

    def _read_committed(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> list[tuple[int, int]]:
        """Return each partition with the offset that the group committed; negative where there is none."""
        if not partitions:
            return []
        return [(each.partition, each.offset) for each in consumer.committed(list(partitions), METADATA_TIMEOUT_S)]

    def _find_place(self, consumer: Consumer, partition: int, committed: int) -> TopicPartition:
        """Return a partition with the offset at which its messages begin for this worker."""
        topic = self._settings.stream_topic
        self._turns[partition] = self._turns.get(partition, 0) + 1
        stored = load_places(self._store, topic).get(partition)
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), METADATA_TIMEOUT_S)
        if stored is not None and stored.next_offset > high:
            logger.warning("partition %d of %s was created again: it is read from its first message", partition, topic)
            forget_place(self._store, topic, partition)
            stored = None
        if stored is None:
            self._places[partition] = PartitionPlace(topic, partition, 0, 0)
            return TopicPartition(topic, partition, OFFSET_BEGINNING)
        begin = min(stored.next_offset, max(stored.published_offset, committed))
        if begin < low:
            lost = max(0, low - stored.next_offset)
            self._metrics.count_lost(lost)
            logger.error("retention deleted %d messages of partition %d before they were decided", lost, partition)
            begin = low
        self._places[partition] = stored._replace(published_offset=begin)
        return TopicPartition(topic, partition, begin)

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Give partitions back, each with its offset, so that the next worker goes on there."""
        self._metrics.count_rebalance()
        self._commit_offsets([self._places[each.partition] for each in partitions if each.partition in self._places])
        self._drop(partitions)
        consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Drop partitions that another worker has already."""
        self._metrics.count_rebalance()
        self._drop(partitions)
        consumer.incremental_unassign(partitions)

    def _drop(self, partitions: Sequence[TopicPartition]) -> None:
        for each in partitions:
            self._places.pop(each.partition, None)
            with suppress(KeyError):
                self._metrics.forget_lag(self._settings.stream_topic, each.partition)

    def _commit_hint(self) -> None:
        """Commit the published offsets to Kafka and measure the lag, once in a while."""
        if monotonic() - self._hinted_at < HINT_INTERVAL_S:
            return
        self._hinted_at = monotonic()
        self._commit_offsets(list(self._places.values()))
        for place in self._places.values():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(place.topic, place.partition), cached=True)
            if high >= 0:
                self._metrics.set_lag(place.topic, place.partition, max(0, high - place.next_offset))

    def _commit_offsets(self, places: Sequence[PartitionPlace]) -> None:
        # Waited for: a late one would set back the offset that the next dead letters commit.
        offsets = [TopicPartition(place.topic, place.partition, place.published_offset) for place in places if place.published_offset > 0]
        if offsets:
            with suppress(KafkaException):  # a hint: the store has the place
                self._consumer.commit(offsets=offsets, asynchronous=False)

    def _close(self) -> None:
        """Record what is published, and leave the group."""
        places = list(self._places.values())
        try:
            with self._store.writing() as connection:
                save_places(connection, places)
        except STORE_FAULTS:
            logger.warning("the store is away: the next worker publishes the last decisions again")
        with suppress(KafkaException, RuntimeError):
            self._consumer.close()
        self._producer.flush(CLOSE_TIMEOUT_S)
