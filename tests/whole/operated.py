"""A home as operators treat it: the real daemon and real runs in processes of their own, which are killed, stopped and started together."""

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import psutil

from finrisk_assets.settings import Settings

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 240.0
"""Seconds after which a test gives up: a bound, not a demand."""

ACTIVE = (dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING)

TICKING = '''
"""The product's graph with its own schedules, asked every minute; a schedule fires where a file of its name is in the folder."""

import os
from pathlib import Path

import dagster as dg

from finrisk_assets import definitions

# A module that Dagster loads may have one graph.
PRODUCT = [definitions.defs]
ASKED = Path(os.environ["ASKED"])


def every_minute(schedule: dg.ScheduleDefinition) -> dg.ScheduleDefinition:
    @dg.schedule(name=schedule.name, job_name=schedule.job_name, cron_schedule="* * * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
    def ticking(context: dg.ScheduleEvaluationContext):
        asked = ASKED / schedule.name
        if not asked.exists():
            return dg.SkipReason("not asked")
        asked.unlink()
        return schedule.evaluate_tick(context).run_requests

    return ticking


defs = dg.Definitions(
    assets=PRODUCT[0].assets,
    asset_checks=PRODUCT[0].asset_checks,
    jobs=PRODUCT[0].jobs,
    schedules=[every_minute(schedule) for schedule in PRODUCT[0].schedules],
    sensors=PRODUCT[0].sensors,
    resources=PRODUCT[0].resources,
    loggers=PRODUCT[0].loggers,
    executor=PRODUCT[0].executor,
)
'''


@dataclass
class OperatedHome:
    """The home of a mapped source, with the processes that work on it.

    Attributes
    ----------
    folder
        The folder of the mapping file `mapping`, of the log, and of the home.
    variables
        More environment variables of every process.
    """

    folder: Path
    mapping: str
    variables: Mapping[str, str] = field(default_factory=dict)
    dev: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> Settings:
        return Settings.from_environment({name: value for name, value in self.environment.items() if name.startswith("FINRISK_")})

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "FINRISK_HOME": str(self.folder / "home"),
            "FINRISK_SOURCE": "mapped",
            "FINRISK_MAPPING": str(self.folder / self.mapping),
            "DAGSTER_HOME": str(self.folder / "home" / "shop" / "dagster"),
            "ASKED": str(self.folder / "asked"),
            "PYTHONPATH": os.pathsep.join((str(REPOSITORY), str(self.folder))),
            "OMP_NUM_THREADS": "1",
        }
        return os.environ | own | dict(self.variables)

    @property
    def log(self) -> str:
        return (self.folder / "dev.log").read_text(errors="replace")

    def finrisk(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a `finrisk` command to its end."""
        return self.run(sys.executable, "-m", "finrisk_assets.cli.main", *words)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(command, env=self.environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S)

    def start(self, *command: str, log: str | None = None) -> subprocess.Popen[bytes]:
        """Start a command as the leader of a process group."""
        with (self.folder / (log or "started.log")).open("ab") as output:
            return subprocess.Popen(command, env=self.environment, cwd=REPOSITORY, stdout=output, stderr=output, start_new_session=True)

    def start_dev(self) -> None:
        """Start `finrisk dev` with the product's definitions."""
        self.dev = self.start(sys.executable, "-m", "finrisk_assets.cli.main", "dev", "--port", str(free_port()), log="dev.log")

    def start_daemon(self) -> None:
        """Start Dagster's daemon alone, with the product's schedules asked every minute."""
        self._write_ticking()
        self.dev = self.start(str(BIN / "dagster-daemon"), "run", *self.ticking, log="dev.log")

    def start_daemon_and_ui(self) -> int:
        """Start Dagster's daemon and its web server, with the product's schedules asked every minute; return the server's port."""
        self._write_ticking()
        port = free_port()
        self.dev = self.start(str(BIN / "dagster"), "dev", *self.ticking, "-h", "127.0.0.1", "-p", str(port), log="dev.log")
        return port

    @property
    def ticking(self) -> tuple[str, ...]:
        """The options of Dagster's commands that name the definitions with a ticking clock."""
        return ("-m", "ticking", "-d", str(self.folder))

    def _write_ticking(self) -> None:
        (self.folder / "ticking.py").write_text(TICKING)
        (self.folder / "asked").mkdir(exist_ok=True)

    def ask(self, schedule: str) -> None:
        """Let a schedule fire at its next tick."""
        (self.folder / "asked" / schedule).touch()

    def kill_all(self) -> None:
        """Kill the daemon, its servers and its runs at once, as a power cut does."""
        assert self.dev is not None
        tree = [psutil.Process(self.dev.pid), *psutil.Process(self.dev.pid).children(recursive=True)]
        for process in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.dev.wait()
        psutil.wait_procs(tree, timeout=PATIENCE_S)
        self.dev = None

    def stop(self) -> None:
        """End what still runs, after a test."""
        if self.dev is not None:
            self.kill_all()

    @contextlib.contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        with dg.DagsterInstance.from_config(self.environment["DAGSTER_HOME"]) as instance:
            yield instance

    def runs(self, **filters: object) -> list[dg.DagsterRun]:
        """Return the runs that match, the oldest first."""
        with self.instance() as instance:
            return list(reversed(instance.get_runs(dg.RunsFilter(**filters))))

    def hash_tables(self) -> dict[str, str]:
        """Return every stored table with the hash of its rows, whatever their order."""
        import duckdb

        def is_open() -> bool:
            try:
                duckdb.connect(str(self.settings.root / "warehouse.duckdb"), read_only=True).close()
            except duckdb.IOException:  # the process of the last run has not quite ended
                return False
            return True

        wait_until(is_open, "the warehouse")
        with duckdb.connect(str(self.settings.root / "warehouse.duckdb"), read_only=True) as connection:
            tables = connection.execute(
                "SELECT schema_name, table_name FROM duckdb_tables() WHERE schema_name IN ('staging', 'analytics') ORDER BY ALL"
            ).fetchall()
            return {
                f"{schema}.{table}": hashlib.sha256(
                    repr(connection.execute(f'SELECT count(*), sum(hash(t)) FROM "{schema}"."{table}" AS t').fetchall()).encode()
                ).hexdigest()
                for schema, table in tables
            }


def wait_until(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S, pause_s: float = 0.2) -> None:
    """Wait until a condition holds, and fail where it never does."""
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(pause_s)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
