"""The policy file: the shipped one, its hash, the errors of a wrong one, and where the one in effect comes from."""

from pathlib import Path

import pytest

from finrisk_assets.operations.policy_diff import list_changed_keys
from finrisk_assets.policy.payment_rules import RULE_KINDS
from finrisk_assets.policy.policy_file import (
    DEFAULT_POLICY,
    PolicyError,
    default_policy,
    document_keys,
    find_policy_file,
    load_policy,
    parse_policy,
    read_policy,
)
from finrisk_assets.settings import Settings

TEXT = DEFAULT_POLICY.read_text(encoding="utf-8")


def test_every_key_of_the_shipped_policy_is_explained() -> None:
    keys = {key: comment for key, _, comment in document_keys(TEXT)}
    assert all(keys.values()), [key for key, comment in keys.items() if not comment]
    assert set(default_policy().flatten()) <= set(keys)


def test_the_hash_is_that_of_the_content() -> None:
    policy = default_policy()
    without_comments = "\n".join(line for line in TEXT.splitlines() if not line.strip().startswith("#"))
    assert parse_policy(without_comments.replace("lgd: 0.45", "lgd: 45.0e-2"), "f").sha256 == policy.sha256
    assert parse_policy(TEXT.replace("lgd: 0.45", "lgd: 0.46"), "f").sha256 != policy.sha256
    assert policy.sha256.startswith(policy.version) and len(policy.version) == 12
    assert policy.model_copy(update={"name": "copy"}).sha256 != policy.sha256


@pytest.mark.parametrize(
    ("was", "becomes", "message"),
    [
        ("  lgd: 0.45", "  lgdd: 0.45", r"line \d+: lending\.lgdd: there is no such key; did you mean 'lgd'\?"),
        ("  lgd: 0.45\n", "", r"line \d+: lending\.lgd: is missing; add it"),
        ("  lgd: 0.45", "  lgd: 45", r"line 13: lending\.lgd is 45: must be less than or equal to 1"),
        ("  high_from: 0.7", "  high_from: 0.3", r"spending_risk: medium_from 0\.4 is not below high_from 0\.3: set MEDIUM below HIGH"),
        ("below: 0.04", "below: 0.015", r"loan_default: grades must be in order of `below`"),
        ("rates_pct: []", "rates_pct: [9, 7]", r"loan_offers\.grid: rates_pct must ascend"),
        ("hazard_weights: []", "hazard_weights: [1, 2]", r"hazard_weights has fewer than 12 months"),
        ("unaffordable: refer", "unaffordable: approve", r"loan_default\.unaffordable is 'approve': must be 'refer' or 'refuse'"),
        ("from_amount: 5000.0", "above: 5000.0", r"line \d+: transaction_anomaly\.rules\.0\.above: there is no such key; .*from_amount"),
        ("kind: amount_limit, ", "kind: limit, ", r"transaction_anomaly\.rules\.0: .*'limit' found using 'kind' does not match any of"),
        ("[IR, KP, MM]", "[IR, NO]", r"rules\.2\.countries\.1 is False: YAML reads NO as a no: write the country Norway as 'NO'"),
        ("[IR, KP, MM]", "[IR, XX]", r"rules\.2\.countries\.1 is 'XX': must be a country as ISO 3166-1"),
        ("max_transactions: 10, max_amount: 3000.0", "", r"rules\.1: has no limit: add max_transactions, max_amount or both"),
        ("name: burst", "name: large_amount", r"rules: there are two rules of the name 'large_amount'"),
        ("within_hours: 1,", "within_hours: 3000,", r"rules\.1\.within_hours is 3000: must be less than or equal to 2160"),
        ("name: default", "name: default\nname: other", r"line \d+: name is there twice"),
        ("name: default", "name: [default", r"line \d+, is not YAML"),
    ],
)
def test_a_wrong_policy_is_refused_with_its_line_key_and_fix(was: str, becomes: str, message: str) -> None:
    assert was in TEXT
    with pytest.raises(PolicyError, match=message):
        parse_policy(TEXT.replace(was, becomes, 1), "f")


def test_a_file_that_is_missing_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="cannot be read: No such file or directory; set FINRISK_POLICY"):
        read_policy(tmp_path / "absent.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(PolicyError, match="is not a mapping of keys: copy the shipped policy"):
        read_policy(tmp_path / "empty.yaml")


def test_the_policy_in_effect_is_the_named_one_then_that_of_the_mapping_then_the_shipped_one(tmp_path: Path) -> None:
    assert find_policy_file(Settings()) == DEFAULT_POLICY
    other = tmp_path / "harsh.yaml"
    other.write_text(TEXT.replace("name: default", "name: harsh"))
    assert load_policy(Settings.from_environment({"FINRISK_POLICY": str(other)})).name == "harsh"
    mapping = tmp_path / "shop.yaml"
    mapping.write_text(
        "name: shop\ncurrency: EUR\npolicy: harsh.yaml\ntables:\n  customers:\n    file: people.csv\n    columns: {customer_id: id}\n"
    )
    assert load_policy(Settings(source="mapped", mapping=mapping)).name == "harsh"
    assert load_policy(Settings(source="mapped", mapping=mapping, policy=DEFAULT_POLICY)).name == "default"


def test_the_page_documents_every_key_as_the_file_does() -> None:
    page = (Path(__file__).parents[3] / "docs" / "policy.md").read_text(encoding="utf-8")
    for key, value, comment in document_keys(TEXT):
        assert f"| `{key}` | {f'`{value}`' if value else ''} | {comment} |" in page, key


def test_a_policy_without_rules_is_the_policy_that_it_was_before_there_were_rules() -> None:
    before, _, after = TEXT.partition("  # Rules beside the model")
    without = parse_policy(before + after[after.index("\n# Bounds of the fairness") :], "f")
    assert without.transaction_anomaly.rules == () and "rules" not in without.canonical_json()
    empty = parse_policy(before + "  rules: []\n" + after[after.index("\n# Bounds of the fairness") :], "f")
    assert empty.version == without.version != default_policy().version
    assert parse_policy(without.canonical_json(), "stored").version == without.version
    assert parse_policy(default_policy().canonical_json(), "stored").version == default_policy().version


def test_the_shipped_policy_shows_every_kind_of_rule_and_enables_none() -> None:
    rules = default_policy().transaction_anomaly.rules
    assert {rule.kind for rule in rules} == set(RULE_KINDS) and not any(rule.enabled for rule in rules)


def test_a_changed_rule_is_named_alone() -> None:
    more = TEXT.replace("{name: burst, kind: velocity, enabled: false", "{name: burst, kind: velocity, enabled: true")
    changed = list_changed_keys(default_policy(), parse_policy(more.replace("name: large_amount", "name: huge_amount"), "f"))
    assert [key.removeprefix("transaction_anomaly.rules.") for key, _, _ in changed] == ["large_amount", "burst", "huge_amount"]
    assert (changed[0][2], changed[1][1]["enabled"], changed[1][2]["enabled"], changed[2][1]) == (None, False, True, None)
