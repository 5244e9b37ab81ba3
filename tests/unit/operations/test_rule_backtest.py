"""Tests of the back-test of rules and of the analysts' capacity, counted by hand on ten transactions."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from finrisk_assets.cli.main import cli
from finrisk_assets.operations.backtests import alert_capacity, decided_history
from finrisk_assets.operations.backtests.alert_capacity import measure_level
from finrisk_assets.operations.backtests.decided_history import DecidedHistory
from finrisk_assets.operations.backtests.rule_backtest import AlertCount, count_rules
from finrisk_assets.policy.document import Policy
from finrisk_assets.policy.policy_file import default_policy

LIMIT = {"name": "limit", "kind": "amount_limit", "enabled": True, "action": "review", "from_amount": 100}
LIST = {"name": "list", "kind": "country", "enabled": False, "action": "block", "countries": ["KP"]}


def policy_of(*rules: dict[str, Any]) -> Policy:
    """Return a policy whose review costs 5, finds every fraud, and whose wrong block costs 25."""
    content = default_policy().model_dump(mode="json")
    content["transaction_anomaly"] |= {
        "rules": list(rules), "review_cost_amount": 5.0, "review_finds_share": 1.0, "block_cost_amount": 25.0, "reviews_per_day": 2,
    }  # fmt: skip
    return Policy.model_validate(content)


def history(*rules: dict[str, Any], **thresholds: float) -> DecidedHistory:
    """Return ten transactions of two days: the first three are fraud, the model reviews the first and the fourth."""
    bundle: Any = SimpleNamespace(policy=policy_of(*(rules or (LIMIT, LIST))), thresholds=thresholds or {"review_loss": 5.0})
    decision = np.array(["review", "allow", "allow", "review", *["allow"] * 6])
    fired = {"limit": np.arange(10) % 2 == 0, "list": np.isin(np.arange(10), [1, 9])}
    return DecidedHistory(
        bundle, datetime(2024, 5, 1), datetime(2024, 5, 2), 2, True, np.full(10, 100.0), np.arange(10) < 3, np.zeros(10), decision, fired
    )


def test_a_rule_is_counted_alone_and_beyond_the_model() -> None:
    done = count_rules(history())
    limit, listed = done.rules
    # Rows 0, 2, 4, 6, 8: two frauds of 100, five reviews of 5. The model has row 0 already.
    assert limit.alone == AlertCount(5, 2.5, 2, 200.0, 175.0)
    assert limit.beyond == AlertCount(4, 2.0, 1, 100.0, 80.0)
    # Rows 1 and 9 are blocked: a fraud of 100, and a genuine payment at 25.
    assert listed.alone == listed.beyond == AlertCount(2, 1.0, 1, 100.0, 75.0)
    assert done.model == AlertCount(2, 1.0, 1, 100.0, 90.0)
    assert done.model_and_enabled == AlertCount(6, 3.0, 2, 200.0, 170.0)  # not the list, which is disabled
    assert (limit.enabled, listed.enabled, done.history.frauds, done.history.transactions) == (True, False, 3, 10)


def test_a_rule_that_blocks_what_the_model_reviews_raises_no_alert_more_and_is_worth_what_it_changes() -> None:
    ten = history()
    ten.fired["list"] = np.arange(10) == 3  # genuine, under review by the model
    listed = count_rules(ten).rules[1]
    assert (listed.beyond.alerts, listed.beyond.frauds, listed.beyond.worth_amount) == (0, 0, -20.0)  # 5 of a review become 25


def test_without_labels_alerts_alone_are_counted() -> None:
    done = count_rules(replace(history(), is_fraud=None))
    assert done.rules[0].alone == AlertCount(5, 2.5, None, None, None) and done.history.frauds is None


@pytest.mark.parametrize(("threshold", "is_bound"), [(5.0, True), (7.5, False)])
def test_a_level_says_what_sets_its_threshold_and_what_it_catches(threshold: float, is_bound: bool) -> None:
    level = measure_level(history(review_loss=threshold))
    assert (level.reviews_per_day, level.threshold, level.unit, level.is_bound_by_cost) == (2, threshold, "currency", is_bound)
    assert (level.caught.alerts, level.fraud_share, level.amount_share) == (2, 0.3333, 0.3333)
    assert measure_level(history(anomaly=0.4, review=0.6)).unit == "score"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that runs a command on the ten transactions."""

    def decide(transactions: Any, policy: Policy) -> DecidedHistory:
        ten = history()
        return replace(
            ten, bundle=SimpleNamespace(policy=policy, thresholds={"review_loss": 5.0}), fired=dict.fromkeys(NAMES, ten.fired["limit"])
        )

    NAMES = [rule.name for rule in default_policy().transaction_anomaly.rules]
    for module in (decided_history, alert_capacity):
        monkeypatch.setattr(module, "load_transactions", lambda *_: None)
        monkeypatch.setattr(module, "decide_history", decide)
    return lambda *words: CliRunner().invoke(cli, [*words])


@pytest.mark.parametrize("words", [("rules", "test"), ("capacity", "--alerts-per-day", "30")])
def test_what_the_commands_print_fits_into_80_columns_and_is_there_as_json(run: Callable[..., Any], words: tuple[str, ...]) -> None:
    shown = run(*words)
    assert shown.exit_code == 0, shown.output
    assert max(map(len, shown.output.splitlines())) <= 80
    assert "10 transactions of 2024-05-01 to 2024-05-02 (2 days)," in shown.output and "3 of them fraud" in shown.output
    figures = json.loads(run(*words, "--json").output)
    if words[0] == "rules":
        assert "(impossible_travel)             5       2        175        4       1         80" in shown.output
        assert figures["rules"][0]["beyond"] == {
            "alerts": 4, "alerts_per_day": 2.0, "frauds": 1, "fraud_amount": 100.0, "worth_amount": 80.0
        }  # fmt: skip
    else:
        assert [level["reviews_per_day"] for level in figures["levels"]] == [15, 30, 60]
        assert "30       5.00*          1.0        1     33%         33%           90" in shown.output


def test_a_policy_without_rules_and_a_ledger_without_a_champion_are_told_in_a_sentence(tmp_path: Any, monkeypatch: Any) -> None:
    import yaml

    monkeypatch.setenv("FINRISK_HOME", str(tmp_path))
    bare = tmp_path / "bare.yaml"
    bare.write_text(yaml.safe_dump(policy_of().model_dump(mode="json")))
    refused = CliRunner().invoke(cli, ["rules", "test", "--policy", str(bare)])
    assert refused.exit_code == 1 and "policy default has no rules: `finrisk policy show`" in refused.output
    for words in (["rules", "test"], ["capacity", "--alerts-per-day", "5"]):
        refused = CliRunner().invoke(cli, words)
        assert refused.exit_code == 1 and "there is no champion of transaction anomaly: `make demo` makes one" in refused.output
