"""Clients of Kafka as the stream needs them, made from the settings. Nothing else names a property of librdkafka."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from finrisk_assets.private_files import is_open_to_others
from finrisk_assets.settings import Settings

logger = logging.getLogger("finrisk.service")

QUEUED_KIB = 16 * 1024
"""KiB of messages that a client holds before the worker takes them. More take more memory and nothing else."""
SESSION_TIMEOUT_MS = 6_000
"""Milliseconds without a sign of life after which a worker's partitions go to others; brokers allow no fewer."""
MAX_POLL_INTERVAL_MS = 600_000
"""Milliseconds for which a worker may wait for its store or for Kafka before its partitions go to others."""
TRANSACTION_TIMEOUT_MS = 5_000
"""Milliseconds after which the broker ends the transaction of a worker that died; readers of dead letters wait for it."""
METADATA_TIMEOUT_S = 5.0
"""Seconds to wait for the brokers' answer to a question about topics."""
_SECRETS = ("password", "secret", "ssl.key.pem", "jaas")


class StreamError(RuntimeError):
    """A stream that cannot be used as it is configured; the message says what to do."""


def dead_letter_topic(settings: Settings) -> str:
    """Return the topic of messages that could not be decided."""
    return f"{settings.stream_topic}-dlq"


def client_properties(settings: Settings) -> dict[str, Any]:
    """Return the properties of every client: the brokers, and those of FINRISK_KAFKA_CONFIG.

    Raises
    ------
    StreamError
        Where the file cannot be read, or holds a secret and is open to other users.
    """
    extra = {} if settings.kafka_config is None else _read_properties(settings.kafka_config)
    # After a broker's restart a client is back within a second.
    return {"bootstrap.servers": settings.kafka, "reconnect.backoff.max.ms": 1_000, "log_level": 2, **extra}


def _read_properties(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise StreamError(f"FINRISK_KAFKA_CONFIG={file} cannot be read: {getattr(error, 'strerror', None) or 'it is not text'}") from None
    properties = {}
    for number, line in enumerate(lines, 1):
        name, separator, value = line.partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not separator:
            raise StreamError(f"{file}, line {number}, is no property: write NAME=VALUE")
        properties[name.strip()] = value.strip()
    if any(secret in name for name in properties for secret in _SECRETS) and is_open_to_others(file):
        raise StreamError(f"FINRISK_KAFKA_CONFIG={file} holds a secret and is open to every user of this machine: run `chmod 600 {file}`")
    return properties


def open_client(kind: Callable[[dict[str, Any]], Any], properties: Mapping[str, Any]) -> Any:
    """Return a client of Kafka.

    Raises
    ------
    StreamError
        Where librdkafka refuses a property.
    """
    try:
        return kind(dict(properties))
    except (KafkaException, ValueError, TypeError) as error:
        reason = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        raise StreamError(f"Kafka's client refuses its properties: {reason}; correct FINRISK_KAFKA or FINRISK_KAFKA_CONFIG") from None


def open_consumer(settings: Settings, group: str, **properties: Any) -> Consumer:
    """Return a consumer that commits nothing by itself and begins a partition without a place at its first message."""
    own = {
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": SESSION_TIMEOUT_MS,
        "heartbeat.interval.ms": 1_000,
        "max.poll.interval.ms": MAX_POLL_INTERVAL_MS,
        "queued.max.messages.kbytes": QUEUED_KIB,
        "queued.min.messages": 10_000,
        "fetch.queue.backoff.ms": 20,
        "fetch.error.backoff.ms": 100,
    }
    return open_client(Consumer, client_properties(settings) | own | properties)


def open_producer(settings: Settings, **properties: Any) -> Producer:
    """Return a producer that waits for all replicas and keeps order; a message that it holds is never given up."""
    own = {"enable.idempotence": True, "acks": "all", "linger.ms": 0, "message.timeout.ms": 0, "delivery.report.only.error": True}
    return open_client(Producer, client_properties(settings) | own | properties)


def open_transactional_producer(settings: Settings, transactional_id: str) -> Producer:
    """Return a producer whose messages appear together with the consumer's offsets, or not at all.

    Raises
    ------
    confluent_kafka.KafkaException
        Where no broker answers.
    """
    timeouts = {"transaction.timeout.ms": TRANSACTION_TIMEOUT_MS, "message.timeout.ms": TRANSACTION_TIMEOUT_MS}
    producer = open_producer(settings, **{"transactional.id": transactional_id}, **timeouts)
    producer.init_transactions(METADATA_TIMEOUT_S)
    return producer


def check_topics(settings: Settings) -> None:
    """Check that the brokers answer and have the three topics.

    Raises
    ------
    StreamError
        Where no broker answers, or a topic is missing.
    """
    client = open_client(AdminClient, client_properties(settings))
    present = _list_topics(settings, client)
    missing = sorted({settings.stream_topic, settings.stream_decisions, dead_letter_topic(settings)} - present)
    if missing:
        raise StreamError(f"Kafka has no topic {', '.join(missing)}: create it, or run `finrisk stream topics`")


def create_topics(settings: Settings, partitions: int, replicas: int) -> list[str]:
    """Create those of the three topics that are missing, and return their names.

    Raises
    ------
    StreamError
        Where no broker answers, or the brokers refuse.
    """
    client = open_client(AdminClient, client_properties(settings))
    wanted = [settings.stream_topic, settings.stream_decisions, dead_letter_topic(settings)]
    present = _list_topics(settings, client)
    new = [NewTopic(name, partitions, replicas) for name in wanted if name not in present]
    if new:
        try:
            for created in client.create_topics(new).values():
                created.result()
        except KafkaException as error:
            raise StreamError(f"Kafka does not create the topics: {error.args[0].str()}") from None
    return [topic.topic for topic in new]


def _list_topics(settings: Settings, client: AdminClient) -> set[str]:
    try:
        return set(client.list_topics(timeout=METADATA_TIMEOUT_S).topics)
    except KafkaException as error:
        raise StreamError(f"no Kafka broker answers at FINRISK_KAFKA={settings.kafka}: {error.args[0].str()}") from None
