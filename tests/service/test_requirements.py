"""Tests of the container's requirements: the locked versions with their hashes, and no package that trains models."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from pathspec import PathSpec
from pip_requirements_parser import RequirementsFile

from bento.service import FinRisk

ROOT = Path(__file__).parents[2]
FILE = ROOT / "bento" / "requirements.txt"
PINS = dict(re.findall(r"^([\w.-]+)==([\w.+-]+)", FILE.read_text(encoding="utf-8"), flags=re.MULTILINE))


@pytest.fixture(scope="module")
def locked() -> dict[tuple[str, str], set[str]]:
    """Return name and version of each locked package -> the hashes of its files."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text(encoding="utf-8"))["package"]
    return {
        (package["name"], package["version"]): {
            file["hash"] for file in [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]
        }
        for package in packages
    }


def test_requirements_are_the_locked_versions(locked) -> None:
    assert len(PINS) > 30
    assert set(PINS.items()) <= locked.keys()


def test_every_requirement_has_the_locked_hashes(locked) -> None:
    requirements = RequirementsFile.from_file(str(FILE)).requirements

    assert len(requirements) >= len(PINS)
    for requirement in requirements:
        (version,) = (one.version for one in requirement.specifier)
        hashes = {one.removeprefix("--hash=") for one in requirement.hash_options}
        assert hashes and hashes == locked[requirement.name, version], requirement.name


def test_hashes_are_still_there_in_what_bentoml_installs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BentoML rewrites the file and adds its own name without a hash, which the image's constraint supplies."""
    from bentoml.images import Image

    monkeypatch.chdir(ROOT)
    image = Image(lock_python_packages=False).requirements_file(str(FILE.relative_to(ROOT)))
    requirements = image._freeze_python_requirements(tmp_path)
    unhashed = [line for line in requirements.splitlines() if re.match(r"[\w.-]+==", line) and not line.endswith("\\")]

    assert requirements.count("--hash=sha256:") == FILE.read_text(encoding="utf-8").count("--hash=sha256:")
    assert unhashed == [f"bentoml=={PINS['bentoml']}"]
    environ = {env.name: env.value for env in FinRisk.envs}
    assert (environ["UV_REQUIRE_HASHES"], environ["UV_CONSTRAINT"]) == ("true", str(FILE.relative_to(ROOT)))


def test_the_program_that_installs_them_is_locked_too(locked) -> None:
    (command,) = FinRisk.image.commands
    version, hashes = re.search(r"uv==(\S+)", command)[1], set(re.findall(r"--hash=(\S+?:\w+)", command))

    assert "--require-hashes" in command
    assert hashes and hashes < locked["uv", version]


def test_one_variable_pins_the_base_image() -> None:
    pinned = "docker.io/library/python:3.11-slim-bookworm@sha256:" + 64 * "a"
    command = [sys.executable, "-c", "from bento.service import FinRisk; print(FinRisk.image.base_image)"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"FINRISK_BASE_IMAGE": pinned}, capture_output=True, text=True, check=False)

    assert done.stdout.split()[-1:] == [pinned], done.stderr


def test_the_bento_includes_every_module_that_the_service_imports() -> None:
    included = PathSpec.from_lines("gitwildmatch", yaml.safe_load((ROOT / "bentofile.yaml").read_text(encoding="utf-8"))["include"])
    code = (
        "import sys, bento.service, bento.single_process, bento.access.token_verifier\n"
        "for name, module in sorted(sys.modules.items()):\n"
        "    if name.split('.')[0] in ('bento', 'schemas', 'finrisk_assets') and getattr(module, '__file__', None):\n"
        "        print('module', module.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [Path(line.removeprefix("module ")) for line in done.stdout.splitlines() if line.startswith("module ")]
    imported = {file.relative_to(ROOT).as_posix() for file in files}

    assert len(imported) > 70
    assert {file for file in imported if not included.match_file(file)} == set()


def test_nothing_that_makes_models_is_installed() -> None:
    trains = {"dagster", "mlflow", "ibis-framework", "pandas", "scikit-learn", "scipy", "xgboost", "xgboost-cpu", "shap", "pyspark"}
    assert trains & PINS.keys() == set()
