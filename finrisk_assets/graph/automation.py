"""Every job, schedule, sensor, automation condition and freshness policy, each with its reason.

Schedules and sensors are stopped until a person starts them in the Dagster UI. `docs/schedules.md` explains them;
`file_changes` finds the months that a file touches.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from finrisk_assets.graph import file_changes, partitions
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.settings import Settings

EVERYTHING = "everything"
"""The job that materialises the whole graph of the source."""

DAILY, MONTHLY, LATE = "daily", "monthly", "late"
"""Ingest and score; retrain; take in what came late."""

LEDGER_STAGES = ("raw_", "quarantine_", "validated_", "totals_")
SCORING_STAGES = (*LEDGER_STAGES, "features_", "scores_", "consistency_", "monitoring_", "marts")
"""Name prefixes of the assets of a day's run: no training."""

CHALLENGE = "challenge"
"""The job that trains and evaluates a challenger after a confirmed drift."""

CHALLENGING_STAGES = ("model_", "evaluation_")
"""Name prefixes of that job's assets. They end with the evaluation: a finding never changes the champion."""

NOT_RETRAINED = (*LEDGER_STAGES, "scores_", "consistency_", "monitoring_", "marts", "truth_")
"""Name prefixes of the assets that a retraining leaves alone; every other stage is part of it."""

SETTLING_MONTHS = 3
"""A day's run takes these months before the present one along: labels and outcomes of what happened in them may have become known.
Loans take a year to tell: their outcomes reach the features with the monthly retraining, which needs them."""

CARRIES = "finrisk/carries"
"""Tag of a run that itself computes the features and scores of the months that it changes."""

MAX_RUNS_PER_TICK = 6
"""Runs per tick of the sensor `new_files`. With more separate ranges of months, one run covers all of them and the months between."""

_TRANSACTIONS, _TOTALS, _COMPUTED = (
    dg.AssetSelection.key_substring("validated_transactions"),
    dg.AssetSelection.key_substring("totals_"),
    dg.AssetSelection.key_substring("features_") | dg.AssetSelection.key_substring("scores_"),
)


def _when_months_change(followed: dg.AssetSelection) -> dg.AutomationCondition[Any]:
    is_new = dg.AutomationCondition.newly_updated()
    is_carried = dg.AutomationCondition.all_new_updates_have_run_tags(tag_keys={CARRIES})
    return (
        (
            # Snapshots and champions are new every day or month, and concern all months: following them would be a storm.
            dg.AutomationCondition.any_deps_match((is_new & ~is_carried).with_label("changed_alone")).allow(followed)
            # Totals are of other months than the features that read them, so in another run: they come first.
            | dg.AutomationCondition.any_deps_match(dg.AutomationCondition.will_be_requested()).allow(_COMPUTED)
        ).since_last_handled()
        & ~dg.AutomationCondition.any_deps_missing()
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
        # `any_deps_updated` alone would pass by a failed contract on a later tick.
        & dg.AutomationCondition.all_deps_blocking_checks_passed()
    ).with_label("when_the_ledger_changes")


WHEN_THE_LEDGER_CHANGES = _when_months_change(_TRANSACTIONS | _COMPUTED)
"""Of totals, features and scores: the months whose windows reach a month of the ledger that changed by itself (a late file, a backfill).

Never of a model: training costs, and what it trains must pass a gate, so that it has a schedule. Never on a change of code: that is a
person's to decide. A run that carries its features and scores (`CARRIES`) needs nobody to follow it."""
WHEN_TOTALS_CHANGE = _when_months_change(_TOTALS | _COMPUTED)
"""Of features that are made from totals too: those follow the ledger first."""

FRESH_SCORES = dg.FreshnessPolicy.cron(deadline_cron="0 6 * * *", lower_bound_delta=timedelta(hours=24))
"""Scores are at most a day old when the working day begins, at 06:00 UTC."""

FRESH_BENTO = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=35), warn_window=timedelta(days=32))
"""The served Bento was built with the champions of this month or the last."""


def build_jobs(assets: Collection[str], source: Source, settings: Settings) -> list[Any]:
    """Return the jobs by name. Without a schedule's tags each takes its own months: all of them, or a day's up to the clock."""
    every = partitions.run_tags(source.begins, _last(source, datetime.now(UTC)))
    today = partitions.run_tags(*_days_months(source, settings.now))

    def job(name: str, chosen: Collection[str], tags: dict[str, str], description: str) -> Any:
        return dg.define_asset_job(name, dg.AssetSelection.assets(*sorted(chosen)), description=description, tags=tags)

    carries = {CARRIES: "features and scores"}
    jobs = [
        job(EVERYTHING, assets, every | carries, "The whole graph: source to Bento."),
        job(
            DAILY,
            select_by_prefix(assets, SCORING_STAGES),
            today | carries,
            "Ingest and score: source to scores, by the present champions.",
        ),
        job(
            LATE,
            select_by_prefix(assets, LEDGER_STAGES),
            every,
            "Takes late rows into the ledger; features and scores follow by themselves.",
        ),
    ]
    retrained = set(assets) - set(select_by_prefix(assets, NOT_RETRAINED))
    if retrained:
        trained = select_by_prefix(assets, CHALLENGING_STAGES)
        jobs.append(job(CHALLENGE, trained, {}, "Trains and evaluates a challenger, and stops there; asked for where drift is confirmed."))
        jobs.append(job(MONTHLY, retrained, every | carries, "Retrain: features to Bento; a gate decides whether a champion changes."))
    return jobs


def build_schedules(assets: Collection[str], source: Source, settings: Settings) -> list[dg.ScheduleDefinition]:
    """Return `daily` and `monthly`.

    `daily` runs at 03:00 UTC, after the day's transactions have landed, so that scores are never older than a day. `monthly` runs on
    the second of a month at 04:00 UTC, when the month that ended is in the ledger and scored.
    """

    @dg.schedule(
        name=DAILY,
        job_name=DAILY,
        cron_schedule="0 3 * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="Every day at 03:00 UTC: ingest and score.",
    )
    def daily(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        now = _tick_time(context, settings)
        return _request(now, partitions.run_tags(*_days_months(source, now)))

    @dg.schedule(
        name=MONTHLY,
        job_name=MONTHLY,
        cron_schedule="0 4 2 * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.STOPPED,
        description="On the second of a month at 04:00 UTC: retrain, compare, and let the gate decide.",
    )
    def monthly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        now = _tick_time(context, settings)
        return _request(now, partitions.run_tags(source.begins, _last(source, now)))

    return [daily, monthly] if set(assets) - set(select_by_prefix(assets, NOT_RETRAINED)) else [daily]


def build_sensors(source: Source, settings: Settings, jobs: Sequence[Any]) -> list[dg.SensorDefinition]:
    """Return `late_months`, which looks whether features and scores must follow, and `new_files`, for a source that has files.

    Parameters
    ----------
    jobs
        The jobs of `build_jobs`.
    """
    follows = dg.AutomationConditionSensorDefinition(
        "late_months",
        target=_TRANSACTIONS | _TOTALS | _COMPUTED,
        default_status=dg.DefaultSensorStatus.STOPPED,
        minimum_interval_seconds=60,
        description="Asks for the months of totals, features and scores whose windows reach a month of the ledger that changed by itself.",
    )
    file_jobs = [job for job in jobs if job.name in (LATE, DAILY)]
    return (
        [follows, _new_files(source, settings, file_jobs)] if any(raw.files is not tuple for raw in source.tables.values()) else [follows]
    )


def build_retraining_sensors(assets: Collection[str]) -> list[dg.SensorDefinition]:
    """Return `retraining`: a drift that monitoring confirms asks for a challenger, once for each champion and window.

    It reads what monitoring last said, in Dagster's own store. A moved feature asks for nothing (see `modelling.monitoring`), and the run
    that is asked for stops before the champion, so that no finding changes who decides.
    """
    watched = [name.removeprefix("monitoring_") for name in select_by_prefix(assets, ["monitoring_"])]

    @dg.sensor(
        name="retraining",
        job_name=CHALLENGE,
        minimum_interval_seconds=600,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Asks for a challenger where drift is confirmed, once for each champion and window; it promotes nothing.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        requests = []
        for domain in watched:
            event = context.instance.get_latest_materialization_event(dg.AssetKey(f"monitoring_{domain}"))
            metadata = event.asset_materialization.metadata if event and event.asset_materialization else {}
            if "is_confirmed" not in metadata or not metadata["is_confirmed"].value:
                continue
            champion, window = (str(metadata[name].value) for name in ("champion", "window"))
            stages = [dg.AssetKey(f"{stage}{domain}") for stage in CHALLENGING_STAGES]
            tags = {"finrisk/drift": f"{domain} in {window}"}
            requests.append(dg.RunRequest(run_key=f"{domain} {champion} {window}", asset_selection=stages, tags=tags))
        return dg.SensorResult(requests) if requests else dg.SkipReason("no drift is confirmed")

    return [sensor] if watched else []


def _new_files(source: Source, settings: Settings, jobs: Sequence[Any]) -> dg.SensorDefinition:
    @dg.sensor(
        name="new_files",
        jobs=jobs,
        minimum_interval_seconds=60,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Looks for new and changed files of the source, and asks for exactly the ledger's months that their rows touch.",
    )
    def new_files(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        before, landing = file_changes.FileState.read(context.cursor), settings.root / "landing"
        if not file_changes.has_landed(source, landing, before):
            return dg.SkipReason("nothing has landed yet: materialise everything once")
        changes = file_changes.detect_changes(source, landing, before)
        if changes is None:
            return dg.SkipReason("no file is new or changed")
        now, last = settings.now, _last(source, settings.now)
        cursor = changes.state.write()
        if changes.is_snapshot_changed:
            request = _request(now, partitions.run_tags(source.begins, last), job=DAILY, key=changes.state.key)
            return dg.SensorResult([request], cursor=cursor)
        touched = sorted({min(max(month, source.begins), last) for month in changes.months})
        spans = partitions.group_consecutive(touched)
        if len(spans) > MAX_RUNS_PER_TICK:
            spans = [(touched[0], touched[-1])]
        runs = [_request(now, partitions.run_tags(*both), job=LATE, key=f"{changes.state.key} {both[0]}") for both in spans]
        if not runs:
            return dg.SensorResult(skip_reason="the files changed, their rows did not", cursor=cursor)
        return dg.SensorResult(runs, cursor=cursor)

    return new_files


def _request(now: datetime, tags: dict[str, str], job: str | None = None, key: str | None = None) -> dg.RunRequest:
    """Return the request of a run that reads the ledger at a moment."""
    clock = {"resources": {"clock": {"config": {"moment": now.isoformat()}}}}
    return dg.RunRequest(run_key=key, job_name=job, run_config=clock, tags=tags | ({} if job == LATE else {CARRIES: "features and scores"}))


def _tick_time(context: dg.ScheduleEvaluationContext, settings: Settings) -> datetime:
    """Return the moment at which a tick reads the ledger: `FINRISK_AS_OF`, else the scheduled time, so that a late tick gives the same."""
    return settings.as_of or context.scheduled_execution_time.astimezone(UTC).replace(tzinfo=None)


def _last(source: Source, now: datetime) -> str:
    return source.ends or partitions.month_of(now)


def _days_months(source: Source, now: datetime) -> tuple[str, str]:
    """Return the first and the last month of a day's run, within the ledger's months."""
    last = max(min(partitions.month_of(now), _last(source, now)), source.begins)
    return max(partitions.add_months(last, -SETTLING_MONTHS), source.begins), last


def select_by_prefix(assets: Collection[str], stages: Sequence[str]) -> list[str]:
    """Return the assets whose names begin with one of these prefixes, in their order."""
    return [name for name in assets if name.startswith(tuple(stages))]
