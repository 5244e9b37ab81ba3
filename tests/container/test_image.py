"""Tests of the image's content."""

import json

from tests.container.conftest import HARDENED, HERE, USER, podman

LARGEST_MB = 320


def inside(image, command):
    return podman("run", "--rm", *HERE, *HARDENED, "--entrypoint=/bin/sh", image, "-c", command).split()


def test_it_is_small(image, say):
    size = int(podman("image", "inspect", "--format={{.Size}}", image)) / 1e6
    parts = inside(image, "du -sm /usr /app/.venv/lib/python3*/site-packages/* 2>/dev/null | sort -rn | head -8")
    largest = [f"{path.rpartition('/')[2]} {size}" for size, path in zip(parts[::2], parts[1::2], strict=True)]
    say(f"image {size:.0f} MB (wanted: {LARGEST_MB}); the largest parts in MB: {', '.join(largest)}")
    assert size <= LARGEST_MB


def test_it_has_the_licence_of_every_package(image):
    licences = """
from importlib.metadata import distributions
from bento.image import LICENCES
files = [file for package in distributions() for file in package.files if file.name.upper().startswith(LICENCES)]
print(len(files), *(file for file in files if not file.locate().is_file()))
"""
    number, *missing = podman("run", "--rm", *HERE, *HARDENED, image, "python", "-c", licences).split()
    assert int(number) > 80
    assert missing == []

    packages = "for package in $(dpkg-query --show --showformat='${Package} '); do"
    number, *missing = inside(
        image, f"dpkg-query --show | wc -l; {packages} test -s /usr/share/doc/$package/copyright || echo $package; done"
    )
    assert int(number) > 50
    assert missing == []


def test_every_command_of_the_operator_starts(image):
    commands = ("audit", "keys", "people", "store_schema")
    helps = "; ".join(f"python -m bento.cli.{command} --help >/dev/null || echo {command}" for command in commands)

    assert podman("run", "--rm", *HERE, *HARDENED, image, "sh", "-c", helps) == ""


def test_it_has_no_compiler_and_no_installer(image):
    tools = "gcc cc g++ c++ clang tcc make ld as cpp rustc cargo go uv pip pip3 git curl wget"
    assert inside(image, f"for tool in {tools}; do command -v $tool; done; true") == []


def test_its_user_is_not_root(image):
    config = json.loads(podman("image", "inspect", image))[0]["Config"]

    assert config["User"] == "bentoml"
    assert inside(image, "id -u; id -g") == [str(USER), str(USER)]
    assert inside(image, "find / -xdev -perm /6000 -type f -writable 2>/dev/null; true") == []


def test_nothing_of_the_machine_that_built_it_stays_in_it(image):
    inspected = podman("image", "inspect", image) + podman("history", "--no-trunc", image)

    for word in ("UV_INDEX", "UV_DEFAULT_INDEX", "index-url", "SSL_CERT_FILE", "PIP_"):
        assert word not in inspected
    assert inside(image, "ls /usr/local/bin; ls -d /root/.cache /home/bentoml/.cache /etc/uv /etc/pip.conf 2>/dev/null; true") == []


def test_it_holds_no_pickle_no_secret_and_no_code_that_trains(image):
    assert (
        inside(image, "find / -xdev \\( -name '*.pkl' -o -name '*.key' -o -name '*.joblib' \\) -not -path '/usr/share/*' 2>/dev/null; true")
        == []
    )
    trains = "dagster mlflow ibis pandas sklearn xgboost scipy shap duckdb"
    assert inside(image, f"cd /app/.venv/lib/python3*/site-packages && ls -d {trains} 2>/dev/null; true") == []


def test_its_code_is_compiled(image):
    """A read-only container cannot keep what Python compiles, so that each start would do it again."""
    sources = "find /home/bentoml/bento/src/bento /app/.venv/lib/python3*/site-packages/bentoml /usr/lib/python3*/asyncio -name '*.py'"
    compiled = sources.replace("*.py'", "*.pyc'")
    number, kept = inside(image, f"{sources} | wc -l; {compiled} | wc -l")

    assert int(kept) >= 0.95 * int(number) > 100
