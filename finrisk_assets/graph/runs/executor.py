"""The executor of every job: one of Dagster's own, for a run that waits, stops and does not let one domain cost the others.

1. It records its process as the run's worker.
2. It waits for the warehouse, and says for whom.
3. It carries out the steps: in this process, or each in one of its own where the warehouse takes several writers. A signal ends the run
   before its next step.
4. It carries out the steps that collect what the domains made, also where a domain failed: they take what there is.
5. It frees the memory of each step as the step ends.
"""

import gc
from collections.abc import Collection, Iterator
from typing import Any, cast

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.events import DagsterEvent, EngineEventData
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig
from dagster._core.system_config.objects import ResolvedRunConfig

from finrisk_assets.engines.warehouse_url import takes_parallel_steps
from finrisk_assets.graph.runs import dead_runs, warehouse_lock, workers
from finrisk_assets.graph.runs.stop_signals import StopSignals

WAITING = "waiting for the warehouse"
"""Beginning of the message of an event that says for whom a run waits."""


def build_executor(warehouse: str, wait_minutes: float, collecting: Collection[str], collected: str) -> dg.ExecutorDefinition:
    """Return the executor of a graph.

    A job that only this process knows, as commands carry it out, stays in this process on every warehouse.

    Parameters
    ----------
    warehouse
        URL of the warehouse.
    wait_minutes
        How long a run waits for it, minutes.
    collecting
        Names of the assets that collect what the domains made.
    collected
        Name prefix of the assets that they collect: one must have been made, where the run makes any.
    """

    # The name and the configuration are those of Dagster's executor, so that stored runs can be started again.
    like = dg.multiprocess_executor if takes_parallel_steps(warehouse) else dg.in_process_executor

    def create(context: dg.InitExecutorContext) -> "RunExecutor":
        config = dict(context.executor_config)
        is_parallel = like is dg.multiprocess_executor and isinstance(context.job, ReconstructableJob) and context.instance.is_persistent
        if is_parallel and not config.get("start_method"):
            # A step begins as a fork of a process that has imported the graph, and so within milliseconds in place of seconds.
            config["start_method"] = {"forkserver": {}}
        create_inner: Any = (dg.multiprocess_executor if is_parallel else dg.in_process_executor).executor_creation_fn
        inner = create_inner(context._replace(executor_config=config))
        return RunExecutor(inner, warehouse, wait_minutes, frozenset(collecting), collected)

    return dg.ExecutorDefinition(like.name, cast("Any", like.config_schema), executor_creation_fn=create)


class RunExecutor(dg.Executor):
    """An executor of one run; see the module."""

    def __init__(self, inner: dg.Executor, warehouse: str, wait_minutes: float, collecting: frozenset[str], collected: str) -> None:
        self._inner = inner
        self._warehouse, self._wait_minutes = warehouse, wait_minutes
        self._collecting, self._collected = collecting, collected

    @property
    def retries(self) -> RetryMode:
        """Whether steps are retried, as in Dagster's executor."""
        return self._inner.retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        """Conditions under which a step may begin, as in Dagster's executor."""
        return self._inner.step_dependency_config

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        """Carry out a run, and yield its events."""
        workers.take_run(plan_context.instance, plan_context.run_id)
        with StopSignals() as signals:
            try:
                yield from self._wait(plan_context, signals)
                run = plan_context.instance.get_run_by_id(plan_context.run_id)
                if run is not None and run.is_finished:
                    raise dg.DagsterExecutionInterruptedError("the run was cleared before its first step")
                for event in self._execute_steps(plan_context, execution_plan):
                    yield event
                    if event.is_step_success:
                        _free_memory()
                    if signals.received:
                        # Dagster raises it as the next code of ours begins, wherever the signal itself got lost.
                        signals.repeat()
            finally:
                gc.unfreeze()
                signals.settle()
                warehouse_lock.name_holder(self._warehouse)

    def _wait(self, plan_context: PlanOrchestrationContext, signals: StopSignals) -> Iterator[DagsterEvent]:
        """Wait for the warehouse; let a run that waited in vain, and that nobody is there to start again, be started by the daemon."""
        name = dead_runs.name_run(plan_context.dagster_run)
        try:
            for line in warehouse_lock.waiting_lines(self._warehouse, self._wait_minutes, name, signals.raise_if_received):
                yield DagsterEvent.engine_event(plan_context, line, EngineEventData())
        except warehouse_lock.WarehouseBusyError:
            dead_runs.allow_retries(plan_context.instance, plan_context.dagster_run)
            raise

    def _execute_steps(self, plan_context: PlanOrchestrationContext, plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        last = self._collecting_steps(plan)
        first = [key for key in plan.step_keys_to_execute if key not in last]
        if not first or not last:
            yield from self._inner.execute(plan_context, plan)
            return
        wanted, made = {key for key in first if key.startswith(self._collected)}, set()
        for event in self._execute_subset(plan_context, plan, first):
            if event.is_step_success:
                made.add(event.step_key)
            yield event
        if wanted and not wanted & made:
            names = ", ".join(sorted(self._collecting))
            yield DagsterEvent.engine_event(plan_context, f"{names} is left out: no {self._collected}* was made", EngineEventData())
            return
        yield from self._execute_subset(plan_context, plan, last)

    def _execute_subset(self, plan_context: PlanOrchestrationContext, plan: ExecutionPlan, keys: list[str]) -> Iterator[DagsterEvent]:
        job = plan_context.job.get_definition()
        subset = plan.build_subset_plan(keys, job, ResolvedRunConfig.build(job, plan_context.run_config))
        context = PlanOrchestrationContext(
            plan_context.plan_data._replace(execution_plan=subset), plan_context.log, plan_context.executor, plan_context.output_capture
        )
        yield from self._inner.execute(context, subset)

    def _collecting_steps(self, plan: ExecutionPlan) -> list[str]:
        """Return the steps of the collecting assets, and those that need them, such as their checks."""
        dependencies = plan.get_executable_step_deps()
        found: set[str] = {key for key in plan.step_keys_to_execute if key in self._collecting}
        while found != (grown := found | {key for key, needs in dependencies.items() if needs & found}):
            found = grown
        return [key for key in plan.step_keys_to_execute if key in found]


def _free_memory() -> None:
    """Free what a finished step left in cycles, which Python itself does at some time: its tables would stand beside those of the next.

    A library that catches an error while it is imported can keep its callers' frames, and so a whole training table, in a cycle. What
    stays is left out of the next collections of the run, so that a step costs only what it made itself.
    """
    gc.collect()
    gc.freeze()
