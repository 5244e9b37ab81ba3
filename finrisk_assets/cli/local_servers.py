"""The servers of one machine: the service, its console, and the pages of Dagster and MLflow, each on a free port of 127.0.0.1.

`make serve` and `make dev` start one of them, `make up` all of them.
"""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import click
import psutil  # type: ignore[import-untyped]

from finrisk_assets.private_files import make_private_folder
from finrisk_assets.settings import Settings

HOST = "127.0.0.1"
READY_S = 120
"""Seconds for a server to answer. A longer time only delays the message that it did not."""
STOP_S = 15
"""Seconds for a server to end after a signal, before it is killed with its children."""
POLL_S = 0.2
_DAGSTER, _BENTOML, _MLFLOW, _FINRISK = (Path(sys.executable).with_name(name) for name in ("dagster", "bentoml", "mlflow", "finrisk"))


@dataclass(frozen=True)
class Server:
    """A program that answers on a port.

    Attributes
    ----------
    name, meaning
        Name for a reader, and what its pages show.
    port, page, probe
        Its port, the path of its first page, and the path that answers as soon as it is ready.
    command, environment
        The command line, and the variables that it needs beside those of this process.
    prepare
        Readies its data, and returns lines for the reader.
    """

    name: str
    meaning: str
    port: int
    command: Sequence[str | Path]
    page: str = "/"
    probe: str = "/"
    environment: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[], Sequence[str]] = tuple

    @property
    def address(self) -> str:
        """The URL of its first page."""
        return f"http://{HOST}:{self.port}{self.page}"

    def replace_this_process(self) -> None:
        """Become this server: signals and its exit status go directly to the caller."""
        os.execve(self.command[0], [str(word) for word in self.command], os.environ | self.environment)


def bento_server(settings: Settings, port: int) -> Server:
    """Return the server of the newest Bento."""
    environment = {"BENTOML_HOME": str(settings.bentoml_home), "BENTOML_DO_NOT_TRACK": "true"}
    environment |= {} if settings.reports else {"FINRISK_REPORTS": str((settings.root / "reports").resolve())}
    command = (_BENTOML, "serve", "finrisk:latest", "--host", HOST, "--port", str(port))
    return Server("service", "decisions and their API page", port, command, probe="/readyz", environment=environment)


def dagster_server(settings: Settings, port: int) -> Server:
    """Return the server of the Dagster UI, which starts the daemon too."""
    # Dagster advises everybody to type another command of its own.
    warnings = f"{os.environ.get('PYTHONWARNINGS', '')},ignore:Function `dev_command` is superseded".lstrip(",")
    command = (_DAGSTER, "dev", "-m", "finrisk_assets.definitions", "-h", HOST, "-p", str(port))
    environment = {"PYTHONWARNINGS": warnings, "DAGSTER_HOME": str(settings.root / "dagster")}
    meaning = "lineage, runs, checks, plots, quarantine"
    return Server(
        "Dagster", meaning, port, command, probe="/server_info", environment=environment, prepare=lambda: _prepare_dagster(settings)
    )


def _prepare_dagster(settings: Settings) -> list[str]:
    import dagster as dg

    from finrisk_assets.graph.runs import dagster_home
    from finrisk_assets.graph.runs.dead_runs import clear_dead_runs
    from finrisk_assets.graph.warehouse import TRAINING_POOL, WAREHOUSE_POOL

    lines = dagster_home.prepare_dagster(settings)
    with dg.DagsterInstance.get() as instance:
        dagster_home.start_event_cursors(instance)
        dagster_home.create_pools(instance, (WAREHOUSE_POOL, TRAINING_POOL))
        return lines + clear_dead_runs(instance)


def mlflow_server(settings: Settings, port: int) -> Server:
    """Return the server of MLflow's pages, which open on the training runs of this source."""
    command = (_MLFLOW, "server", "--host", HOST, "--port", str(port), "--workers", "1")
    meaning = "training runs, candidates, registered models"
    # MLflow's jobs evaluate language models, of which there are none: eight processes, which outlive the server and take long to end.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # Every user of the machine may read a command line, and the URL may hold a password.
    environment |= {"MLFLOW_BACKEND_STORE_URI": settings.tracking_uri, "MLFLOW_DEFAULT_ARTIFACT_ROOT": settings.tracking_artifacts}
    page = find_runs_page(settings)
    return Server("MLflow", meaning, port, command, page=page, probe="/health", environment=environment)


def find_runs_page(settings: Settings) -> str:
    """Return the path of MLflow's page with the training runs of this source; the first page where there is no experiment yet."""
    from finrisk_assets.graph.build import build_resources

    with suppress(LookupError):
        experiment = build_resources(settings)["tracking"].find_experiment()
        return f"/#/experiments/{experiment}/runs"
    return "/"


def console_server(service: Server, port: int) -> Server:
    """Return the server of the console, which talks to the service alone."""
    command = (_FINRISK, "console", "--api", f"http://{HOST}:{service.port}", "--port", str(port))
    return Server("console", "alerts, people, loans, models, audit", port, command, page="/console")


def plan_servers(settings: Settings, first_port: int) -> list[Server]:
    """Return the servers of `make up`, each on the first free port from `first_port` on; each knows the addresses of the others."""
    ports = find_free_ports(first_port)
    service = bento_server(settings, next(ports))
    servers = [console_server(service, next(ports)), service, dagster_server(settings, next(ports)), mlflow_server(settings, next(ports))]
    named = name_addresses(settings, *(server.port for server in servers if server is not service))
    addresses = {f"FINRISK_{name.upper()}": address for name, address in named.items()}
    return [replace(server, environment=server.environment | addresses) for server in servers]


def name_addresses(settings: Settings, console: int, dagster: int, mlflow: int) -> dict[str, str]:
    """Return the settings by which pages link to each other, from their ports; those that are set already stay as they are."""
    addresses = {
        "console_url": f"http://{HOST}:{console}/console",
        "dagster_url": f"http://{HOST}:{dagster}",
        "mlflow_url": f"http://{HOST}:{mlflow}",
    }
    return {name: address for name, address in addresses.items() if not getattr(settings, name)}


def plan_addresses(settings: Settings, first_port: int) -> Settings:
    """Return the settings with the addresses that pages will have once `make up` runs, in the order in which it takes free ports."""
    _service, console, dagster, mlflow = islice(find_free_ports(first_port), 4)
    addresses: dict[str, Any] = name_addresses(settings, console, dagster, mlflow)
    return replace(settings, **addresses)


def find_free_ports(first: int) -> Iterator[int]:
    """Yield the free ports of 127.0.0.1 from the first one on."""
    return (port for port in range(first, 65536) if is_free(port))


def is_free(port: int) -> bool:
    """Return whether a server could listen on a port of 127.0.0.1."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still closing is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def find_holder(port: int) -> str:
    """Return the process that listens on a port, for a reader; of another user's process the system tells nothing."""
    with suppress(psutil.Error):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port and connection.pid:
                process = psutil.Process(connection.pid)
                command = " ".join(Path(word).name if at == 0 else word for at, word in enumerate(process.cmdline()))
                return f"process {process.pid} (`{command[:60]}`)"
    return "a process of another user"


def require_free_port(port: int, target: str) -> None:
    """Refuse to start a server on a taken port.

    Raises
    ------
    click.ClickException
        If the port is taken: it names the holder, and the command with a free port.
    """
    if not is_free(port):
        free = next(find_free_ports(port + 1))
        raise click.ClickException(f"port {port} is taken by {find_holder(port)}: end it, or run `{target} PORT={free}`")


def run_servers(settings: Settings, servers: Sequence[Server]) -> int:
    """Run servers until one ends, or SIGINT, SIGTERM or SIGHUP comes; then end all with their children.

    Their addresses are printed when all answer.

    Returns
    -------
    int
        The exit status: 0 after a signal, 1 where a server ended or did not answer.
    """
    logs = make_private_folder(settings.root / "logs")
    for server in servers:
        for line in server.prepare():
            click.echo(line)
    signals = list[int]()
    former = {number: signal.signal(number, lambda number, _: signals.append(number)) for number in _STOP_SIGNALS}
    processes = dict[str, subprocess.Popen[bytes]]()
    try:
        for server in servers:
            with (logs / f"{server.name.lower()}.log").open("w") as log:
                processes[server.name] = subprocess.Popen(
                    [str(word) for word in server.command],
                    env=os.environ | server.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # A signal to the terminal's group would reach children that end before their parents expect it.
                    start_new_session=True,
                )
        fault = _wait_until_ready(servers, processes, signals)
        if not fault and not signals:
            click.echo(f"Everything of the source {settings.source} is here; Ctrl-C ends it.\n")
            width = max(len(server.address) for server in servers)
            for server in servers:
                click.echo(f"  {server.name:<8}  {server.address:<{width}}  {server.meaning}")
            sys.stdout.flush()
            fault = _wait_until_stopped(processes, signals)
        if fault:
            click.echo(f"Error: {fault}; its log is in {logs}", err=True)
        return 1 if fault else 0
    finally:
        stop_processes(list(processes.values()))
        for number, handler in former.items():
            signal.signal(number, handler)


_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _wait_until_ready(servers: Sequence[Server], processes: dict[str, subprocess.Popen[bytes]], signals: Sequence[int]) -> str:
    """Wait until every server answers; return what is wrong, empty where nothing is."""
    deadline, waiting = time.monotonic() + READY_S, list(servers)
    while waiting and not signals:
        if ended := _find_ended(processes):
            return ended
        waiting = [server for server in waiting if not _answers(f"http://{HOST}:{server.port}{server.probe}")]
        if waiting and time.monotonic() > deadline:
            return f"the {waiting[0].name} did not answer within {READY_S} s"
        time.sleep(POLL_S)
    return ""


def _wait_until_stopped(processes: dict[str, subprocess.Popen[bytes]], signals: Sequence[int]) -> str:
    while not signals:
        if ended := _find_ended(processes):
            return ended
        time.sleep(POLL_S)
    return ""


def _find_ended(processes: dict[str, subprocess.Popen[bytes]]) -> str:
    for name, process in processes.items():
        if process.poll() is not None:
            return f"the {name} ended with status {process.returncode}"
    return ""


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except (OSError, ValueError):
        return False


def stop_processes(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes with all their children: by SIGINT, as Ctrl-C does, and after `STOP_S` by force.

    A child that outlives its parent is ended at once: Dagster's code server would wait 45 s for a sign of life.
    """
    parents, children = list[psutil.Process](), dict[int, list[psutil.Process]]()
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(process.pid)
            children[process.pid] = parent.children(recursive=True)
            parents.append(parent)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)

    def end_children(parent: psutil.Process) -> None:
        for child in children[parent.pid]:
            with suppress(psutil.NoSuchProcess):
                child.terminate()

    deadline = time.monotonic() + STOP_S
    _, deaf = psutil.wait_procs(parents, timeout=STOP_S, callback=end_children)
    for parent in deaf:
        parent.kill()
        end_children(parent)
    family = [*parents, *(child for group in children.values() for child in group)]
    # A child that is told late has a moment too.
    _, alive = psutil.wait_procs(family, timeout=max(2.0, deadline - time.monotonic()))
    for member in alive:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    for process in processes:
        process.wait()
