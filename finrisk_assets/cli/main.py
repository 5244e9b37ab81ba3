"""The command `finrisk`: operations that the commands of Dagster, BentoML and MLflow lack."""

import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from bento.cli.audit import audit, replay
from bento.cli.common import find_missing_store, store_faults_as_click_errors
from bento.cli.console_command import console
from bento.cli.keys import keys
from bento.cli.output import AS_JSON, EMPTY, print_json, print_table
from bento.cli.people import keyring, people, store
from bento.cli.store_schema import check, upgrade
from bento.cli.streaming import stream, stream_faults_as_click_errors
from finrisk_assets.cli import data, prerequisites
from finrisk_assets.cli.alert_commands import capacity, rules
from finrisk_assets.cli.doctor import doctor
from finrisk_assets.cli.mirror_commands import mirror
from finrisk_assets.private_files import close_folder, restrict_new_files
from finrisk_assets.settings import Settings, SettingsError


class _PlainErrorGroup(click.Group):
    """A command group that reports an expected error in one sentence, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        from finrisk_assets.engines.engine import EngineError
        from finrisk_assets.engines.postgres_engine import describe_fault
        from finrisk_assets.graph.runs.dead_runs import RunError
        from finrisk_assets.graph.runs.warehouse_lock import WarehouseBusyError
        from finrisk_assets.graph.warehouse import MissingTableError
        from finrisk_assets.ledger.landing import LandingError
        from finrisk_assets.ledger.snapshots import SnapshotError
        from finrisk_assets.ledger.sources import SourceError
        from finrisk_assets.modelling.packs.pack import PackError
        from finrisk_assets.modelling.training.model_registry import RegistryError
        from finrisk_assets.objects.addresses import ObjectError
        from finrisk_assets.policy.policy_file import PolicyError
        from schemas.mapping import MappingError

        of_data = SettingsError, SourceError, MappingError, LandingError, SnapshotError, ObjectError
        expected = *of_data, PolicyError, RegistryError, PackError, RunError, WarehouseBusyError, EngineError, MissingTableError
        try:
            return super().invoke(ctx)
        except expected as error:
            raise click.ClickException(str(error)) from None
        except Exception as error:
            if (fault := describe_fault(error)) is None:
                raise
            raise click.ClickException(fault) from None
        except KeyboardInterrupt:
            # click would end with 1, as after an error.
            raise SystemExit(128 + signal.SIGINT) from None


@click.group(cls=_PlainErrorGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="finrisk")
@click.pass_context
def cli(context: click.Context) -> None:
    """Five personal-finance risk decisions from one ledger.

    FINRISK_SOURCE chooses the ledger (default simulator; all: docs/sources.md), FINRISK_HOME where everything is kept (default .finrisk).
    All settings: docs/settings.md.
    """
    # Spinning threads slow each other where cores are few. OpenMP reads the variable when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    restrict_new_files()
    from schemas.mapping import MappingError

    context.obj = Settings.from_environment()
    if not os.access(os.path.expanduser("~"), os.W_OK):
        # A user without a home of their own: Matplotlib would complain about its cache.
        os.environ.setdefault("MPLCONFIGDIR", str(context.obj.home.absolute() / "matplotlib"))
    # A mapping that names no ledger is the matter of the command that reads it.
    with suppress(MappingError):
        close_folder(context.obj.root)


@cli.command()
@click.option("--serve/--no-serve", default=True, help="Serve the Bento and ask it for decisions when the graph is done.")
@click.option(
    "--stream-seconds",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0, 600),
    help="Seconds of a stream on Kafka after that, where Java is here; 0 leaves it out.",
)
@click.pass_obj
def demo(settings: Settings, serve: bool, stream_seconds: float) -> None:
    """Materialise the whole graph, then let the served Bento decide on examples from the ledger."""
    from finrisk_assets.cli import local_servers
    from finrisk_assets.cli.demo import run

    prerequisites.check_settings(settings)
    prepare_dagster(settings)
    # So that what the demonstration records links to the pages of `make up`.
    settings = local_servers.plan_addresses(settings, 3000)
    sys.exit(run(settings, serve=serve, stream_seconds=stream_seconds, address=settings.console_url))


PORT = click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65535), help="Port on 127.0.0.1.")


@cli.command()
@PORT
@click.pass_obj
def dev(settings: Settings, port: int) -> None:
    """Open the Dagster UI over this source's graph and its past runs, and start the daemon. Runs that a crash left are failed first."""
    from finrisk_assets.cli import local_servers

    prerequisites.check_settings(settings)
    local_servers.require_free_port(port, "make dev")
    server = local_servers.dagster_server(settings, port)
    for line in server.prepare():
        click.echo(line)
    server.replace_this_process()


@cli.command()
@PORT
@click.pass_obj
def serve(settings: Settings, port: int) -> None:
    """Serve the newest Bento of this source, with the console at /console."""
    from finrisk_assets.cli import local_servers

    prerequisites.require_bento(settings)
    local_servers.require_free_port(port, "make serve")
    os.environ.setdefault("FINRISK_CONSOLE", "true")
    local_servers.bento_server(settings, port).replace_this_process()


@cli.command()
@click.option("--port", default=3000, show_default=True, type=click.IntRange(1, 65000), help="Port of the service; the others follow it.")
@click.pass_context
def up(context: click.Context, port: int) -> None:
    """Start the service, the console, the Dagster UI and the MLflow UI, each on a free port; Ctrl-C ends them all."""
    from finrisk_assets.cli import local_servers

    prerequisites.check_settings(context.obj)
    prerequisites.require_bento(context.obj)
    sys.exit(local_servers.run_servers(context.obj, local_servers.plan_servers(context.obj, port)))


@cli.command("load-history")
@AS_JSON
@click.pass_obj
def load_history(settings: Settings, as_json: bool) -> None:
    """Load the ledger's recent transactions and each customer's newest features and scores into the service's store."""
    from finrisk_assets.operations.load_history import LoadHistoryError, load

    try:
        with store_faults_as_click_errors():
            counts = load(settings)
    except LoadHistoryError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        print_json(counts._asdict())
        return
    click.echo(f"{counts} in the service's store")


@cli.command("load-feedback")
@AS_JSON
@click.pass_obj
def load_feedback(settings: Settings, as_json: bool) -> None:
    """Copy the labels that analysts gave to decisions, each with its date, to where the ledger reads them."""
    from finrisk_assets.operations.load_feedback import load

    require_store(settings)
    with store_faults_as_click_errors():
        label_files = load(settings)
    if as_json:
        print_json([label_file._asdict() for label_file in label_files])
        return
    for label_file in label_files:
        click.echo(str(label_file))
    click.echo("The ledger has them from its next run on: the sensor of new files starts it, or materialise raw_transactions downwards.")


@cli.group("simulate")
def simulate() -> None:
    """Programs that act as a bank's own systems would."""


@simulate.command("stream")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Transactions a second.")
@click.option("--duration", type=click.FloatRange(min=0, min_open=True), help="Seconds to send for. Default: until there are no more.")
@click.option("--as-fast-as-possible", "unpaced", is_flag=True, help="Send as many a second as the brokers take.")
@click.option(
    "--limit", type=click.IntRange(min=1), help="Transactions of the ledger to send, the newest. Default: all, or as many as fit."
)
@click.option(
    "--from", "file", type=click.Path(path_type=Path, dir_okay=False), help="A Parquet or JSON Lines file to send instead of the ledger."
)
@click.pass_obj
def simulate_stream(
    settings: Settings, rate: float | None, duration: float | None, unpaced: bool, limit: int | None, file: Path | None
) -> None:
    """Send transactions of the ledger or of a file to the stream's topic. See docs/streaming.md."""
    from datetime import UTC, datetime
    from itertools import islice

    from finrisk_assets.operations import simulate_stream as operation

    if unpaced == (rate is not None):
        raise click.UsageError("give --rate, or --as-fast-as-possible")
    if limit is None and rate is not None and duration is not None:
        limit = max(1, round(rate * duration))
    start = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    try:
        messages = operation.read_ledger(settings, limit, start) if file is None else islice(operation.read_file(file, start), limit)
        with stream_faults_as_click_errors():
            sent = operation.send_messages(settings, messages, rate, duration, lambda report: click.echo(str(report), err=True))
    except operation.SimulateStreamError as error:
        raise click.ClickException(str(error)) from None
    click.echo(str(sent))


@cli.command()
@click.argument("domain")
@click.option("--reason", required=True, help="Why; stored with the withdrawn version, which may not become champion again.")
@AS_JSON
@click.pass_obj
def rollback(settings: Settings, domain: str, reason: str, as_json: bool) -> None:
    """Make the previous champion of a DOMAIN (as in loan_default) champion again, and build the Bento with it."""
    import dagster as dg

    from finrisk_assets.operations.rollback import roll_back

    prerequisites.require_registry(settings)
    prepare_dagster(settings)
    with dg.DagsterInstance.get() as instance:
        result = roll_back(settings, domain, reason, instance)
    withdrawn, champion = result.withdrawn, result.champion
    if as_json:
        versions = {"withdrawn": withdrawn.version, "champion": champion.version}
        print_json({"model": withdrawn.name, **versions, "bento": str(result.bento)})
        return
    click.echo(
        f"{withdrawn.name}: version {withdrawn.version} is withdrawn, version {champion.version} is champion again; {result.bento} holds it"
    )
    click.echo("The next batch scoring uses this champion. Restart a running service: it answers with its old models until then.")


@cli.group("runs", invoke_without_command=True)
@AS_JSON
@click.pass_context
def runs_group(context: click.Context, as_json: bool) -> None:
    """List the runs that are not finished: who carries each out, and what it waits for."""
    if context.invoked_subcommand is not None:
        return
    import dagster as dg

    from finrisk_assets.graph.runs import dead_runs, warehouse_lock

    settings, lines = context.obj, list[dead_runs.RunLine]()
    if prerequisites.has_dagster(settings):
        prepare_dagster(settings)
        with dg.DagsterInstance.get() as instance:
            lines = dead_runs.list_runs(instance, warehouse_lock.read_holder(settings.warehouse))
    if as_json:
        print_json([asdict(line) for line in lines])
    elif lines:
        rows = [(line.run_id, line.job, line.state, line.worker, line.waits_for) for line in lines]
        print_table(("run", "job", "state", "worker", "waits for"), rows)
    else:
        click.echo("no run is waiting or at work")


@runs_group.command("clear")
@click.argument("run_id")
@click.pass_obj
def clear_run(settings: Settings, run_id: str) -> None:
    """Fail the dead run whose id begins with RUN_ID, or take it out of the queue, so that it blocks no other."""
    import dagster as dg

    from finrisk_assets.graph.runs.dead_runs import clear_by_hand

    prerequisites.require_dagster(settings)
    prepare_dagster(settings)
    with dg.DagsterInstance.get() as instance:
        click.echo(clear_by_hand(instance, run_id))


@cli.command()
@click.argument("domains", nargs=-1)
@AS_JSON
@click.pass_obj
def versions(settings: Settings, domains: tuple[str, ...], as_json: bool) -> None:
    """List the registered models of the DOMAINS (all by default): who decides, who challenges, and what each gate said."""
    from finrisk_assets.domains.registry import domains_of
    from finrisk_assets.graph.build import build_resources
    from finrisk_assets.graph.stages.evaluation import read_test_auc
    from finrisk_assets.ledger import sources
    from finrisk_assets.modelling.training import model_registry
    from finrisk_assets.modelling.training.gate_verdict import read_verdict

    prerequisites.require_registry(settings)
    names = [domain.name for domain in domains_of(sources.load(settings))]
    unknown = sorted(set(domains) - set(names))
    if unknown:
        raise model_registry.RegistryError(f"the source {settings.source} has no domain {', '.join(unknown)}; it has {', '.join(names)}")
    client, rows = build_resources(settings)["tracking"].client(), []
    for name in domains or names:
        for model, tags, aliases in model_registry.list_versions(client, name):
            verdict, auc = read_verdict(tags), read_test_auc(client, model)
            version = {"domain": name, "version": model.version, "model": model.name, "aliases": sorted(aliases), "bundle": tags["bundle"]}
            replaced = tags.get(model_registry.REPLACES_TAG)
            rows.append(version | {"auc": auc, "gate": verdict.gate, "replaces": replaced, "rolled_back": verdict.rolled_back})
    if as_json:
        print_json(rows)
        return
    headings = ("domain", "no.", "role", "AUC [95 %]", "gate", "bundle", "replaces", "rolled back")
    print_table(headings, [_version_cells(row) for row in rows])


def _version_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of a registered version; of a champion that nobody challenges both aliases are one role."""
    role = "champion" if "champion" in row["aliases"] else ", ".join(row["aliases"])
    forms = {"value": "{}", "low": "[{},", "high": "{}]"}
    auc = " ".join(_share(row["auc"][name], form) for name, form in forms.items()) if row["auc"] else EMPTY
    last = (row["gate"] or EMPTY, row["bundle"][:12], row["replaces"] or EMPTY, row["rolled_back"] or EMPTY)
    return (row["domain"], row["version"], role, auc, *last)


def _share(value: float, form: str) -> str:
    """Return a number of at most 1 with three decimals and without its zero: ``.816``."""
    return form.format(f"{value:.3f}".replace("0.", ".", 1))


@cli.command()
@click.argument("model", required=False)
@click.argument("version", default="champion")
@click.option("--all", "every", is_flag=True, help="Every champion of this source.")
@click.option("--anyway", is_flag=True, help="Try even with other code or other libraries than the version was trained with.")
@AS_JSON
@click.pass_obj
def reproduce(settings: Settings, model: str | None, version: str, every: bool, anyway: bool, as_json: bool) -> None:
    """Train a registered VERSION of a MODEL again from its stored snapshot, and compare the bundles byte for byte.

    MODEL is a domain (loan_default) or a registered name; VERSION a number or an alias. Exit status 0 if all are byte-equal, else 1.
    """
    from finrisk_assets.operations import reproduce as operation

    if every == (model is not None):
        raise click.UsageError("name a MODEL, or give --all for every champion")
    prerequisites.require_registry(settings)
    equal, outcomes = True, []
    for domain, registered in operation.champions(settings) if every else [operation.find(settings, str(model), version)]:
        done = operation.reproduce(settings, domain, registered, anyway=anyway)
        equal &= done.difference is None
        outcome = {"model": registered.name, "version": registered.version, "bundle": done.bundle, "difference": done.difference}
        outcomes.append(outcome | {"environment_changes": list(done.environment_changes)})
        if as_json:
            continue
        click.echo(f"{registered.name} version {registered.version}, bundle {done.bundle}: {done.difference or 'byte-equal'}")
        for note in done.environment_changes if done.difference else ():
            click.echo(f"  {note}")
    if as_json:
        print_json(outcomes)
    sys.exit(0 if equal else 1)


@cli.group("snapshots")
def snapshots_group() -> None:
    """Stored copies of data: training rows and landed tables."""


@snapshots_group.command("list")
@AS_JSON
@click.pass_obj
def list_snapshots(settings: Settings, as_json: bool) -> None:
    """List every snapshot: its hash, table and size, what stored it first, and the registered versions that name it."""
    from finrisk_assets.ledger import snapshots
    from finrisk_assets.operations.reproduce import named_snapshots

    prerequisites.require_registry(settings)
    named, stored = named_snapshots(settings), snapshots.list_snapshots(snapshots.snapshot_folder(settings.root))
    if as_json:
        print_json([asdict(snapshot) | {"named_by": list(named.get(snapshot.sha256, ()))} for snapshot in stored])
        return
    rows = [
        (
            *(snapshot.sha256[:12], snapshot.table, f"{snapshot.rows:,}", f"{snapshot.size / 1e6:,.1f}", snapshot.kept_by),
            ", ".join(named.get(snapshot.sha256, ())) or EMPTY,
        )
        for snapshot in stored
    ]
    print_table(("snapshot", "table", "rows", "MB", "first kept by", "named by"), rows)


@snapshots_group.command("restore")
@click.argument("sha256")
@click.option("--to", "target", required=True, type=click.Path(path_type=Path, dir_okay=False), help="The Parquet file to write.")
@click.pass_obj
def restore_snapshot(settings: Settings, sha256: str, target: Path) -> None:
    """Write the snapshot whose hash begins with SHA256 to a file, after checking that its bytes are those that were stored."""
    import shutil

    from finrisk_assets.ledger import snapshots

    file = snapshots.restore(snapshots.snapshot_folder(settings.root), sha256)
    shutil.copyfile(file, target)
    click.echo(f"{target}: snapshot {file.stem}")


@snapshots_group.command("prune")
@click.option("--yes", is_flag=True, help="Remove them; without it they are only counted.")
@AS_JSON
@click.pass_obj
def prune_snapshots(settings: Settings, yes: bool, as_json: bool) -> None:
    """Remove the snapshots that no registered version names."""
    from finrisk_assets.ledger import snapshots
    from finrisk_assets.operations.reproduce import named_snapshots

    prerequisites.require_registry(settings)
    folder, named = snapshots.snapshot_folder(settings.root), named_snapshots(settings)
    removed = (
        snapshots.prune(folder, named)
        if yes
        else [snapshot for snapshot in snapshots.list_snapshots(folder) if snapshot.sha256 not in named]
    )
    size = sum(snapshot.size for snapshot in removed) / 1e6
    if as_json:
        print_json({"unnamed": [snapshot.sha256 for snapshot in removed], "megabytes": size, "removed": yes})
        return
    click.echo(f"{len(removed)} snapshots, {size:,.1f} MB, named by no version: {'removed' if yes else '--yes removes them'}")


@cli.group("validate-pack")
def validate_pack() -> None:
    """Model cards and validation packs: list them, show one, verify them. See docs/validation-pack.md."""


@validate_pack.command("list")
@AS_JSON
@click.pass_obj
def list_packs(settings: Settings, as_json: bool) -> None:
    """List the packs of this source."""
    from finrisk_assets.operations import verify_pack

    headings, rows = ("domain", "version", "bundle", "figures", "verdict"), []
    for record, _ in verify_pack.list_packs(settings):
        verdict = "supports" if record.is_supported else "does not support"
        rows.append((record.domain, record.registry_version, record.version, str(len(record.figures)), verdict))
    if as_json:
        print_json([dict(zip(headings, row, strict=True)) for row in rows])
    elif rows:
        print_table(headings, rows)
    else:
        click.echo("there is no pack yet: `make demo` makes them")


@validate_pack.command()
@click.argument("domain")
@click.option("--version", help="The bundle's version, or its number in the registry. Default: the newest.")
@AS_JSON
@click.pass_obj
def show(settings: Settings, domain: str, version: str | None, as_json: bool) -> None:
    """Show the verdict and the figures of the pack of a DOMAIN (as in loan_default), and where its pages are."""
    from finrisk_assets.operations import verify_pack

    record, folder = verify_pack.find_pack(settings, domain, version)
    pages = [str(folder / name) for name in ("card.html", "pack.html")]
    if as_json:
        verdicts = [{"demand": item.demand, "is_met": item.is_met, "reasons": list(item.reasons)} for item in record.verdicts]
        print_json(
            {
                "domain": record.domain,
                "version": record.version,
                "verdicts": verdicts,
                "pages": pages,
                "figures": [asdict(figure) for figure in record.figures],
            }
        )
        return
    click.echo(f"{record.title}: {record.model}, version {record.registry_version}, bundle {record.version}")
    for item in record.verdicts:
        click.echo(f"{'met    ' if item.is_met else 'NOT MET'}  {item.demand}  {'; '.join(item.reasons)}")
    for heading, rows in verify_pack.list_figures(record):
        print_table(("figure", "value", "95 % interval", "from"), rows, title=f"\n{heading}")
    click.echo("\n" + "\n".join(pages))


@validate_pack.command()
@click.argument("domain", required=False)
@click.option("--version", help="The bundle's version, or its number in the registry. Default: the champion's.")
@AS_JSON
@click.pass_obj
def verify(settings: Settings, domain: str | None, version: str | None, as_json: bool) -> None:
    """Check every hash and compute every figure again, of the champion of a DOMAIN or of all; exit 1 if anything disagrees."""
    from finrisk_assets.operations import verify_pack

    wrong, packs = 0, []
    for name in [domain] if domain else verify_pack.list_domains_with_packs(settings):
        done = verify_pack.verify(settings, name, version)
        wrong += len(done.disagreements)
        outcomes = [{"name": outcome.name, "agree": outcome.agree, "of": outcome.total} for outcome in done.outcomes]
        packs.append(
            {"domain": name, "bundle": done.record.version, "outcomes": outcomes, "disagreements": [str(one) for one in done.disagreements]}
        )
        if as_json:
            continue
        click.echo(f"{done.record.title}, bundle {done.record.version}")
        for outcome in done.outcomes:
            click.echo(f"  {outcome.name:<36} {outcome.agree:>4} of {outcome.total:<4} agree")
        if done.disagreements:
            click.echo(f"  first disagreement: {done.disagreements[0]}")
    if as_json:
        print_json(packs)
    if wrong:
        raise click.ClickException(f"{wrong} disagreements: the evidence is not what it was when the pack was made")
    if not as_json:
        click.echo("everything agrees")


@cli.group("policy")
def policy_group() -> None:
    """The decision policy: costs, limits, thresholds and capacities, apart from the models. See docs/policy.md."""


POLICY_FILE = click.Path(path_type=Path, dir_okay=False)


@policy_group.command("show")
@click.argument("file", required=False, type=POLICY_FILE)
@AS_JSON
@click.pass_obj
def show_policy(settings: Settings, file: Path | None, as_json: bool) -> None:
    """Print the policy in effect, or that of a FILE, as it is written, and its version."""
    from finrisk_assets.policy.policy_file import find_policy_file, read_policy

    path = file or find_policy_file(settings)
    policy = read_policy(path)
    if as_json:
        print_json(policy.model_dump(mode="json") | {"file": str(path), "version": policy.version})
        return
    click.echo(path.read_text(encoding="utf-8"), nl=False)
    click.echo(f"# {path}: policy {policy.name}, version {policy.version}")


@policy_group.command("check")
@click.argument("file", required=False, type=POLICY_FILE)
@AS_JSON
@click.pass_obj
def check_policy(settings: Settings, file: Path | None, as_json: bool) -> None:
    """Check the policy in effect, or that of a FILE: every wrong key with its line and the fix; exit 1 if there is one."""
    from finrisk_assets.policy.policy_file import find_policy_file, read_policy

    path = file or find_policy_file(settings)
    policy = read_policy(path)
    if as_json:
        print_json({"file": str(path), "name": policy.name, "version": policy.version})
        return
    click.echo(f"{path}: policy {policy.name}, version {policy.version}, is right")


@policy_group.command("diff")
@click.argument("before", type=POLICY_FILE)
@click.argument("after", type=POLICY_FILE)
@AS_JSON
@click.pass_obj
def diff_policies(settings: Settings, before: Path, after: Path, as_json: bool) -> None:
    """Decide last month's rows under the policies BEFORE and AFTER: how many decisions change, for whom, and what it is worth."""
    from finrisk_assets.operations import policy_diff
    from finrisk_assets.policy.policy_file import read_policy

    old, new = read_policy(before), read_policy(after)
    changes = policy_diff.list_changed_keys(old, new)
    if as_json:
        keys = [{"key": key, "before": was, "after": becomes} for key, was, becomes in changes]
        print_json({"keys": keys, "domains": [asdict(diff) for diff in policy_diff.compare_policies(settings, old, new)]})
        return
    for key, was, becomes in changes:
        click.echo(f"{key}: {was} → {becomes}")
    n_domains = 0
    for diff in policy_diff.compare_policies(settings, old, new):
        n_domains += 1
        worth = "" if diff.worth_before is None else f"; worth {diff.worth_before:,.0f} → {diff.worth_after:,.0f}"
        click.echo(f"\n{diff.domain}, {diff.month}: {diff.changed:,} of {diff.n:,} decisions change{worth}")
        if diff.groups:
            rows = [
                (*(group.column, group.group, f"{group.n:,}", f"{group.changed:,}"), "" if group.worth is None else f"{group.worth:,.0f}")
                for group in diff.groups
            ]
            print_table(("by", "group", "rows", "changed", "worth more"), rows)
    if not n_domains:
        click.echo("there are no champions to decide with: `make demo` makes them")


@cli.command()
@click.argument("domains", nargs=-1)
@click.option("--page", is_flag=True, help="Write the page of all built-in sources instead: docs/reason-catalogue.md.")
@AS_JSON
@click.pass_obj
def reasons(settings: Settings, domains: tuple[str, ...], page: bool, as_json: bool) -> None:
    """Print the reasons of the DOMAINS (all by default): every feature of this source's models with its theme and its sentences."""
    from finrisk_assets.ledger import sources
    from finrisk_assets.operations import reason_catalogue

    if page:
        click.echo(reason_catalogue.page(), nl=False)
        return
    catalogue = reason_catalogue.entries(sources.load(settings))
    names = list(dict.fromkeys(entry.domain for entry in catalogue))
    unknown = sorted(set(domains) - set(names))
    if unknown:
        raise click.UsageError(f"the source {settings.source} has no domain {', '.join(unknown)}; it has {', '.join(names)}")
    chosen = [entry for entry in catalogue if entry.domain in (domains or names)]
    if as_json:
        print_json([asdict(entry) for entry in chosen])
        return
    headings = ("theme", "feature", "when", "low", "high", "other")
    for domain in domains or names:
        rows = [tuple(getattr(entry, heading) for heading in headings) for entry in chosen if entry.domain == domain]
        print_table(headings, rows, title=f"\n{domain}")


@cli.command()
@AS_JSON
@click.pass_obj
def shadow(settings: Settings, as_json: bool) -> None:
    """Show each challenger beside its champion, over the requests that both have scored (FINRISK_SHADOW=true)."""
    from finrisk_assets.operations import shadow_report

    with store_faults_as_click_errors():
        comparisons = shadow_report.report(settings)
    if as_json:
        print_json([asdict(pair) for pair in comparisons])
    elif comparisons:
        rows = [(pair.domain, pair.champion, pair.challenger, *pair.cells()) for pair in comparisons]
        print_table(("domain", "champion", "challenger", *shadow_report.HEADINGS), rows)
    else:
        click.echo("nothing is recorded yet: docs/service.md says how a challenger comes into the service")


for command in (
    audit,
    capacity,
    console,
    doctor,
    keys,
    people,
    keyring,
    mirror,
    replay,
    rules,
    store,
    stream,
    data.export,
    data.import_files,
    data.check_file,
    data.show_quarantine,
):
    cli.add_command(command)
for command in (upgrade, check):
    store.add_command(command)


def require_store(settings: Settings) -> None:
    """Refuse a command on the service's store where there is none yet."""
    missing = find_missing_store(settings)
    if missing is not None:
        raise click.ClickException(f"there is no store at {missing}: `finrisk load-history` or the service creates it")


def prepare_dagster(settings: Settings) -> None:
    """Make the Dagster instance of this source, and print what this version would add to an instance that exists."""
    from finrisk_assets.graph.runs import dagster_home

    for line in dagster_home.prepare_dagster(settings):
        click.echo(line, err=True)


def main() -> None:
    """Entry point of the command `finrisk`."""
    cli()


if __name__ == "__main__":
    main()
