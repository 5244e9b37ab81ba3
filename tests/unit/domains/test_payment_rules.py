"""Tests of the policy's rules on transactions: each kind by hand, the whole against a plain loop, and the words of what fired."""

from datetime import datetime, timedelta
from typing import Any

import ibis
import numpy as np
import pandas as pd
import pytest
from pydantic import TypeAdapter

from finrisk_assets.domains.transaction_anomaly.country_distances import COUNTRIES, distances_km
from finrisk_assets.domains.transaction_anomaly.decide import escalate
from finrisk_assets.domains.transaction_anomaly.ledger_rules import FIRED, escalate_all, evaluate_rules, join_fired
from finrisk_assets.domains.transaction_anomaly.rules import (
    Movements,
    Payments,
    encode_country,
    find_fired,
    measure_rules,
    word_rule,
)
from finrisk_assets.policy.payment_rules import PaymentRule, PaymentRules

START = datetime(2024, 5, 6, 12)
HOUR_US = 3_600_000_000


def rule_of(kind: str, **keys: Any) -> PaymentRule:
    (rule,) = TypeAdapter(PaymentRules).validate_python([{"name": "one", "enabled": True, "action": "review", "kind": kind, **keys}])
    return rule


def movements(*rows: tuple[float, float, str | None], customer: int = 0) -> Movements:
    """Return transactions of one customer: hours after the start, amount, country."""
    columns = [(customer, round(hour * HOUR_US), round(amount * 100), encode_country(country)) for hour, amount, country in rows]
    return Movements(*(np.array([row[at] for row in columns], np.int64) for at in range(4)))


def fires(
    rule: PaymentRule, payment: tuple[float, float, str | None], *history: tuple[float, float, str | None], **more: Any
) -> str | None:
    """Return the words of a rule on one transaction; None where it does not fire."""
    own = movements(payment)
    measured = measure_rules([rule], own, movements(*history))
    payments = Payments(
        own, np.array([payment[1]]), np.array([more.get("direction", "debit")], object), np.array([more.get("merchant")], object)
    )
    if not find_fired([rule], payments, measured)[rule.name][0]:
        return None
    return word_rule(rule, payment[1], payment[2], {name: values[0].item() for name, values in measured.get(rule.name, {}).items()})


def test_an_amount_fires_from_its_limit_on_and_in_its_direction() -> None:
    rule = rule_of("amount_limit", from_amount=1000)
    assert fires(rule, (0, 999.99, None)) is None
    assert fires(rule, (0, 1000, None)) == "The amount of 1,000.00 reaches the limit of 1,000.00"
    assert fires(rule, (0, 1000, None), direction="credit") is None
    assert fires(rule_of("amount_limit", from_amount=1000, direction="any"), (0, 1000, None), direction="credit") is not None


def test_velocity_counts_the_open_interval_before_and_the_transaction_itself() -> None:
    rule = rule_of("velocity", within_hours=1, max_transactions=2)
    assert fires(rule, (1, 5, None), (0.5, 5, None)) is None
    # Exactly an hour before and the same instant do not count, nor does what comes later.
    assert fires(rule, (1, 5, None), (0, 5, None), (0.5, 5, None), (1, 5, None), (1.5, 5, None)) is None
    assert fires(rule, (1, 5, None), (0.1, 5, None), (0.5, 5, None)) == "3 transactions within 1 hours, this one included: more than 2"


def test_velocity_adds_up_amounts() -> None:
    rule = rule_of("velocity", within_hours=24, max_amount=100)
    assert fires(rule, (2, 60, None), (1, 40, None)) is None
    assert fires(rule, (2, 60.01, None), (1, 40, None)) == "Transactions of 100.01 within 24 hours, this one included: more than 100.00"


def test_lists_of_countries_and_merchants() -> None:
    country = rule_of("country", countries=["kp", " IR"])
    assert fires(country, (0, 1, "KP")) == "KP is one of the countries of this rule"
    assert fires(country, (0, 1, "AT")) is None and fires(country, (0, 1, None)) is None
    merchant = rule_of("merchant", merchants=[3156, "CryptoX"])
    assert fires(merchant, (0, 1, None), merchant="3156") == "The merchant is one of those of this rule"
    assert fires(merchant, (0, 1, None), merchant="other") is None and fires(merchant, (0, 1, None)) is None


def test_a_country_is_new_where_enough_is_known_of_the_customer() -> None:
    rule = rule_of("new_country", within_days=90, min_transactions=2, from_amount=10)
    home = ((1, 5, "AT"), (2, 5, "AT"), (3, 5, None))
    said = "None of the customer's 2 transactions in known countries of the last 90 days was in SG"
    assert fires(rule, (4, 10, "SG"), *home) == said
    assert fires(rule, (4, 9, "SG"), *home) is None
    assert fires(rule, (4, 10, "AT"), *home) is None
    assert fires(rule, (4, 10, None), *home) is None
    assert fires(rule, (4, 10, "SG"), *home[1:]) is None
    assert fires(rule, (4, 10, "SG"), *home, (3.5, 5, "SG")) is None


def test_travel_is_impossible_by_distance_and_time() -> None:
    rule = rule_of("impossible_travel", within_hours=24, max_kmh=1000, min_km=1500)
    assert fires(rule, (2, 5, "SG"), (0, 5, "DE")) == (
        "A transaction in DE was 2.0 hours earlier, 9,920 km away: 4,960 km/h, more than 1,000 km/h"
    )
    assert fires(rule, (12, 5, "SG"), (0, 5, "DE")) is None  # twelve hours are enough
    assert fires(rule, (0.1, 5, "FR"), (0, 5, "DE")) is None  # too near
    assert fires(rule, (2, 5, "SG"), (1.9, 5, "SG"), (0, 5, "DE")) is not None  # whatever came between
    assert fires(rule, (2, 5, None), (0, 5, "DE")) is None and fires(rule, (2, 5, "SG"), (0, 5, None)) is None
    assert (fires(rule, (10 / 3600, 5, "SG"), (0, 5, "DE")) or "").startswith("A transaction in DE was 10 seconds earlier")


def test_distances_are_symmetric_and_between_what_an_atlas_says() -> None:
    km, at = distances_km(), COUNTRIES.index
    assert np.array_equal(km, km.T, equal_nan=True) and (np.diag(km)[~np.isnan(np.diag(km))] == 0).all()
    for one, other, atlas in (("DE", "SG", 9_930), ("AT", "SK", 55), ("GB", "IS", 1_890), ("JP", "KR", 1_160)):
        assert km[at(one), at(other)] == pytest.approx(atlas, rel=0.1)
    assert {country for country in COUNTRIES if np.isnan(km[at(country)]).all()} == {"BV", "HM"}  # nobody lives there


_EACH = {"enabled": True, "action": "review"}
RULES = TypeAdapter(PaymentRules).validate_python(
    [
        {"name": "limit", "kind": "amount_limit", **_EACH, "from_amount": 180},
        {"name": "burst", "kind": "velocity", **_EACH, "within_hours": 6, "max_transactions": 3, "max_amount": 400},
        {"name": "new", "kind": "new_country", **_EACH, "within_days": 5, "min_transactions": 3},
        {"name": "travel", "kind": "impossible_travel", **_EACH | {"action": "block"}, "within_hours": 9, "max_kmh": 900, "min_km": 500},
    ]
)


def ledger(n: int = 1500, seed: int = 3) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "transaction_id": [f"t{number}" for number in range(n)],
            "customer_id": rng.choice([f"c{number}" for number in range(12)], n),
            "occurred_at": [START + timedelta(minutes=int(minute)) for minute in rng.integers(0, 60 * 24 * 20, n)],  # with equal instants
            "amount": np.round(rng.gamma(2, 40, n), 2),
            "direction": rng.choice(["debit", "credit"], n, p=[0.9, 0.1]),
            "merchant": "m",
            "country": rng.choice(["AT", "DE", "SG", "US", None], n, p=[0.6, 0.2, 0.08, 0.07, 0.05]),
        }
    )


def expected(frame: pd.DataFrame, rule: PaymentRule, row: Any) -> bool:
    """Return whether a rule fires on a row, by a plain loop."""
    if row.direction != "debit" or row.amount < rule.from_amount:
        return False
    days = getattr(rule, "within_days", None)
    window = timedelta(days=days) if days else timedelta(hours=getattr(rule, "within_hours", 1))
    earlier = [
        one
        for one in frame[frame.customer_id == row.customer_id].itertuples()
        if row.occurred_at - window < one.occurred_at < row.occurred_at
    ]
    if rule.kind == "amount_limit":
        return True
    if rule.kind == "velocity":
        return len(earlier) + 1 > 3 or round(sum(one.amount for one in earlier) + row.amount, 2) > 400
    if rule.kind == "new_country":
        known = [one.country for one in earlier if pd.notna(one.country)]
        return pd.notna(row.country) and len(known) >= 3 and row.country not in known
    km, at = distances_km(), COUNTRIES.index
    return any(
        pd.notna(one.country)
        and pd.notna(row.country)
        and one.country != row.country
        and km[at(row.country), at(one.country)] >= 500
        and km[at(row.country), at(one.country)] / ((row.occurred_at - one.occurred_at).total_seconds() / 3600) > 900
        for one in earlier
    )


def test_a_whole_ledger_agrees_with_a_plain_loop_over_each_transaction() -> None:
    frame = ledger()
    first = START + timedelta(days=8)
    evaluated = evaluate_rules(ibis.memtable(frame), RULES, first, START + timedelta(days=30))
    rows = frame.set_index("transaction_id")
    assert set(evaluated.transaction_id) == set(frame.transaction_id[frame.occurred_at >= first])
    for rule in RULES:
        by_loop = [expected(frame, rule, rows.loc[name]) for name in evaluated.transaction_id]
        assert 0.005 < np.mean(by_loop) < 0.7, rule.name
        assert evaluated.fired[rule.name].tolist() == by_loop, rule.name


def test_a_source_without_merchants_and_countries_is_evaluated_too() -> None:
    frame = ledger(200).drop(columns=["merchant", "country", "direction"])
    evaluated = evaluate_rules(ibis.memtable(frame), RULES, START, START + timedelta(days=30))
    assert evaluated.fired["limit"].any() and not evaluated.fired["travel"].any() and not evaluated.fired["new"].any()


def test_fired_rules_are_joined_to_rows_and_disabled_ones_never() -> None:
    frame = ledger(300)
    table = ibis.memtable(frame)
    rows = table.select("transaction_id", "occurred_at")
    assert join_fired(rows, table, [rule.model_copy(update={"enabled": False}) for rule in RULES]) is rows
    joined = join_fired(rows, table, RULES).to_pandas().set_index("transaction_id")[FIRED]
    evaluated = evaluate_rules(table, RULES, START, START + timedelta(days=30))
    for number, name in enumerate(evaluated.transaction_id):
        fired = [rule.name for rule in RULES if evaluated.fired[rule.name][number]]
        assert joined[name] == " ".join(fired) if fired else pd.isna(joined[name])


def test_the_strictest_of_model_and_rules_decides() -> None:
    assert escalate("allow", []) == "allow" and escalate("block", ["review"]) == "block" and escalate("review", ["block"]) == "block"
    decided = escalate_all(["allow", "allow", "block", "review"], ["limit", "limit travel", "limit", None], RULES)
    assert decided == ["review", "block", "block", "review"]
