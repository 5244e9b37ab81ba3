"""A job carried out in this process by its own executor, for commands.

Dagster's `execute_in_process` puts another executor in the place of the job's, and would neither wait nor stop.
"""

from collections.abc import Sequence

import dagster as dg
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.definitions.repository_definition.valid_definitions import SINGLETON_REPOSITORY_NAME
from dagster._core.execution.api import create_execution_plan, execute_run
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin


def run_job(
    job: dg.JobDefinition,
    instance: dg.DagsterInstance,
    run_config: dict[str, object] | None = None,
    selection: Sequence[str] = (),
    location: str = "",
) -> dg.JobExecutionResult:
    """Carry out a job in this process, and return its result, also where it failed.

    Parameters
    ----------
    selection
        Names of the assets to make; by default all of the job's.
    location
        The module that the Dagster UI loads: its overview shows the runs of that module. Without it the run is in no overview.
    """
    keys = frozenset(dg.AssetKey(name) for name in selection) or None
    whole = InMemoryJob(job)
    subset = whole.get_subset(asset_selection=keys) if keys else whole
    definition = subset.get_definition()
    plan = create_execution_plan(subset, run_config, instance_ref=instance.get_ref() if instance.is_persistent else None, tags=job.run_tags)
    origin = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location), SINGLETON_REPOSITORY_NAME)
    run = instance.create_run_for_job(
        job_def=definition,
        execution_plan=plan,
        run_config=run_config,
        tags=dict(job.run_tags),
        asset_selection=keys,
        remote_job_origin=RemoteJobOrigin(origin, job.name) if location else None,
    )
    try:
        return execute_run(whole, run, instance)
    except BaseException:
        if not (instance.get_run_by_id(run.run_id) or run).is_finished:
            instance.report_run_failed(run, message="Stopped before its first step.")
        raise
