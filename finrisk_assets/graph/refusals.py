"""The domains that a run left out: refused by a check, too little to judge by, or in need of one that was."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from finrisk_assets.domains.base import Domain
from finrisk_assets.graph.stages.common import LEFT_OUT

JUDGED_STAGES = ("model", "evaluation")
"""The stages that judge a model; a ValueError there says what the ledger lacks, in a sentence."""

CHECK_FAILED = "DagsterAssetCheckFailedError"

RUN = "the run"
"""The key of a failure that is no step's, such as of a warehouse that stayed in use; it leaves nothing else to say."""


@dataclass(frozen=True)
class RunOutcome:
    """Outcome of a run for its domains.

    Attributes
    ----------
    left_out
        Title of each domain that got no champion in this run -> the reason.
    errors
        Failed step, or `RUN` -> its message, of failures that refuse no domain: they are faults.
    """

    left_out: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def read_outcome(result: dg.JobExecutionResult, domains: Sequence[Domain]) -> RunOutcome:
    """Return which domains of a run were left out and why, and its other failures."""
    owners = {f"{stage}_{domain.name}": domain for domain in domains for stage in JUDGED_STAGES}
    reasons: dict[str, str] = {}
    errors: dict[str, str] = {}
    for check in result.get_asset_check_evaluations():
        if not check.passed and check.blocking and check.severity == dg.AssetCheckSeverity.ERROR:
            domain, text = owners.get(check.asset_key.to_user_string()), f"{check.check_name}: {check.description}"
            if domain is None:
                errors[check.check_name] = str(check.description)
            else:
                reasons.setdefault(domain.name, text)
    for observation in result.get_asset_observation_events():
        metadata = observation.asset_observation_data.asset_observation.metadata
        if LEFT_OUT in metadata:
            reasons.setdefault(str(metadata["domain"].value), str(metadata[LEFT_OUT].value))
    for event in result.get_step_failure_events():
        kind, message = _cause(event)
        if kind == CHECK_FAILED:
            continue
        domain = owners.get(str(event.step_key))
        if domain is None or kind != "ValueError":
            errors[str(event.step_key)] = message
        else:
            reasons.setdefault(domain.name, message)
    if not result.success and not result.get_step_failure_events():
        failure: Any = result.get_run_failure_event().job_failure_data
        return RunOutcome(errors={RUN: _message(failure.error) if failure.error else "no step of it failed"})
    made = {event.asset_key.to_user_string() for event in result.get_asset_materialization_events() if event.asset_key}
    left_out = {domain.title: _reason(domain, domains, reasons) for domain in domains if f"champion_{domain.name}" not in made}
    return RunOutcome(left_out, errors)


def _cause(event: dg.DagsterEvent) -> tuple[str, str]:
    """Return the class and the message of the error that failed a step."""
    error: Any = event.step_failure_data.error
    error = (error and error.cause) or error
    return (error.cls_name or "", _message(error)) if error else ("", str(event.message))


def _message(error: Any) -> str:
    """Return an error's message without its class."""
    return str(error.message).partition(": ")[2].strip() or str(error.message).strip()


def _reason(domain: Domain, domains: Sequence[Domain], reasons: dict[str, str]) -> str:
    """Return why a domain was left out: its own reason, or the domain whose scores it needs."""
    if domain.name in reasons:
        return reasons[domain.name]
    needed = [other.title for other in domains if f"scores_{other.name}" in domain.upstream]
    return f"it needs the scores of {' and '.join(needed)}" if needed else "its stages before the champion were not made"
