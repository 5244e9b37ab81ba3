"""Progress of a run on the terminal: one line per stage, with its time."""

import logging
import re
import time
from typing import Any

import dagster as dg

from finrisk_assets.graph.runs.executor import WAITING

NOTE = "note: "
"""The beginning of a step's message that an operator should read."""

_CHECK_STEP = re.compile(r"^(\w+)_(\1_\w+)$")
"""Key of the step of a check that runs by itself: the asset's name, and the check's."""


class _StageLines(logging.Handler):
    """A handler that prints a line when a stage ends; checks are counted with the stage they follow."""

    def __init__(self) -> None:
        super().__init__()
        self._began: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        from rich.console import Console
        from rich.markup import escape

        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        event = meta.get("dagster_event")
        message = str(meta.get("orig_message", ""))
        if event is None and message.startswith(NOTE):
            Console(highlight=False, soft_wrap=True).print(f"  [yellow]![/] {escape(message.removeprefix(NOTE))}")
        if event is None:
            return
        console = Console(highlight=False, soft_wrap=True)
        if event.is_engine_event and str(event.message).startswith(WAITING):
            console.print(f"  [yellow]…[/] {event.message}")
        if event.step_key is None:
            return
        step, kind = event.step_key, event.event_type_value
        if kind == "STEP_START":
            self._began[step] = time.perf_counter()
        elif kind == "STEP_SUCCESS" and not step.endswith(("_contract", "_gate", "_parity")):
            name = _CHECK_STEP.sub(r"\2", step)
            console.print(f"  [green]✓[/] {name:<34} {time.perf_counter() - self._began.pop(step):6.1f} s")
        elif kind == "STEP_FAILURE":
            console.print(f"  [red]✗[/] {step:<34} failed")
        elif kind == "ASSET_CHECK_EVALUATION" and not event.event_specific_data.passed:
            check = event.event_specific_data
            mark = "[red]✗[/]" if check.severity == dg.AssetCheckSeverity.ERROR else "[yellow]![/]"
            console.print(f"  {mark} {check.check_name:<34} {escape(check.description or '')}")


@dg.logger(config_schema={}, description="One line per stage, with its time.")
def progress_logger(init: dg.InitLoggerContext) -> logging.Logger:
    logger = logging.Logger("finrisk.progress", logging.DEBUG)
    logger.addHandler(_StageLines())
    return logger
