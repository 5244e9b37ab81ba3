"""One image of one real Bento, built as docs/deployment.md says, and containers of it; the tests of this folder look at them.

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
"""What the files of deploy/ run: one process."""
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
    """Keeps a measured figure, which is printed at the end."""
    return request.config.stash.setdefault(FIGURES, []).append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for line in config.stash.get(FIGURES, []):
        terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FINRISK_HOME of a small ledger with its models and its Bento. CONTAINER_TEST_HOME names one that is kept for the next time."""
    if lacking := missing():
        reason = f"this machine lacks {', '.join(lacking)}. Debian: apt-get install --no-install-recommends {' '.join(PACKAGES)}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    kept = os.environ.get("CONTAINER_TEST_HOME")
    home = Path(kept).resolve() if kept else tmp_path_factory.mktemp("ledger")
    if not (home / "simulator" / "bentoml" / "bentos" / "finrisk" / "latest").exists():
        finrisk(home, "demo", "--no-serve")
    return home


@pytest.fixture(scope="session")
def image(ledger: Path) -> Iterator[str]:
    """The image's name; its Bento is the newest of the ledger."""
    yield containerize("finrisk:latest", IMAGE, clean(os.environ) | {"BENTOML_HOME": str(ledger / "simulator" / "bentoml")}, uv())
    subprocess.run([*PODMAN, "rmi", "--force", IMAGE], capture_output=True, check=False)


@pytest.fixture(scope="session")
def volume(ledger: Path, image: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the container finds at /data: the service's store, which knows the ledger's customers."""
    home = tmp_path_factory.mktemp("volume")
    finrisk(ledger, "load-history", FINRISK_MASTER_KEY_FILE=str(master_key_in(ledger)))
    shutil.copytree(ledger / "simulator" / "service", home / "simulator" / "service")
    return owned(home)


@pytest.fixture(scope="session")
def master_key(ledger: Path, volume: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file with the master key, which lies elsewhere than what it protects."""
    file = tmp_path_factory.mktemp("secrets") / "master.key"
    shutil.copy(master_key_in(ledger), file)
    file.chmod(0o400)
    return owned(file)


@pytest.fixture(scope="session")
def key(image: str, volume: Path, master_key: Path) -> str:
    """An API key that may do everything, made in a container as an operator makes it."""
    command = ["python", "-m", "bento.cli.keys", "create", "--name", "container-test", "--role", "admin"]
    made = podman("run", "--rm", *HERE, *HARDENED, *mounts(volume, master_key), image, *command)
    return next(word for word in made.split() if word.startswith("finrisk_"))


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
        """Status and body of an answer."""
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        request = urllib.request.Request(self.url + path, None if body is None else json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as response:
                return response.status, _read(response)
        except urllib.error.HTTPError as error:
            return error.code, _read(error)

    def run(self, *command: str) -> str:
        """What a command says inside."""
        return podman("exec", self.name, *command)

    def processes(self) -> list[psutil.Process]:
        """Its first process and all that come from it, as this machine sees them."""
        first = psutil.Process(int(podman("inspect", "--format={{.State.Pid}}", self.name)))
        return [first, *first.children(recursive=True)]

    def worker(self) -> psutil.Process:
        """The process that answers: the last one."""
        return self.processes()[-1]

    def stop(self) -> tuple[float, int]:
        """Send SIGTERM; seconds to the end, and the exit status."""
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
    """Starts containers and waits until they are ready; they end with the test."""
    with _Starting(image, volume, master_key, key) as starting:
        yield starting


@pytest.fixture(scope="module")
def running(image: str, volume: Path, master_key: Path, key: str) -> Iterator[Container]:
    """One container that the tests of a module share."""
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
    """The one place that is written, a small one in memory for sockets and counters, and the secret."""
    return [
        *(f"--volume={volume}:/data", "--env=FINRISK_HOME=/data"),
        *("--tmpfs=/tmp:rw,noexec,nosuid,nodev,size=64m", "--env=BENTOML_HOME=/tmp/bentoml"),
        *(f"--volume={master_key}:/run/secrets/master.key:ro", "--env=FINRISK_MASTER_KEY_FILE=/run/secrets/master.key"),
    ]


def podman(*arguments: str) -> str:
    """What podman says; a failure of it is one of the test."""
    done = subprocess.run([*PODMAN, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def finrisk(home: Path, *arguments: str, **more: str) -> None:
    """Run a command of the operator on a ledger."""
    environ = clean(os.environ) | LEDGER | {"FINRISK_HOME": str(home)} | more
    done = subprocess.run(
        [sys.executable, "-m", "finrisk_assets.cli.main", *arguments], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"finrisk {' '.join(arguments)}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def master_key_in(ledger: Path) -> Path:
    """The ledger's master key, made if there is none."""
    file = ledger / "master.key"
    if not file.exists():
        finrisk(ledger, "keyring", "new", str(file))
    return file


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without settings of ours, which belong to another ledger."""
    return {name: value for name, value in environ.items() if not name.startswith(("FINRISK_", "BENTOML_", "PYTHONPATH"))}


def uv() -> Path:
    """The uv of the locked environment, or the one that made it."""
    found = shutil.which("uv") or ROOT / ".uv" / "bin" / "uv"
    return Path(found)


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
