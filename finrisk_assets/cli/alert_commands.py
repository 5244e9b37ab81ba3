"""The commands that size alerts: `finrisk rules test` and `finrisk capacity`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finrisk_assets.settings import Settings

if TYPE_CHECKING:
    from finrisk_assets.operations.backtests.alert_capacity import CapacityReport
    from finrisk_assets.operations.backtests.decided_history import HistorySummary
    from finrisk_assets.operations.backtests.rule_backtest import AlertCount, BackTest
    from finrisk_assets.policy.document import Policy

_POLICY = click.option("--policy", "file", type=click.Path(path_type=Path, dir_okay=False), help="A policy file; default: that in effect.")
_SINCE = click.option(
    "--since", type=click.DateTime(["%Y-%m-%d"]), help="First day of the history; default: the test window, which no model has seen."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")


@click.group()
def rules() -> None:
    """The policy's rules on transactions. See docs/policy.md."""


@rules.command("test")
@_POLICY
@_SINCE
@_JSON
@click.pass_obj
def test_rules(settings: Settings, file: Path | None, since: datetime | None, as_json: bool) -> None:
    """Test each rule over history, enabled or not: its alerts, the fraud that it catches alone and beyond the model, and its worth."""
    from finrisk_assets.operations.backtests.rule_backtest import run_backtest

    policy = _read_policy(settings, file)
    if not policy.transaction_anomaly.rules:
        raise click.ClickException(f"policy {policy.name} has no rules: `finrisk policy show` prints the shipped ones to copy from")
    with _history_faults_as_click_errors():
        done = run_backtest(settings, policy, since)
    click.echo(json.dumps(asdict(done)) if as_json else "\n".join(_show_backtest(done)))


@click.command()
@click.option("--alerts-per-day", type=click.IntRange(min=1), required=True, help="Alerts that the analysts look at in a day.")
@_POLICY
@_SINCE
@_JSON
@click.pass_obj
def capacity(settings: Settings, alerts_per_day: int, file: Path | None, since: datetime | None, as_json: bool) -> None:
    """Show the expected loss from which so many alerts a day are raised by the model, and what they catch."""
    from finrisk_assets.operations.backtests.alert_capacity import measure_capacity

    with _history_faults_as_click_errors():
        report = measure_capacity(settings, _read_policy(settings, file), alerts_per_day, since)
    click.echo(json.dumps(asdict(report)) if as_json else "\n".join(_show_capacity(report, alerts_per_day)))


def _read_policy(settings: Settings, file: Path | None) -> "Policy":
    from finrisk_assets.policy.policy_file import load_policy, read_policy

    return load_policy(settings) if file is None else read_policy(file)


@contextmanager
def _history_faults_as_click_errors() -> Iterator[None]:
    from finrisk_assets.operations.backtests.decided_history import NoHistoryError

    try:
        yield
    except NoHistoryError as error:
        raise click.ClickException(str(error)) from None


def _show_history(history: "HistorySummary") -> Iterator[str]:
    frauds = "without labels" if history.frauds is None else f"{history.frauds:,} of them fraud"
    seen = "of which the model learned nothing" if history.is_unseen else "of which the model learned a part"
    yield f"{history.transactions:,} transactions of {history.first} to {history.last} ({history.n_days} days),"
    yield f"{frauds}, {seen}."


def _show_backtest(done: "BackTest") -> Iterator[str]:
    yield from _show_history(done.history)
    yield ""
    yield f"{'':<24}{'alone':>28}{'beyond the model':>28}"
    yield f"{'rule':<24}{'alerts':>9}{'frauds':>8}{'worth':>11}{'alerts':>9}{'frauds':>8}{'worth':>11}"
    for rule in done.rules:
        name = rule.name if rule.enabled else f"({rule.name})"
        yield f"{name[:24]:<24}{_cells(rule.alone)}{_cells(rule.beyond)}"
    yield f"{'model':<24}{_cells(done.model)}"
    yield f"{'model, enabled rules':<24}{_cells(done.model_and_enabled)}"
    yield ""
    yield "Rules in parentheses are not enabled. Worth is what is saved less what it costs,"
    yield "in currency by the policy's costs."


def _show_capacity(report: "CapacityReport", asked: int) -> Iterator[str]:
    yield from _show_history(report.history)
    yield ""
    yield f"{'alerts/day':>10}{'from':>12}{'in fact/day':>13}{'frauds':>9}{'of all':>8}{'of amounts':>12}{'worth':>13}"
    for level in report.levels:
        mark = "*" if level.is_bound_by_cost else " "
        threshold = f"{level.threshold:,.2f}{mark}" if level.unit == "currency" else f"{level.threshold:.4f}{mark}"
        shares = f"{_share(level.fraud_share):>8}{_share(level.amount_share):>12}"
        caught = level.caught
        yield (
            f"{level.reviews_per_day:>10,}{threshold:>12}{caught.alerts_per_day:>13,.1f}{_number(caught.frauds):>9}{shares}"
            f"{_number(caught.worth_amount):>13}"
        )
    yield ""
    unit = "expected loss in currency" if report.levels[0].unit == "currency" else "score"
    yield f"'from' is the {unit} from which a transaction is reviewed."
    if any(level.is_bound_by_cost for level in report.levels):
        yield "*: the cost of a review sets it; less is not worth a review."
    yield f"The policy has reviews_per_day {report.in_policy:,}; write {asked:,} there to decide so."


def _cells(count: "AlertCount") -> str:
    return f"{count.alerts:>9,}{_number(count.frauds):>8}{_number(count.worth_amount):>11}"


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"
