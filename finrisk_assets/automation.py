"""Every schedule, sensor and automation condition, named and with the reason for it.

All are stopped until a person starts them in the Dagster UI.
"""

from typing import Any

import dagster as dg

EVERYTHING = "everything"
"""The job that materialises the whole graph of the source."""


def jobs() -> list[Any]:
    """The jobs by name; `everything` is what `finrisk demo` runs."""
    return [
        dg.define_asset_job(EVERYTHING, dg.AssetSelection.all(), description="The whole graph: source to Bento."),
    ]


def schedules() -> list[dg.ScheduleDefinition]:
    """`nightly`: every night after the day's books are closed, so that scores are never older than a day."""
    return [
        dg.ScheduleDefinition(
            name="nightly",
            job_name=EVERYTHING,
            cron_schedule="0 3 * * *",
            execution_timezone="UTC",
            description="Rematerialises everything at 03:00 UTC, after the day's transactions have landed.",
        )
    ]
