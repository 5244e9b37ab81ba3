"""An image of a small Bento, built as docs/deployment.md describes, and the containers that the tests of this folder share.

They take minutes and root, so `make test` leaves them out: `make container-test` runs them.
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from deploy.container.build import PACKAGES, ROOT, containerize, missing

IMAGE = "localhost/finrisk-container-test:latest"
USER = 1034
"""The user and the group that BentoML gives to every image."""
HARDENED = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges")
# runc, because crun refuses a machine with both kinds of cgroups; podman's own limits are more than some machines let it set.
PODMAN = ("podman", "--runtime", "runc")
HERE = ("--network=host", "--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096")
ALONE = ("python", "-m", "bento.single_process")
"""The command that the files of deploy/ run: one process."""
READY_SECONDS = 60
LEDGER = {"FINRISK_SIM_CUSTOMERS": "300", "FINRISK_SIM_MONTHS": "14", "FINRISK_AS_OF": "2025-07-01", "FINRISK_SOURCE": "simulator"}
"""A ledger that is small, but whose every domain has a trained and promoted model."""


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.container)


FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Record a measured figure for the summary at the end."""
    return request.config.stash.setdefault(FIGURES, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(FIGURES, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the FINRISK_HOME of a small ledger with its models and its Bento; CONTAINER_TEST_HOME names one to use again."""
    if lacking := missing():
        reason = f"this machine lacks {', '.join(lacking)}. Debian: apt-get install --no-install-recommends {' '.join(PACKAGES)}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    folder = os.environ.get("CONTAINER_TEST_HOME")
    home = Path(folder).resolve() if folder else tmp_path_factory.mktemp("ledger")
    if not (home / "simulator" / "bentoml" / "bentos" / "finrisk" / "latest").exists():
        finrisk(home, "demo", "--no-serve")
    return home


@pytest.fixture(scope="session")
def image(ledger: Path) -> Iterator[str]:
    """Return the name of the image, whose Bento is the newest of the ledger."""
    yield containerize("finrisk:latest", IMAGE, clean(os.environ) | {"BENTOML_HOME": str(ledger / "simulator" / "bentoml")}, uv())
    subprocess.run([*PODMAN, "rmi", "--force", IMAGE], capture_output=True, check=False)


@pytest.fixture(scope="session")
def volume(ledger: Path, image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that the container mounts at /data: the service's store with the ledger's customers."""
    home = tmp_path_factory.mktemp("volume")
    finrisk(ledger, "load-history", FINRISK_MASTER_KEY_FILE=str(master_key_in(ledger)))
    shutil.copytree(ledger / "simulator" / "service", home / "simulator" / "service")
    return owned(home)


@pytest.fixture(scope="session")
def master_key(ledger: Path, volume: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file of the master key, which lies apart from the data that it protects."""
    file = tmp_path_factory.mktemp("secrets") / "master.key"
    shutil.copy(master_key_in(ledger), file)
    file.chmod(0o400)
    return owned(file)


@pytest.fixture(scope="session")
def key(image: str, volume: Path, master_key: Path) -> str:
    """Return an API key of every role, created in a container as an operator creates it."""
    command = ["python", "-m", "bento.cli.keys", "create", "--name", "container-test", "--role", "admin"]
    created = podman("run", "--rm", *HERE, *HARDENED, *mounts(volume, master_key), image, *command)
    return next(word for word in created.split() if word.startswith("finrisk_"))


@dataclass
class Container:
    """A running container of the image.

    Attributes
    ----------
    name, url
        Podman's name of it, and where it answers.
    key
        What it is asked with; empty where nobody needs one.
    ready_s, busy_s
        Seconds from the command to the first answer that it is ready, and seconds of a processor that its processes took for it.
    """

    name: str
    url: str
    key: str
    ready_s: float = float("nan")
    busy_s: float = float("nan")

    def ask(self, path: str, body: Any = None, timeout: float = 10) -> tuple[int, Any]:
        """Return the status and the body of an answer."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(self.url + path, None if body is None else json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, _read(response)
        except urllib.error.HTTPError as error:
            return error.code, _read(error)

    def run(self, *command: str) -> str:
        """Return the output of a command inside the container."""
        return podman("exec", self.name, *command)

    def processes(self) -> list[psutil.Process]:
        """Return the container's first process and all its descendants, as this machine sees them."""
        first = psutil.Process(int(podman("inspect", "--format={{.State.Pid}}", self.name)))
        return [first, *first.children(recursive=True)]

    def worker(self) -> psutil.Process:
        """Return the process that answers requests: the last one."""
        return self.processes()[-1]

    def stop(self) -> tuple[float, int]:
        """Send SIGTERM; return the seconds to the end, and the exit status."""
        began = time.monotonic()
        podman("kill", "--signal", signal.Signals.SIGTERM.name, self.name)
        status = int(podman("wait", self.name))
        return time.monotonic() - began, status

    def logs(self) -> str:
        done = subprocess.run([*PODMAN, "logs", self.name], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        return done.stdout


Start = Callable[..., Container]


@pytest.fixture
def start(image: str, volume: Path, master_key: Path, key: str) -> Iterator[Start]:
    """Return a function that starts containers and waits until they are ready; they end with the test."""
    with _Starting(image, volume, master_key, key) as starting:
        yield starting


@pytest.fixture(scope="module")
def running(image: str, volume: Path, master_key: Path, key: str) -> Iterator[Container]:
    """Yield one container that the tests of a module share."""
    with _Starting(image, volume, master_key, key) as starting:
        yield starting()


class _Starting:
    def __init__(self, image: str, volume: Path, master_key: Path, key: str) -> None:
        self._image, self._key, self._mounts = image, key, mounts(volume, master_key)
        self._names: list[str] = []

    def __enter__(self) -> "_Starting":
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            subprocess.run([*PODMAN, "rm", "--force", "--time", "5", name], capture_output=True, check=False)

    def __call__(self, *command: str, **environ: str) -> Container:
        port = free_port()
        container = Container(f"finrisk-test-{secrets.token_hex(4)}", f"http://127.0.0.1:{port}", self._key)
        unlimited = {"FINRISK_RATE_PER_SECOND": "100000", "FINRISK_RATE_BURST": "100000"}
        settings = {"BENTOML_HOST": "0.0.0.0", "BENTOML_PORT": str(port)} | unlimited | environ
        given = [f"--env={name}={value}" for name, value in settings.items()]
        self._names.append(container.name)
        began = time.monotonic()
        podman("run", "--detach", f"--name={container.name}", *HERE, *HARDENED, *self._mounts, *given, self._image, *(command or ALONE))
        while True:
            try:
                with urllib.request.urlopen(f"{container.url}/readyz", timeout=5):
                    break
            except (OSError, urllib.error.URLError):
                alive = podman("inspect", "--format={{.State.Running}}", container.name).strip() == "true"
                if not alive or time.monotonic() - began > READY_SECONDS:
                    pytest.fail(f"the container did not become ready:\n{container.logs()}")
                time.sleep(0.02)
        container.ready_s = time.monotonic() - began
        container.busy_s = sum(sum(process.cpu_times()[:2]) for process in container.processes())
        return container


def mounts(volume: Path, master_key: Path) -> list[str]:
    """Return the mounts: the one writable folder, a small one in memory for sockets and counters, and the secret."""
    return [
        *(f"--volume={volume}:/data", "--env=FINRISK_HOME=/data"),
        *("--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=64m", "--env=BENTOML_HOME=/tmp/bentoml"),
        *(f"--volume={master_key}:/run/secrets/master.key:ro", "--env=FINRISK_MASTER_KEY_FILE=/run/secrets/master.key"),
    ]


def podman(*arguments: str) -> str:
    """Return podman's output; a failure of podman fails the test."""
    done = subprocess.run([*PODMAN, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def finrisk(home: Path, *arguments: str, **more: str) -> None:
    """Run an operator's command on a ledger."""
    environ = clean(os.environ) | LEDGER | {"FINRISK_HOME": str(home)} | more
    done = subprocess.run(
        [sys.executable, "-m", "finrisk_assets.cli.main", *arguments], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"finrisk {' '.join(arguments)}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def master_key_in(ledger: Path) -> Path:
    """Return the ledger's master key; create it if there is none."""
    file = ledger / "master.key"
    if not file.exists():
        finrisk(ledger, "keyring", "new", str(file))
    return file


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without finrisk's settings, which belong to another ledger."""
    return {name: value for name, value in environ.items() if not name.startswith(("FINRISK_", "BENTOML_", "PYTHONPATH"))}


def uv() -> Path:
    """Return the uv of the locked environment, or the one that created it."""
    executable = shutil.which("uv") or ROOT / ".uv" / "bin" / "uv"
    return Path(executable)


def owned(path: Path) -> Path:
    """Give a file or a folder to the user of the image."""
    for one in (path, *path.rglob("*")):
        os.chown(one, USER, USER)
    return path


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _read(response: Any) -> Any:
    text = response.read().decode()
    return json.loads(text) if "json" in response.headers.get("Content-Type", "") else text
