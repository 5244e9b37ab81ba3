"""Tests of which domains a run leaves out, and why, over runs of small graphs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from finrisk_assets.domains import registry
from finrisk_assets.graph.refusals import read_outcome
from finrisk_assets.graph.runs import warehouse_lock
from finrisk_assets.graph.runs.executor import build_executor
from finrisk_assets.graph.runs.in_process import run_job

DOMAINS = [domain for domain in registry.DOMAINS if domain.name in ("loan_default", "loan_offers", "cashflow")]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def make(name: str, deps: tuple[str, ...] = (), error: Exception | None = None) -> dg.AssetsDefinition:
    @dg.asset(name=name, deps=list(deps))
    def asset() -> None:
        if error is not None:
            raise error

    return asset


def refuse(asset: str, is_passed: bool) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=asset, name=f"{asset}_gate", blocking=True)
    def check() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=is_passed, description="too few rows")

    return check


def run(instance: dg.DagsterInstance, folder: Path, *changed: Any, **errors: Exception) -> dg.JobExecutionResult:
    """Return the run of a graph of three domains and what collects them, with a failing asset or check."""
    stages = {
        "model_cashflow": (),
        "champion_cashflow": ("model_cashflow",),
        "model_loan_default": (),
        "champion_loan_default": ("model_loan_default",),
        "scores_loan_default": ("champion_loan_default",),
        "model_loan_offers": ("scores_loan_default",),
        "champion_loan_offers": ("model_loan_offers",),
        "bento": ("champion_cashflow", "champion_loan_default", "champion_loan_offers"),
    }
    assets = [make(name, deps, errors.get(name)) for name, deps in stages.items()]
    executor = build_executor(f"duckdb://{folder / 'w.duckdb'}", 1, ("bento",), "champion_")
    bento_check = refuse("bento", True)
    definitions = dg.Definitions(assets, asset_checks=[bento_check, *changed], executor=executor, jobs=[dg.define_asset_job("everything")])
    return run_job(definitions.resolve_job_def("everything"), instance)


def list_made_assets(result: dg.JobExecutionResult) -> set[str]:
    return {event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key}


def test_a_whole_run_leaves_nothing_out(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    result = run(instance, tmp_path)
    outcome = read_outcome(result, DOMAINS)
    assert result.success and not outcome.left_out and not outcome.errors
    order = [event.step_key for event in result.get_step_success_events()]
    assert order.index("bento") > max(order.index(name) for name in order if name.startswith("champion_"))


Fault = Callable[[dg.DagsterInstance, Path], dg.JobExecutionResult]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (lambda instance, folder: run(instance, folder, refuse("model_loan_default", False)), "model_loan_default_gate: too few rows"),
        (lambda instance, folder: run(instance, folder, model_loan_default=ValueError("3 rows are too few")), "3 rows are too few"),
    ],
)
def test_a_refused_domain_takes_along_what_needs_it_and_no_more(
    instance: dg.DagsterInstance, tmp_path: Path, fault: Fault, reason: str
) -> None:
    result = fault(instance, tmp_path)
    outcome = read_outcome(result, DOMAINS)
    assert not result.success  # whoever watches the runs sees it
    assert outcome.left_out == {"Loan default": reason, "Loan offers": "it needs the scores of Loan default"}
    assert not outcome.errors
    assert {"champion_cashflow", "bento"} <= list_made_assets(result)
    assert any(check.asset_key == dg.AssetKey("bento") for check in result.get_asset_check_evaluations())


def test_a_fault_is_not_taken_for_a_refusal(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    outcome = read_outcome(run(instance, tmp_path, model_loan_default=OSError("the disk is full")), DOMAINS)
    assert outcome.errors == {"model_loan_default": "the disk is full"}


def test_a_run_that_never_began_says_why_and_nothing_else(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    def wait_in_vain(*_: Any) -> Iterator[str]:
        raise warehouse_lock.WarehouseBusyError("the warehouse is still in use")
        yield ""

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warehouse_lock, "waiting_lines", wait_in_vain)
        outcome = read_outcome(run(instance, tmp_path), DOMAINS)
    assert outcome.errors == {"the run": "the warehouse is still in use"} and not outcome.left_out


def test_a_run_that_was_cleared_while_it_waited_does_nothing(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    def wait_and_be_cleared(*_: Any) -> Iterator[str]:
        (waiting,) = instance.get_runs()
        instance.report_run_failed(waiting)
        yield "waiting for the warehouse"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(warehouse_lock, "waiting_lines", wait_and_be_cleared)
        result = run(instance, tmp_path)
    assert list_made_assets(result) == set() and not result.success


def test_without_any_champion_nothing_is_collected(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    refused = {"model_cashflow": ValueError("none"), "model_loan_default": ValueError("none")}
    result = run(instance, tmp_path, **refused)
    assert "bento" not in list_made_assets(result)
    assert any("bento is left out: no champion_* was made" in str(event.message) for event in result.all_events)
