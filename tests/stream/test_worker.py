"""Tests of the worker: what becomes of each kind of message, where it resumes, and that both ways give the same answer."""

import json
from contextlib import closing
from datetime import timedelta
from typing import Any

import jsonschema
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from bento.store.session import open_store
from bento.stream.dead_letters import DeadLetterWriter, redrive
from bento.stream.kafka_clients import StreamError, check_topics, client_properties, open_consumer
from bento.stream.messages import MAX_MESSAGE_BYTES, message_schema
from bento.stream.offsets import load_places
from bento.stream.worker import StreamWorker
from finrisk_assets.settings import Settings
from schemas.api import TransactionRequest
from tests.service.conftest import START, Serving
from tests.service.conftest import serving as serving  # a fixture
from tests.stream.outcome import check_outcome, compare_with_batch, make_transactions, stored_decisions
from tests.stream.topics import Stream, WorkerThread, wait_until, working


def body(minutes: float = 0.0, **changes: Any) -> dict[str, Any]:
    moment = (START + timedelta(minutes=minutes)).isoformat()
    return {"transaction_id": f"at-{minutes}", "user_id": "5", "amount": 120.0, "timestamp": moment, "merchant": "3156", **changes}


def run_to_the_end(stream: Stream, champions, **options: Any) -> WorkerThread:
    with working(stream, champions, **options) as thread:
        stream.wait_for_all()
    return thread


class Crash(Exception):
    """The death of a worker at one point."""


def crash(*_: Any) -> Any:
    raise Crash


# Both ways


def test_a_message_gets_the_answer_that_http_gives(new_stream, champions, models, serving: Serving):
    stream, transactions = new_stream(), make_transactions(60)
    with serving({"transaction_anomaly": models / "bundle"}) as client:
        by_http = [client.post("/v1/transactions", json=transaction).json() for transaction in transactions]

    stream.send(transactions)
    run_to_the_end(stream, champions)

    by_stream = {answer["transaction_id"]: answer for answer in stream.published()}
    assert len({answer["decision"] for answer in by_http}) > 1
    for answer in by_http:
        other = by_stream[answer["transaction_id"]]
        del other["key"]
        assert other | {"decision_id": ""} == answer | {"decision_id": ""}


def test_a_transaction_that_http_decided_gets_that_decision(new_stream, champions, models, serving: Serving):
    stream = new_stream()
    serving.home = stream.settings.home
    with serving({"transaction_anomaly": models / "bundle"}) as client:
        answer = client.post("/v1/transactions", json=body()).json()

    stream.send([body()])
    thread = run_to_the_end(stream, champions)

    assert stream.published() == [answer | {"key": answer["decision_id"]}]
    assert thread.count("repeated") == 1


def test_a_decision_says_where_its_message_was(new_stream, champions):
    stream = new_stream()
    stream.send([body(0), body(1)])
    run_to_the_end(stream, champions)

    topic = stream.settings.stream_topic
    assert [(each.caller, each.request_id) for each in stored_decisions(stream)] == [("stream", f"{topic}/0/{at}") for at in (0, 1)]


# Fates

INVALID = {
    b"{": "malformed_json",
    b"\xff\xfe": "malformed_json",
    b"[]": "invalid_request",
    json.dumps(body() | {"transaction_id": None}).encode(): "invalid_request",
    json.dumps({name: value for name, value in body().items() if name != "transaction_id"}).encode(): "invalid_request",
    json.dumps(body(amount="120")).encode(): "invalid_request",
    json.dumps(body(card="4000")).encode(): "invalid_request",
    json.dumps(body(country="Atlantis")).encode(): "invalid_request",
    b" " * MAX_MESSAGE_BYTES + b"{}": "too_large",
}
"""Message -> the reason of its dead letter."""


def test_what_cannot_be_read_is_a_dead_letter_once_and_the_others_are_decided(new_stream, champions):
    stream, transactions = new_stream(), make_transactions(300)
    mixed: list[Any] = list(transactions)
    for at, message in enumerate(INVALID):
        mixed.insert(30 * at, message)
    stream.send(mixed)

    thread = run_to_the_end(stream, champions)

    check_outcome(stream, transactions, INVALID)
    assert (thread.count("decided"), thread.count("dead")) == (300, len(INVALID))


def test_a_dead_letter_names_the_field_and_the_place_and_no_value(new_stream, champions):
    stream = new_stream()
    stream.send([body(), body(country="Atlantis", merchant="Secret Street 5")])
    run_to_the_end(stream, champions)

    ((value, headers),) = stream.dead_letters()
    assert json.loads(value)["country"] == "Atlantis"
    assert (headers["topic"], headers["partition"], headers["offset"]) == (stream.settings.stream_topic, "0", "1")
    assert [field["field"] for field in json.loads(headers["fields"])] == ["country"]
    assert "Atlantis" not in str(headers) and "Secret" not in str(headers)


def test_an_identifier_with_other_content_is_a_dead_letter(new_stream, champions):
    stream = new_stream()
    other = body(amount=7.0)
    stream.send([body(), other, body(1)])
    run_to_the_end(stream, champions)

    check_outcome(stream, [body(), body(1)], {json.dumps(other).encode(): "conflict"})


def test_a_tombstone_decides_and_deletes_nothing(new_stream, champions):
    stream = new_stream()
    stream.send([body(), None, body(1)])
    thread = run_to_the_end(stream, champions)

    check_outcome(stream, [body(), body(1)])
    assert thread.count("tombstone") == 1


def test_a_duplicate_gets_the_prior_answer_and_counts_once(new_stream, champions):
    stream, transactions = new_stream(), make_transactions(200)
    stream.send([each for transaction in transactions for each in (transaction, transaction)])
    stream.send(transactions)
    thread = run_to_the_end(stream, champions)

    check_outcome(stream, transactions)
    assert (thread.count("decided"), thread.count("repeated")) == (200, 400)
    assert len(stream.published()) == 600


def test_a_late_message_is_decided_as_of_its_own_time_and_changes_no_decision(new_stream, champions):
    stream, in_order = new_stream(), make_transactions(100)
    late = in_order[40:50]
    stream.send([transaction for transaction in in_order if transaction not in late])
    run_to_the_end(stream, champions)
    before = stream.published()

    stream.send(late)
    run_to_the_end(stream, champions)

    assert stream.published()[: len(before)] == before
    decisions = {each.content.request["transaction_id"]: each for each in stored_decisions(stream)}
    # The late ones see everything before their own time, so they have the features of the batch path.
    everything = [decisions[each["transaction_id"]] for each in in_order]
    table = compare_with_batch(everything, in_order)
    assert table.n == 100
    rows = [decisions[each["transaction_id"]].content.row for each in late]
    assert len(rows) == 10
    only_late = compare_with_batch([decisions[each["transaction_id"]] for each in in_order[:50]], in_order[:50])
    assert only_late.equal, str(only_late)


# Places


def test_the_stores_place_holds_where_kafkas_offsets_are_gone(new_stream, champions):
    stream, transactions = new_stream(), make_transactions(50)
    stream.send([*transactions, b"{"])
    run_to_the_end(stream, champions)
    client, group = AdminClient({"bootstrap.servers": stream.settings.kafka}), stream.settings.stream_group
    client.delete_consumer_groups([group])[group].result()

    more = make_transactions(10, prefix="more", start=START + timedelta(days=1))
    stream.send(more)
    thread = run_to_the_end(stream, champions)

    assert (thread.count("decided"), thread.count("repeated"), thread.count("dead")) == (10, 0, 0)
    check_outcome(stream, [*transactions, *more], {b"{": "malformed_json"})


def test_an_offset_of_kafka_beyond_the_store_is_not_believed(new_stream, champions):
    stream, transactions = new_stream(), make_transactions(50)
    stream.send(transactions)
    consumer = open_consumer(stream.settings, stream.settings.stream_group)
    consumer.commit(offsets=[TopicPartition(stream.settings.stream_topic, 0, 50)], asynchronous=False)
    consumer.close()

    with working(stream, champions) as thread:
        wait_until(lambda: thread.count("decided") == 50, "not all were decided")
    check_outcome(stream, transactions)


@pytest.mark.parametrize("point", ["before publishing", "before the dead letters", "after the dead letters"])
def test_a_worker_that_dies_between_two_steps(new_stream, champions, monkeypatch, point):
    stream, transactions = new_stream(), make_transactions(100)
    stream.send([*transactions[:50], b"{", *transactions[50:]])
    write = DeadLetterWriter.write

    def write_and_crash(*arguments: Any) -> bool:
        write(*arguments)
        raise Crash

    target, name, step = {
        "before publishing": (StreamWorker, "_publish", crash),
        "before the dead letters": (DeadLetterWriter, "write", crash),
        "after the dead letters": (DeadLetterWriter, "write", write_and_crash),
    }[point]
    with monkeypatch.context() as patch:
        patch.setattr(target, name, step)
        with pytest.raises(Crash), working(stream, champions) as thread:
            wait_until(lambda: not thread._thread.is_alive(), "the worker did not die")
    assert len(stored_decisions(stream)) == 100

    run_to_the_end(stream, champions)

    check_outcome(stream, transactions, {b"{": "malformed_json"})


def test_decisions_and_places_are_one_transaction(new_stream, champions, monkeypatch):
    stream = new_stream()
    stream.send(make_transactions(20))
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr("bento.stream.micro_batch.save_places", crash)
        with working(stream, champions) as thread:
            wait_until(lambda: not thread._thread.is_alive(), "the worker did not die")

    assert stored_decisions(stream) == []
    run_to_the_end(stream, champions)
    with closing(open_store(stream.settings)) as store:
        assert [place[2:] for place in load_places(store, stream.settings.stream_topic).values()] == [(20, 20)]


def test_messages_that_retention_deleted_are_counted(new_stream, champions):
    stream, transactions = new_stream(), make_transactions(30)
    stream.send(transactions[:10])
    run_to_the_end(stream, champions)
    stream.send(transactions[10:])
    client = AdminClient({"bootstrap.servers": stream.settings.kafka})
    place = TopicPartition(stream.settings.stream_topic, 0, 25)
    client.delete_records([place])[place].result()

    thread = run_to_the_end(stream, champions)

    assert thread.count("decided") == 5
    assert thread.metrics.shared.registry.get_sample_value("finrisk_stream_lost_total") == 15


def test_a_topic_that_was_created_again_is_read_from_its_beginning(new_stream, champions):
    stream, transactions = new_stream(), make_transactions(40)
    stream.send(transactions[:30])
    run_to_the_end(stream, champions)
    client, topic = AdminClient({"bootstrap.servers": stream.settings.kafka}), stream.settings.stream_topic
    client.delete_topics([topic], operation_timeout=10)[topic].result()
    wait_until(lambda: topic not in client.list_topics(timeout=5).topics, "the topic was not deleted")
    again = Stream(stream.settings, 1)
    again.send(transactions[30:])

    with working(again, champions) as thread:
        wait_until(lambda: thread.count("decided") == 10, "not all were decided")
    check_outcome(again, transactions)


# Back-pressure


def test_a_store_that_is_away_is_waited_for_and_nothing_is_lost(new_stream, champions, monkeypatch):
    stream, transactions = new_stream(), make_transactions(2_000)
    stream.send(transactions)
    with working(stream, champions, wait_s=0.05) as thread, closing(open_store(stream.settings)) as other:
        wait_until(lambda: thread.count("decided") > 0, "nothing was decided")
        waiting = thread.metrics.shared.registry
        with other.writing():
            wait_until(lambda: waiting.get_sample_value("finrisk_stream_waiting") == 1 or stream.lag() == 0, "it did not wait")
        stream.wait_for_all()
        wait_until(lambda: waiting.get_sample_value("finrisk_stream_waiting") == 0, "it still waits")

    check_outcome(stream, transactions)


# Dead letters again


def test_dead_letters_are_sent_again_once(new_stream, champions, monkeypatch):
    stream, transactions = new_stream(), make_transactions(10)
    stream.send([*transactions, b"{"])
    with monkeypatch.context() as patch:
        patch.setattr("bento.stream.messages.MAX_MESSAGE_BYTES", 10)
        run_to_the_end(stream, champions)
    assert len(stream.dead_letters()) == 11

    assert redrive(stream.settings, limit=4, reason="too_large") == (4, 0)
    assert redrive(stream.settings, reason="too_large") == (6, 1)
    assert redrive(stream.settings) == (0, 0)
    # The end of a transaction is an offset without a message, so the lag stays above 0.
    with working(stream, champions) as thread:
        wait_until(lambda: thread.count("decided") == 10, "not all were decided")

    assert len(stored_decisions(stream)) == len(stream.published()) == 10
    assert len(stream.dead_letters()) == 11


# Refusals


def test_a_missing_topic_is_named(new_stream):
    stream = new_stream()
    with pytest.raises(StreamError, match=r"Kafka has no topic missing, missing-dlq: create it, or run `finrisk stream topics`"):
        check_topics(Settings(kafka=stream.settings.kafka, stream_topic="missing", stream_decisions=stream.settings.stream_decisions))


def test_a_file_of_properties_is_read_and_a_secret_is_private(tmp_path):
    file = tmp_path / "kafka.properties"
    file.write_text("# TLS\nsecurity.protocol = SASL_SSL\nsasl.password=a=b\n")
    file.chmod(0o600)
    properties = client_properties(Settings(kafka_config=file))
    assert (properties["security.protocol"], properties["sasl.password"]) == ("SASL_SSL", "a=b")

    file.chmod(0o644)
    tmp_path.chmod(0o755)
    with pytest.raises(StreamError, match="run `chmod 600"):
        client_properties(Settings(kafka_config=file))
    file.write_text("nonsense")
    with pytest.raises(StreamError, match=r"kafka.properties, line 1, is no property: write NAME=VALUE"):
        client_properties(Settings(kafka_config=file))


def test_a_property_that_librdkafka_does_not_know_is_an_error(tmp_path):
    file = tmp_path / "kafka.properties"
    file.write_text("no.such=1")
    with pytest.raises(StreamError, match=r"Kafka's client refuses its properties: .*no.such"):
        open_consumer(Settings(kafka_config=file), "group")


# The schema of a message


def test_the_schema_takes_what_the_worker_takes():
    schema = message_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for example in TransactionRequest.examples.values():
        assert validator.is_valid(dict(example) | {"transaction_id": "1"})
        assert not validator.is_valid(dict(example)), "the identifier is required"
    assert not validator.is_valid(body(card="4000"))
    assert schema["properties"].keys() == TransactionRequest.model_fields.keys()
