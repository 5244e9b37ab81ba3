"""Tests of window features on histories small enough to work out by hand."""

import math
import subprocess
import sys
from datetime import datetime

import ibis
import numpy as np
import pytest

from finrisk_assets.domains.transaction_anomaly.catalogue import FEATURES, HANDBOOK
from finrisk_assets.domains.transaction_anomaly.features import select_features
from finrisk_assets.features import batch, windows
from finrisk_assets.features.online import EventCount, History, OnlineFeatures
from finrisk_assets.features.parity import compare
from finrisk_assets.features.recent_events import MIN_ARRAY_EVENTS, EntityEvents
from finrisk_assets.features.windows import DAY, HOUR, MICRO, Derived, Point, Window
from schemas.features import Feature
from schemas.timestamps import to_micros

NOON = to_micros(datetime(2024, 3, 2, 12))  # a Saturday
CUSTOMER = ("customer_id",)


def find_feature(name: str) -> Feature:
    return Feature(name, "", "")


def window(aggregate, length_s=DAY, column=None, **more):
    return Window(find_feature(f"{aggregate}_{length_s}"), more.pop("entity", CUSTOMER), aggregate, length_s, column, **more)


def rows(*events):
    """Return events (seconds before noon, amount[, is_fraud[, label known after, in seconds]]) of customer c at merchant m."""
    table = []
    for number, (before_s, amount, *label) in enumerate(events):
        at = NOON - round(before_s * MICRO)
        known = at + round(label[1] * MICRO) if len(label) > 1 else None
        table.append(
            {
                "transaction_id": str(number), "customer_id": "c", "merchant": "m", "occurred_at_us": at, "amount": float(amount),
                "direction": "debit", "is_fraud": label[0] if label else None, "label_known_at_us": known,
            }
        )  # fmt: skip
    return table


def online(feature, events, at_us=NOON, **event):
    """Return the feature's online value for an event of 10.00 at noon."""
    current = {"occurred_at_us": at_us, "amount": 10.0, "customer_id": "c", "merchant": "m", "direction": "debit", **event}
    history = History.of((e["occurred_at_us"], e["amount"], e["is_fraud"], e["label_known_at_us"]) for e in events)
    computed = OnlineFeatures([feature])
    return float(computed.compute(current, dict.fromkeys(computed.history_s, history))[0])


def in_batch(feature, events, **event):
    """Return the feature's batch value: the event of 10.00 at noon is the last row of the table."""
    last = {**rows((0, 10.0))[0], "transaction_id": "now", **event}
    schema = {
        "transaction_id": "string", "customer_id": "string", "merchant": "string", "occurred_at_us": "int64",
        "amount": "float64", "direction": "string", "is_fraud": "boolean", "label_known_at_us": "int64",
    }  # fmt: skip
    table = ibis.memtable([*events, last], schema=schema)
    epoch = ibis.timestamp("1970-01-01 00:00:00")
    table = table.mutate(
        occurred_at=epoch + table.occurred_at_us.as_interval("us"),
        label_known_at=epoch + table.label_known_at_us.as_interval("us"),
    )
    computed = batch.compute(table, [feature])
    value = computed.filter(computed.transaction_id == "now")[feature.feature.name].to_pyarrow()[0].as_py()
    return math.nan if value is None else value


def test_frauds_without_delay_are_no_events() -> None:
    frauds = window("sum", DAY, "is_fraud")
    events = rows((HOUR, 5.0, True, 0), (2 * HOUR, 5.0, False, 0), (3 * HOUR, 5.0, True, HOUR))
    assert online(frauds, events) == 1.0  # the third became known later than at its own time


def test_amounts_in_memory_are_the_hundredths_of_the_rows() -> None:
    events = [(NOON - number, amount, None, None) for number, amount in enumerate((1e12, 0.005, 19.99, 0.1))]
    in_memory = EntityEvents(0, [(*event, None, None) for event in events]).list_history(0, NOON + 1, {})
    assert [*map(list, in_memory)] == [*map(list, History.of(events))]


@pytest.mark.parametrize("n_events", [MIN_ARRAY_EVENTS - 2, MIN_ARRAY_EVENTS + 2])
def test_events_of_one_merchant_are_counted_by_either_method(n_events: int) -> None:
    events = EntityEvents(0, [(NOON - number, 1.0, None, None, str(number % 3) * 32, None) for number in range(n_events)])
    (count,) = events.count([EventCount(DAY)], NOON + 1, {"merchant": "1" * 32})
    assert count == len(range(1, n_events, 3))


def value(feature, events, **event):
    """Return the feature's value, after a check that both executions agree."""
    both = online(feature, events, **event), in_batch(feature, events, **event)
    assert both[0] == pytest.approx(both[1], rel=1e-12, nan_ok=True)
    return both[0]


@pytest.mark.parametrize(
    ("before_s", "inside"),
    [(0, False), (1e-6, True), (DAY - 1e-6, True), (DAY, False), (-1, False)],
    ids=["same instant", "a microsecond before", "just inside", "just outside", "after"],
)
def test_window_is_open_at_both_ends(before_s, inside):
    assert value(window("count"), rows((before_s, 1.0))) == inside


@pytest.mark.parametrize(("before_s", "inside"), [(HOUR, True), (HOUR - 1e-6, False), (DAY + HOUR, False), (DAY + HOUR - 1e-6, True)])
def test_delayed_window_is_closed_at_its_end(before_s, inside):
    assert value(window("count", delay_s=HOUR), rows((before_s, 1.0))) == inside


def test_current_event_belongs_to_the_window_only_where_declared():
    events = rows((5, 20.0), (9, 30.0))
    assert value(window("count"), events) == 2
    assert value(window("count", current=True), events) == 3
    assert value(window("sum", column="amount"), events) == 50
    assert value(window("sum", column="amount", current=True), events) == 60
    assert value(window("mean", column="amount", current=True), events) == 20
    assert value(window("max", column="amount", current=True), rows((5, 2.0))) == 10


def test_empty_history():
    assert value(window("count"), []) == 0
    assert value(window("sum", column="amount"), []) == 0
    for aggregate in ("mean", "std", "max"):
        assert math.isnan(value(window(aggregate, column="amount"), []))
    assert value(window("mean", column="is_fraud", empty=0.0), []) == 0
    assert value(window("since", 30 * DAY), []) == 720


def test_hours_since_the_latest_event():
    assert value(window("since", 30 * DAY), rows((2 * HOUR, 1.0), (5 * HOUR, 1.0), (0, 1.0), (-60, 1.0))) == 2
    assert value(window("since", DAY), rows((25 * HOUR, 1.0))) == 24


def test_missing_entity_leaves_its_features_missing():
    feature = window("count", entity=("merchant",))
    strangers = [{**event, "merchant": None} for event in rows((5, 1.0), (6, 1.0))]
    assert math.isnan(value(feature, strangers, merchant=None))
    assert math.isnan(value(window("count", entity=("customer_id", "merchant")), strangers, merchant=None))


def test_fraud_counts_only_when_its_label_was_known_in_time():
    risk = window("mean", 30 * DAY, "is_fraud", delay_s=7 * DAY)
    old = 10 * DAY
    assert value(risk, rows((old, 1.0, True, 7 * DAY), (old, 1.0, False, 7 * DAY))) == 0.5
    assert value(risk, rows((old, 1.0, True, 7 * DAY + 1))) == 0
    assert value(risk, rows((old, 1.0, True), (old, 1.0))) == 0
    assert math.isnan(value(risk, rows((6 * DAY, 1.0, True, 0))))


def test_deviation_keeps_its_digits_on_large_amounts():
    deviation = window("std", column="amount")
    assert value(deviation, rows((1, 1e8), (2, 1e8 + 0.01), (3, 1e8 + 0.02))) == pytest.approx(0.01, rel=1e-6)
    assert value(deviation, rows(*((second, 99_999.99) for second in range(1, 60)))) == 0
    assert math.isnan(value(deviation, rows((1, 5.0))))


def test_sums_are_exact():
    assert value(window("sum", column="amount"), rows(*((second, 0.1) for second in range(1, 11)))) == 1.0


def test_derived_features():
    amount, mean = Point(find_feature("amount"), "amount"), window("mean", column="amount")
    count, deviation = window("count"), window("std", column="amount")
    ratio = Derived(find_feature("ratio"), "ratio", (amount, mean))
    score = Derived(find_feature("score"), "zscore", (amount, mean, deviation))
    new = Derived(find_feature("new"), "is_zero", (count,))
    assert value(ratio, rows((1, 4.0), (2, 6.0))) == 2
    assert math.isnan(value(ratio, [])) and math.isnan(value(ratio, rows((1, 0.0))))
    assert value(score, rows((1, 4.0), (2, 6.0))) == pytest.approx(5 / math.sqrt(2))
    assert value(score, rows((1, 5.0), (2, 5.0))) == pytest.approx(100), "divides by a hundredth of the mean at least"
    assert value(Derived(find_feature("more"), "difference", (amount, mean)), rows((1, 4.0))) == 6
    assert (value(new, []), value(new, rows((1, 1.0)))) == (1, 0)


def test_readings_of_the_event():
    read = {reading: value(Point(find_feature("it"), reading), []) for reading in windows.get_args(windows.Reading)}
    assert read["amount"] == 10 and read["log_amount"] == pytest.approx(math.log(11))
    assert read["hour"] == 12 and read["hour_cos"] == pytest.approx(-1) and read["hour_sin"] == pytest.approx(0)
    assert (read["is_weekend"], read["is_night"], read["is_credit"]) == (1, 0, 0)
    six = NOON - 6 * HOUR * MICRO + (HOUR - 1) * MICRO
    assert online(Point(find_feature("it"), "is_night"), [], at_us=six) == 1
    assert online(Point(find_feature("it"), "is_night"), [], at_us=six + MICRO) == 0
    assert online(Point(find_feature("it"), "is_weekend"), [], at_us=NOON + 2 * DAY * MICRO) == 0


def test_order_of_history_does_not_matter():
    events = rows((60, 1.0, True, 0), (3 * HOUR, 2.0, False, 0), (10 * DAY, 7.5, True, 3 * DAY), (40 * DAY, 3.0))
    features = select_features({"occurred_at", "customer_id", "amount", "direction"})
    for feature in features:
        assert online(feature, events) == pytest.approx(online(feature, events[::-1]), nan_ok=True)


@pytest.mark.parametrize("aggregate", ["std", "sum", "mean"])
def test_order_of_events_at_one_time_does_not_change_a_digit(aggregate):
    draw = np.random.default_rng(5)
    amounts = draw.lognormal(3, 2, 40).round(2)
    values = {value(window(aggregate, column="amount"), rows(*((HOUR, amount) for amount in draw.permutation(amounts)))) for _ in range(20)}
    assert len(values) == 1


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"aggregate": "median", "column": "amount"}, "median"),
        ({"aggregate": "sum"}, "needs a column"),
        ({"aggregate": "count", "column": "amount"}, "takes no column"),
        ({"aggregate": "count", "length_s": 0}, "length above 0"),
        ({"aggregate": "std", "column": "amount", "current": True}, "without delay"),
        ({"aggregate": "max", "column": "is_fraud"}, "is_fraud"),
    ],
)
def test_contradictory_declarations_are_refused(parts, says):
    with pytest.raises(ValueError, match=says):
        window(**parts)


def test_missing_column_is_named():
    table = ibis.table({"transaction_id": "string", "customer_id": "string", "occurred_at": "timestamp"}, name="t")
    with pytest.raises(ValueError, match="amount"):
        batch.compute(table, [window("sum", column="amount")])
    with pytest.raises(ValueError, match="declared twice"):
        batch.compute(table, [window("count"), window("count")])


def test_declarations_travel_as_plain_values():
    assert windows.from_json(windows.to_json(FEATURES)) == FEATURES
    assert windows.from_json(windows.to_json(HANDBOOK)) == HANDBOOK


def test_a_source_gets_the_features_it_has_columns_for():
    base = {"transaction_id", "customer_id", "occurred_at", "amount", "direction"}
    names = [feature.feature.name for feature in FEATURES]
    assert len(set(names)) == len(names) == 51 and len(HANDBOOK) == 15
    lacks = {name for name in names} - {feature.feature.name for feature in select_features(base)}
    assert {"merchant_n_1d", "merchant_risk_7d", "is_new_merchant", "is_new_country"} <= lacks
    assert "is_new_merchant" in {f.feature.name for f in select_features(base | {"merchant"})}
    assert set(select_features(base | {"merchant", "country", "is_fraud", "label_known_at"})) == set(FEATURES)
    assert all(f.feature.description and (f.feature.high or f.feature.one or f.feature.fact or f.feature.spoken_by) for f in FEATURES)


def test_certificate_tells_a_difference_and_where():
    batch_rows = np.array([[1.0, np.nan, 1e9], [2.0, 0.0, 1e9]])
    assert compare(batch_rows, batch_rows + [0, 0, 100.0], ["a", "b", "c"]).equal
    other = compare(batch_rows, batch_rows + [1e-5, 0, 0], ["a", "b", "c"])
    assert not other.equal and other.worst == "a" and "worst a" in str(other)
    assert not compare(batch_rows, np.nan_to_num(batch_rows), ["a", "b", "c"]).equal, "missing is not 0"
    assert not compare(batch_rows[:0], batch_rows[:0], ["a", "b", "c"]).equal, "nothing compared proves nothing"


def test_online_imports_numpy_only():
    code = "import sys, finrisk_assets.features.online; print(sorted({'ibis', 'pandas', 'duckdb', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
