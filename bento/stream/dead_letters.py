"""Dead letters: messages that cannot be decided, in a topic of their own, each once, with the reason in its headers.

A micro-batch's dead letters and the consumer's offsets behind it are one transaction of Kafka. A worker never resumes before an offset of
the group, so no letter is written twice, whatever dies; readers see committed letters alone (`isolation.level=read_committed`). The
headers repeat nothing of the message but the names of its fields. The message itself is unchanged: `redrive` sends it again.
"""

import json
import logging
from collections.abc import Sequence
from contextlib import suppress
from queue import Empty, Queue
from threading import Thread
from typing import Any, NamedTuple
from uuid import uuid4

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from bento.problems import Problem
from bento.stream.kafka_clients import (
    StreamError,
    check_topics,
    dead_letter_topic,
    open_consumer,
    open_transactional_producer,
)
from finrisk_assets.settings import Settings

logger = logging.getLogger("finrisk.service")

COMMIT_TIMEOUT_S = 5.0
"""Seconds to wait for one answer of the broker in a transaction."""
GIVE_UP_S = 10.0
"""Seconds after which a transaction is given up and made again by another producer."""
REDRIVE_CHUNK = 500
"""Dead letters that are sent again in one transaction."""
_MAX_IDLE_POLLS = 3
_LETTER_HEADERS = frozenset({"reason", "message", "fields", "topic", "partition", "offset"})


class DeadLetter(NamedTuple):
    """A message that cannot be decided, and why."""

    message: Message
    problem: Problem

    def headers(self) -> list[tuple[str, str | bytes | None]]:
        """Return the message's own headers, and those of the letter: reason, its sentence, the wrong fields, and where the message was."""
        fields = json.dumps([field.model_dump() for field in self.problem.fields])
        letter = {
            "reason": self.problem.code,
            "message": self.problem.message,
            "fields": fields,
            "topic": str(self.message.topic()),
            "partition": str(self.message.partition()),
            "offset": str(self.message.offset()),
        }
        return [*own_headers(self.message), *letter.items()]


def own_headers(message: Message) -> list[tuple[str, str | bytes | None]]:
    """Return a message's headers without those of a dead letter."""
    headers: Any = message.headers() or []
    return [(name, value) for name, value in headers if name not in _LETTER_HEADERS]


class DeadLetterWriter:
    """A writer of dead letters; its producer is opened with the first one.

    Parameters
    ----------
    settings
        The settings.
    consumer
        The consumer of the messages, whose group's offsets are committed with the letters.
    """

    def __init__(self, settings: Settings, consumer: Consumer) -> None:
        self._settings = settings
        self._consumer = consumer
        self._producer: Producer | None = None
        self._name = f"{settings.stream_group}-{uuid4().hex}"

    def write(self, letters: Sequence[DeadLetter], places: Sequence[TopicPartition]) -> bool:
        """Write letters and commit the offsets behind their micro-batch: both or neither.

        Parameters
        ----------
        places
            Partitions with the offset of their next message.

        Returns
        -------
        bool
            Whether that is known to be done. If not, `fence` and the committed offsets tell what was done.
        """
        metadata = self._consumer.consumer_group_metadata()
        result: Queue[Producer | None] = Queue()

        def write() -> None:
            try:
                result.put(self._write_once(letters, places, metadata))
            except KafkaException as error:
                logger.warning("dead letters wait for Kafka: %s", error.args[0].name())
                result.put(None)

        # In a thread: where its broker dies, librdkafka's call may never come back.
        Thread(target=write, name="finrisk-dead-letters", daemon=True).start()
        try:
            self._producer = result.get(timeout=GIVE_UP_S)
        except Empty:
            self._producer = None
        return self._producer is not None

    def fence(self) -> None:
        """Abort the transaction that is not known to be committed: whatever still holds it can do nothing with it from now on.

        Raises
        ------
        confluent_kafka.KafkaException
            Where no broker answers.
        """
        self._producer = open_transactional_producer(self._settings, self._name)

    def _write_once(self, letters: Sequence[DeadLetter], places: Sequence[TopicPartition], metadata: Any) -> Producer:
        """Commit letters and offsets in one transaction, and return its producer for the next one."""
        producer = self._producer or open_transactional_producer(self._settings, self._name)
        topic = dead_letter_topic(self._settings)
        producer.begin_transaction()
        for letter in letters:
            producer.produce(topic, letter.message.value(), letter.message.key(), headers=letter.headers())
        producer.send_offsets_to_transaction(list(places), metadata, COMMIT_TIMEOUT_S)
        producer.commit_transaction(COMMIT_TIMEOUT_S)
        return producer


def redrive(settings: Settings, limit: int | None = None, reason: str | None = None) -> tuple[int, int]:
    """Send dead letters again, each once: a letter and its place in the dead-letter topic are one transaction of Kafka.

    Parameters
    ----------
    limit
        Letters to look at, at most; None for all.
    reason
        Only letters with this reason; others are passed over for good.

    Returns
    -------
    tuple of int
        Numbers of letters sent again and passed over.

    Raises
    ------
    StreamError
        Where Kafka cannot be used; letters that were counted before are sent.
    """
    check_topics(settings)
    consumer = open_consumer(settings, f"{settings.stream_group}-redrive", **{"isolation.level": "read_committed"})
    sent = passed = idle = 0
    try:
        producer = open_transactional_producer(settings, f"{settings.stream_group}-redrive")
        consumer.subscribe([dead_letter_topic(settings)])
        while idle < _MAX_IDLE_POLLS and (limit is None or sent + passed < limit):
            room = REDRIVE_CHUNK if limit is None else min(REDRIVE_CHUNK, limit - sent - passed)
            letters = [letter for letter in consumer.consume(room, timeout=2.0) if letter.error() is None]
            idle = 0 if letters else idle + 1
            if not letters:
                continue
            chosen = [letter for letter in letters if reason is None or dict(letter.headers() or []).get("reason") == reason.encode()]
            _send_again(settings, producer, consumer, letters, chosen)
            sent, passed = sent + len(chosen), passed + len(letters) - len(chosen)
    except KafkaException as error:
        raise StreamError(f"Kafka failed after {sent} letters were sent again: {error.args[0].str()}; run the command again") from None
    finally:
        with suppress(KafkaException, RuntimeError):
            consumer.close()
    return sent, passed


def _send_again(settings: Settings, producer: Producer, consumer: Consumer, letters: Sequence[Any], chosen: Sequence[Any]) -> None:
    places = {letter.partition(): letter.offset() + 1 for letter in letters}
    producer.begin_transaction()
    for letter in chosen:
        producer.produce(settings.stream_topic, letter.value(), letter.key(), headers=own_headers(letter))
    offsets = [TopicPartition(dead_letter_topic(settings), partition, offset) for partition, offset in places.items()]
    producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), COMMIT_TIMEOUT_S)
    producer.commit_transaction(COMMIT_TIMEOUT_S)
