"""The command `finrisk`: operations that the commands of Dagster, BentoML and MLflow lack."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import click

from bento.cli.audit import audit, replay
from bento.cli.common import store_faults_as_click_errors
from bento.cli.keys import keys
from bento.cli.people import keyring, people, store
from bento.cli.store_schema import check, upgrade
from bento.cli.streaming import stream, stream_faults_as_click_errors
from finrisk_assets.cli.alert_commands import capacity, rules
from finrisk_assets.private_files import close_folder, restrict_new_files
from finrisk_assets.settings import Settings, SettingsError


class _PlainErrorGroup(click.Group):
    """A command group that reports an expected error in one sentence, without a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        from finrisk_assets.graph.runs.dead_runs import RunError
        from finrisk_assets.graph.runs.warehouse_lock import WarehouseBusyError
        from finrisk_assets.ledger.landing import LandingError
        from finrisk_assets.ledger.snapshots import SnapshotError
        from finrisk_assets.ledger.sources import SourceError
        from finrisk_assets.modelling.packs.pack import PackError
        from finrisk_assets.modelling.training.model_registry import RegistryError
        from finrisk_assets.policy.policy_file import PolicyError
        from schemas.mapping import MappingError

        data = SettingsError, SourceError, MappingError, LandingError, SnapshotError
        expected = *data, PolicyError, RegistryError, PackError, RunError, WarehouseBusyError
        try:
            return super().invoke(ctx)
        except expected as error:
            raise click.ClickException(str(error)) from None
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
    context.obj = Settings.from_environment()
    close_folder(context.obj.root)


@cli.command()
@click.option("--serve/--no-serve", default=True, help="Serve the Bento and ask it for decisions when the graph is done.")
@click.option(
    "--stream-seconds", default=10.0, show_default=True, help="Seconds of a stream on Kafka, where Java is here; 0 leaves it out."
)
@click.pass_obj
def demo(settings: Settings, serve: bool, stream_seconds: float) -> None:
    """Materialise the whole graph, then let the served Bento decide on examples from the ledger."""
    from finrisk_assets.cli.demo import run

    prepare_dagster(settings)
    sys.exit(run(settings, serve=serve, stream_seconds=stream_seconds))


@cli.command()
@click.option("--port", default=3000, show_default=True, help="Port on 127.0.0.1.")
@click.pass_obj
def dev(settings: Settings, port: int) -> None:
    """Open the Dagster UI over this source's graph and its past runs, and start the daemon. Runs that a crash left are failed first."""
    import dagster as dg

    from finrisk_assets.graph.runs.dead_runs import clear_dead_runs

    prepare_dagster(settings)
    with dg.DagsterInstance.get() as instance:
        for line in clear_dead_runs(instance):
            click.echo(line)
    # Dagster advises everybody to type another command of its own.
    os.environ["PYTHONWARNINGS"] = f"{os.environ.get('PYTHONWARNINGS', '')},ignore:Function `dev_command` is superseded".lstrip(",")
    command = ["dagster", "dev", "-m", "finrisk_assets.definitions", "-h", "127.0.0.1", "-p", str(port)]
    os.execv(Path(sys.executable).with_name("dagster"), command)


@cli.command()
@click.option("--port", default=3000, show_default=True, help="Port on 127.0.0.1.")
@click.pass_obj
def serve(settings: Settings, port: int) -> None:
    """Serve the newest Bento of this source."""
    os.environ |= {"BENTOML_HOME": str(settings.bentoml_home), "BENTOML_DO_NOT_TRACK": "true"}
    command = ["bentoml", "serve", "finrisk:latest", "--host", "127.0.0.1", "--port", str(port)]
    os.execv(Path(sys.executable).with_name("bentoml"), command)


@cli.command("load-history")
@click.pass_obj
def load_history(settings: Settings) -> None:
    """Load the ledger's recent transactions and each customer's newest features and scores into the service's store."""
    from finrisk_assets.operations.load_history import LoadHistoryError, load

    try:
        with store_faults_as_click_errors():
            counts = load(settings)
    except LoadHistoryError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{counts} in the service's store")


@cli.command("load-feedback")
@click.pass_obj
def load_feedback(settings: Settings) -> None:
    """Copy the labels that analysts gave to decisions, each with its date, to where the ledger reads them."""
    from bento.cli.common import store_faults_as_click_errors
    from finrisk_assets.operations.load_feedback import load

    with store_faults_as_click_errors():
        label_files = load(settings)
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
@click.pass_obj
def rollback(settings: Settings, domain: str, reason: str) -> None:
    """Make the previous champion of a DOMAIN (as in loan_default) champion again, and build the Bento with it."""
    import dagster as dg

    from finrisk_assets.operations.rollback import roll_back

    prepare_dagster(settings)
    with dg.DagsterInstance.get() as instance:
        result = roll_back(settings, domain, reason, instance)
    withdrawn, champion = result.withdrawn, result.champion
    click.echo(
        f"{withdrawn.name}: version {withdrawn.version} is withdrawn, version {champion.version} is champion again; {result.bento} holds it"
    )
    click.echo("The next batch scoring uses this champion. Restart a running service: it answers with its old models until then.")


@cli.group("runs", invoke_without_command=True)
@click.pass_context
def runs_group(context: click.Context) -> None:
    """List the runs that are not finished: who carries each out, and what it waits for."""
    if context.invoked_subcommand is not None:
        return
    import dagster as dg
    from rich.console import Console
    from rich.table import Table

    from finrisk_assets.graph.runs import dead_runs, warehouse_lock

    settings = context.obj
    prepare_dagster(settings)
    with dg.DagsterInstance.get() as instance:
        lines = dead_runs.list_runs(instance, warehouse_lock.read_holder(settings.warehouse))
    if not lines:
        click.echo("no run is waiting or at work")
        return
    table = Table("run", "job", "state", "worker", "waits for")
    for line in lines:
        table.add_row(line.run_id, line.job, line.state, line.worker, line.waits_for)
    Console(width=max(Console().width, 150)).print(table)


@runs_group.command("clear")
@click.argument("run_id")
@click.pass_obj
def clear_run(settings: Settings, run_id: str) -> None:
    """Fail the dead run whose id begins with RUN_ID, or take it out of the queue, so that it blocks no other."""
    import dagster as dg

    from finrisk_assets.graph.runs.dead_runs import clear_by_hand

    prepare_dagster(settings)
    with dg.DagsterInstance.get() as instance:
        click.echo(clear_by_hand(instance, run_id))


@cli.command()
@click.argument("domains", nargs=-1)
@click.pass_obj
def versions(settings: Settings, domains: tuple[str, ...]) -> None:
    """List the registered models of the DOMAINS (all by default): who decides, who challenges, and what each gate said."""
    from rich.console import Console
    from rich.table import Table

    from finrisk_assets.domains.registry import domains_of
    from finrisk_assets.graph.build import build_resources
    from finrisk_assets.ledger import sources
    from finrisk_assets.modelling.training import model_registry
    from finrisk_assets.modelling.training.gate_verdict import read_verdict

    names = [domain.name for domain in domains_of(sources.load(settings))]
    unknown = sorted(set(domains) - set(names))
    if unknown:
        raise model_registry.RegistryError(f"the source {settings.source} has no domain {', '.join(unknown)}; it has {', '.join(names)}")
    client, table = build_resources(settings)["tracking"].client(), Table()
    for heading in ("model", "version", "alias", "bundle", "gate", "replaces", "rolled back"):
        table.add_column(heading)
    for name in domains or names:
        for model, tags, aliases in model_registry.list_versions(client, name):
            verdict = read_verdict(tags)
            history = (verdict.gate or "–", tags.get(model_registry.REPLACES_TAG, "–"), verdict.rolled_back or "–")
            table.add_row(model.name, model.version, ", ".join(aliases) or "–", tags["bundle"][:12], *history)
    Console().print(table)


@cli.command()
@click.argument("model", required=False)
@click.argument("version", default="champion")
@click.option("--all", "every", is_flag=True, help="Every champion of this source.")
@click.option("--anyway", is_flag=True, help="Try even with other code or other libraries than the version was trained with.")
@click.pass_obj
def reproduce(settings: Settings, model: str | None, version: str, every: bool, anyway: bool) -> None:
    """Train a registered VERSION of a MODEL again from its stored snapshot, and compare the bundles byte for byte.

    MODEL is a domain (loan_default) or a registered name; VERSION a number or an alias. Exit status 0 if all are byte-equal, else 1.
    """
    from finrisk_assets.operations import reproduce as operation

    if every == (model is not None):
        raise click.UsageError("name a MODEL, or give --all for every champion")
    equal = True
    for domain, registered in operation.champions(settings) if every else [operation.find(settings, str(model), version)]:
        done = operation.reproduce(settings, domain, registered, anyway=anyway)
        equal &= done.difference is None
        click.echo(f"{registered.name} version {registered.version}, bundle {done.bundle}: {done.difference or 'byte-equal'}")
        for note in done.environment_changes if done.difference else ():
            click.echo(f"  {note}")
    sys.exit(0 if equal else 1)


@cli.group("snapshots")
def snapshots_group() -> None:
    """Stored copies of data: training rows and landed tables."""


@snapshots_group.command("list")
@click.pass_obj
def list_snapshots(settings: Settings) -> None:
    """List every snapshot: its hash, table and size, what stored it first, and the registered versions that name it."""
    from rich.console import Console
    from rich.table import Table

    from finrisk_assets.ledger import snapshots
    from finrisk_assets.operations.reproduce import named_snapshots

    named, table = named_snapshots(settings), Table()
    for heading in ("snapshot", "table", "rows", "MB", "first kept by", "named by"):
        table.add_column(heading, justify="right" if heading in ("rows", "MB") else "left")
    for snapshot in snapshots.list_snapshots(snapshots.snapshot_folder(settings.root)):
        size = f"{snapshot.size / 1e6:,.1f}"
        table.add_row(
            snapshot.sha256[:12],
            snapshot.table,
            f"{snapshot.rows:,}",
            size,
            snapshot.kept_by,
            ", ".join(named.get(snapshot.sha256, ())) or "–",
        )
    Console().print(table)


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
@click.pass_obj
def prune_snapshots(settings: Settings, yes: bool) -> None:
    """Remove the snapshots that no registered version names."""
    from finrisk_assets.ledger import snapshots
    from finrisk_assets.operations.reproduce import named_snapshots

    folder, named = snapshots.snapshot_folder(settings.root), named_snapshots(settings)
    removed = (
        snapshots.prune(folder, named)
        if yes
        else [snapshot for snapshot in snapshots.list_snapshots(folder) if snapshot.sha256 not in named]
    )
    size = sum(snapshot.size for snapshot in removed) / 1e6
    click.echo(f"{len(removed)} snapshots, {size:,.1f} MB, named by no version: {'removed' if yes else '--yes removes them'}")


@cli.group("validate-pack")
def validate_pack() -> None:
    """Model cards and validation packs: list them, show one, verify them. See docs/validation-pack.md."""


@validate_pack.command("list")
@click.pass_obj
def list_packs(settings: Settings) -> None:
    """List the packs of this source."""
    from rich.console import Console
    from rich.table import Table

    from finrisk_assets.operations import verify_pack

    table = Table("domain", "version", "bundle", "figures", "verdict")
    for record, _ in verify_pack.list_packs(settings):
        verdict = "supports" if record.is_supported else "does not support"
        table.add_row(record.domain, record.registry_version, record.version, str(len(record.figures)), verdict)
    Console().print(table if table.row_count else "there is no pack yet: `finrisk demo` makes them")


@validate_pack.command()
@click.argument("domain")
@click.option("--version", help="The bundle's version, or its number in the registry. Default: the newest.")
@click.pass_obj
def show(settings: Settings, domain: str, version: str | None) -> None:
    """Show the verdict and the figures of the pack of a DOMAIN (as in loan_default), and where its pages are."""
    from rich.console import Console

    from finrisk_assets.operations import verify_pack

    record, folder = verify_pack.find_pack(settings, domain, version)
    console = Console()
    for line in verify_pack.render_pack(record):
        console.print(line)
    click.echo(f"{folder / 'card.html'}\n{folder / 'pack.html'}")


@validate_pack.command()
@click.argument("domain", required=False)
@click.option("--version", help="The bundle's version, or its number in the registry. Default: the champion's.")
@click.pass_obj
def verify(settings: Settings, domain: str | None, version: str | None) -> None:
    """Check every hash and compute every figure again, of the champion of a DOMAIN or of all; exit 1 if anything disagrees."""
    from finrisk_assets.operations import verify_pack

    wrong = 0
    for name in [domain] if domain else verify_pack.list_domains_with_packs(settings):
        done = verify_pack.verify(settings, name, version)
        wrong += len(done.disagreements)
        click.echo(f"{done.record.title}, bundle {done.record.version}")
        for outcome in done.outcomes:
            click.echo(f"  {outcome.name:<36} {outcome.agree:>4} of {outcome.total:<4} agree")
        if done.disagreements:
            click.echo(f"  first disagreement: {done.disagreements[0]}")
    if wrong:
        raise click.ClickException(f"{wrong} disagreements: the evidence is not what it was when the pack was made")
    click.echo("everything agrees")


@cli.group("policy")
def policy_group() -> None:
    """The decision policy: costs, limits, thresholds and capacities, apart from the models. See docs/policy.md."""


POLICY_FILE = click.Path(path_type=Path, dir_okay=False)


@policy_group.command("show")
@click.argument("file", required=False, type=POLICY_FILE)
@click.pass_obj
def show_policy(settings: Settings, file: Path | None) -> None:
    """Print the policy in effect, or that of a FILE, as it is written, and its version."""
    from finrisk_assets.policy.policy_file import find_policy_file, read_policy

    path = file or find_policy_file(settings)
    policy = read_policy(path)
    click.echo(path.read_text(encoding="utf-8"), nl=False)
    click.echo(f"# {path}: policy {policy.name}, version {policy.version}")


@policy_group.command("check")
@click.argument("file", required=False, type=POLICY_FILE)
@click.pass_obj
def check_policy(settings: Settings, file: Path | None) -> None:
    """Check the policy in effect, or that of a FILE: every wrong key with its line and the fix; exit 1 if there is one."""
    from finrisk_assets.policy.policy_file import find_policy_file, read_policy

    path = file or find_policy_file(settings)
    policy = read_policy(path)
    click.echo(f"{path}: policy {policy.name}, version {policy.version}, is right")


@policy_group.command("diff")
@click.argument("before", type=POLICY_FILE)
@click.argument("after", type=POLICY_FILE)
@click.pass_obj
def diff_policies(settings: Settings, before: Path, after: Path) -> None:
    """Decide last month's rows under the policies BEFORE and AFTER: how many decisions change, for whom, and what it is worth."""
    from rich.console import Console
    from rich.table import Table

    from finrisk_assets.operations import policy_diff
    from finrisk_assets.policy.policy_file import read_policy

    old, new = read_policy(before), read_policy(after)
    for key, was, becomes in policy_diff.list_changed_keys(old, new):
        click.echo(f"{key}: {was} → {becomes}")
    console, n_domains = Console(), 0
    for diff in policy_diff.compare_policies(settings, old, new):
        n_domains += 1
        worth = "" if diff.worth_before is None else f"; worth {diff.worth_before:,.0f} → {diff.worth_after:,.0f}"
        click.echo(f"\n{diff.domain}, {diff.month}: {diff.changed:,} of {diff.n:,} decisions change{worth}")
        if diff.groups:
            table = Table("by", "group", "rows", "changed", "worth more")
            for group in diff.groups:
                more = "" if group.worth is None else f"{group.worth:,.0f}"
                table.add_row(group.column, group.group, f"{group.n:,}", f"{group.changed:,}", more)
            console.print(table)
    if not n_domains:
        click.echo("there are no champions to decide with: `finrisk demo` makes them")


@cli.command()
@click.argument("domains", nargs=-1)
@click.option("--page", is_flag=True, help="Write the page of all built-in sources instead: docs/reason-catalogue.md.")
@click.pass_obj
def reasons(settings: Settings, domains: tuple[str, ...], page: bool) -> None:
    """Print the reasons of the DOMAINS (all by default): every feature of this source's models with its theme and its sentences."""
    from rich.console import Console
    from rich.table import Table

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
    for domain in domains or names:
        table = Table(title=domain)
        for heading in ("theme", "feature", "when", "low", "high", "other"):
            table.add_column(heading, overflow="fold")
        for entry in catalogue:
            if entry.domain == domain:
                table.add_row(entry.theme, entry.feature, entry.when, entry.low, entry.high, entry.other)
        Console().print(table)


@cli.command()
@click.pass_obj
def shadow(settings: Settings) -> None:
    """Show each challenger beside its champion, over the requests that both have scored (FINRISK_SHADOW=true)."""
    from rich.console import Console
    from rich.table import Table

    from finrisk_assets.operations import shadow_report

    with store_faults_as_click_errors():
        comparisons = shadow_report.report(settings)
    if not comparisons:
        click.echo("nothing is recorded yet: docs/service.md says how a challenger comes into the service")
        return
    table = Table()
    for heading in ("domain", "champion", "challenger", *shadow_report.HEADINGS):
        table.add_column(heading)
    for pair in comparisons:
        table.add_row(pair.domain, pair.champion, pair.challenger, *pair.cells())
    Console(width=max(Console().width, 150)).print(table)


for command in (audit, capacity, keys, people, keyring, replay, rules, store, stream):
    cli.add_command(command)
for command in (upgrade, check):
    store.add_command(command)


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
