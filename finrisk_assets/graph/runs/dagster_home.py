"""The folder of a ledger's Dagster instance, with the ``dagster.yaml`` that is written once and then belongs to the operator."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from finrisk_assets.settings import Settings, SettingsError

DAGSTER_YAML = """\
# Written once by finrisk; your changes stay. docs/schedules.md explains each part.
# One run at a time in each pool (finrisk_assets/graph/warehouse.py): a DuckDB warehouse has one writer, and trainings slow each other.
concurrency:
  pools:
    granularity: run
    default_limit: 1
  runs:
    max_concurrent_runs: 4
# The daemon fails a run whose worker died without a word, which frees its pools.
run_launcher:
  module: finrisk_assets.graph.runs.launcher
  class: MonitoredRunLauncher
run_monitoring:
  enabled: true
  poll_interval_seconds: 15
# A run is started again only where it asks for it with a tag: its warehouse was in use for too long, or its worker died.
run_retries:
  enabled: true
  max_retries: 0
  retry_on_asset_or_op_failure: false
freshness:
  enabled: true
telemetry:
  enabled: false
nux:
  enabled: false
"""


def prepare_dagster(settings: Settings) -> list[str]:
    """Make the Dagster instance of this source, and name its folder in ``DAGSTER_HOME``, the only setting that Dagster reads.

    An existing ``dagster.yaml`` stays as it is; the lines that are returned say what this version would add to it.

    Raises
    ------
    SettingsError
        If the existing file cannot be read as YAML.
    """
    folder = settings.root / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "dagster.yaml"
    os.environ["DAGSTER_HOME"] = str(folder)
    if not file.exists():
        part = folder / f".dagster.yaml.{os.getpid()}"
        part.write_text(DAGSTER_YAML, encoding="utf-8")
        part.replace(file)
    lacking = list(find_additions(_read(file), yaml.safe_load(DAGSTER_YAML)))
    return [f"{file} is kept as it is; this version would add {'; '.join(lacking)} (docs/schedules.md)"] if lacking else []


def start_event_cursors(instance: dg.DagsterInstance) -> None:
    """Let a daemon that starts for the first time follow the events from now on: without a place to begin, it warns of each kind."""
    from dagster._daemon.auto_run_reexecution.event_log_consumer import DAGSTER_EVENT_TYPES, _create_cursor_key

    keys = {_create_cursor_key(kind) for kind in DAGSTER_EVENT_TYPES}
    missing = keys - instance.daemon_cursor_storage.get_cursor_values(keys).keys()
    if missing:
        newest = instance.event_log_storage.get_maximum_record_id() or 0
        instance.daemon_cursor_storage.set_cursor_values(dict.fromkeys(missing, str(newest)))


def create_pools(instance: dg.DagsterInstance, pools: Sequence[str]) -> None:
    """Give pools that the instance does not know yet their default limit: the daemon's first look at a pool would let every run through."""
    for pool in set(pools) - instance.event_log_storage.get_concurrency_keys():
        instance.event_log_storage.initialize_concurrency_limit_to_default(pool)


def find_additions(present: Mapping[str, Any], newest: Mapping[str, Any], place: str = "") -> Iterator[str]:
    """Yield the keys that a configuration lacks, each with its value: ``run_monitoring.enabled: true``."""
    for key, value in newest.items():
        if key in present and isinstance(value, dict):
            yield from find_additions(present[key] if isinstance(present[key], dict) else value, value, f"{place}{key}.")
        elif key not in present and isinstance(value, dict):
            yield from find_additions({}, value, f"{place}{key}.")
        elif key not in present:
            yield f"{place}{key}: {yaml.safe_dump(value).splitlines()[0]}"


def _read(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise SettingsError(
            f"{file} cannot be read: {' '.join(str(error).split())}; correct it, or remove it to have it written anew"
        ) from None
    if not isinstance(content, dict | None):
        raise SettingsError(f"{file} holds no settings: correct it, or remove it to have it written anew")
    return content or {}
