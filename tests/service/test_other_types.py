"""Tests of values of another type, which SQLite takes in any column: each is named as a change, and ends no program."""

from contextlib import closing
from pathlib import Path

import pytest

from bento.access.api_keys import KeyVerifier, create_key, list_keys
from bento.decisions import feedback
from bento.decisions.replay import replay
from bento.store.keyring import KeyringError
from bento.store.session import Store
from tests.service.databases import store_at
from tests.service.test_integrity import DAY, NOW, Clock, fill, find_faults, tamper

OF_SECOND = "(select person from decisions where position = 2)"
CHANGES = (
    *(f"update decisions set {column} = {value} where position = 2" for column, value in (
        ("sealed", "'text'"), ("sealed", "7"), ("caller", "x'ff'"), ("person", "x'ff'"), ("domain", "x'00'"), ("id", "x'ff'"),
        ("decided_at", "'x'"), ("probability", "'x'"), ("decision", "x'ff'"), ("policy_version", "x'ff'"),
    )),
    *(f"update audit set {column} = {value} where number = 2" for column, value in (
        ("number", "'x'"), ("caller", "x'ff'"), ("output", "x'ff'"), ("at", "x'00'"), ("hash", "x'00'"), ("inputs", "x'00'"),
    )),
    *(f"update audit_heads set {column} = {value}" for column, value in (
        ("hash", "x'00'"), ("mac", "x'00'"), ("mac", "'é'"), ("number", "'x'"),
    )),
    *(f"update checkpoints set {column} = {value}" for column, value in (("writer", "x'00'"), ("at", "'x'"), ("mac", "'é'"))),
    f"update people set wrapped_key = 'abc' where person = {OF_SECOND}",
    f"update people set lookup = x'00' where person = {OF_SECOND}",
    f"update people set master = x'00' where person = {OF_SECOND}",
    *(f"update feedback set {column} = {value} where position = 1" for column, value in (
        ("note", "'x'"), ("label", "'x'"), ("known_at", "x'00'"), ("decision", "x'ff'"),
    )),
    *(f"update keys set {column} = {value} where name = 'one'" for column, value in (
        ("roles", "x'00'"), ("mac", "x'00'"), ("mac", "'é'"), ("created_at", "'x'"), ("hash", "'é'"),
    )),
)  # fmt: skip
"""Changes of one column of each kind to a value of another type, or to a text that no MAC is."""


@pytest.fixture
def filled(tmp_path: Path):
    with closing(store_at(tmp_path / "store.sqlite", durable=False, clock=Clock())) as store:
        fill(store)
    with closing(store_at(tmp_path / "store.sqlite", durable=False, clock=Clock(NOW + DAY))) as store:
        yield store


@pytest.mark.parametrize("change", CHANGES)
def test_a_value_of_another_type_is_named_as_a_change(filled: Store, change: str) -> None:
    tamper(filled, change)

    assert find_faults(filled)
    replay(filled, lambda *_: None)
    feedback.list_labels(filled, "transaction_anomaly")


def test_a_key_of_which_no_column_has_its_type_leaves_the_other_keys_alone(filled: Store) -> None:
    with filled.writing() as connection:
        _, shown = create_key(connection, filled.keyring.mac, "valid", ["scorer"], now=1)
    tamper(filled, "insert into keys select 'zz', 's', 'h', x'00', x'00', 'x', 'x', null, null")

    def read_keys():
        with filled.reading() as connection:
            return list_keys(connection)

    assert KeyVerifier(read_keys, filled.keyring.mac).verify(shown).roles == {"scorer"}


def test_a_label_with_a_note_of_another_type_is_refused_and_the_others_count(filled: Store) -> None:
    before = feedback.list_labels(filled, "transaction_anomaly")
    tamper(filled, "update feedback set note = 'x' where position = 1")

    after = feedback.list_labels(filled, "transaction_anomaly")
    assert (len(after.labels), after.refused) == (len(before.labels) - 1, 1)


def test_a_wrapped_key_of_another_type_is_a_fault_of_the_store(filled: Store) -> None:
    tamper(filled, "update people set wrapped_key = 'abc' where wrapped_key is not null")
    for customer in ("ada", "bob", "cyd"):
        with pytest.raises(KeyringError):
            filled.person(customer)
