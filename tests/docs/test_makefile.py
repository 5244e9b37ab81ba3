"""Tests of the Makefile and the launcher: help names every target, clean asks, and the environment is no larger than it has to be."""

import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import require

ROOT = Path(__file__).parents[2]


def test_help_names_every_target() -> None:
    require("make")
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert targets
    output = subprocess.run(["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in output.splitlines()] == targets[1].split()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a folder with the Makefile, the launcher, and an environment that is a link."""
    for name in ("Makefile", "finrisk"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    return tmp_path


def make_store(checkout: Path, decisions: int) -> Path:
    file = checkout / ".finrisk" / "simulator" / "service" / "store.sqlite"
    file.parent.mkdir(parents=True)
    with closing(sqlite3.connect(file)) as store:
        store.execute("CREATE TABLE decisions (id TEXT)")
        store.executemany("INSERT INTO decisions VALUES (?)", [(str(number),) for number in range(decisions)])
        store.commit()
    return file


@pytest.mark.parametrize(
    ("decisions", "answer", "arguments", "is_removed"),
    [(0, "", (), True), (3, "", (), False), (3, "no\n", (), False), (3, "yes\n", (), True), (3, "", ("YES=1",), True)],
)
def test_clean_asks_before_it_removes_decisions(
    checkout: Path, decisions: int, answer: str, arguments: tuple[str, ...], is_removed: bool
) -> None:
    require("make")
    file = make_store(checkout, decisions)
    done = subprocess.run(["make", "clean", *arguments], cwd=checkout, input=answer, capture_output=True, text=True)
    assert file.exists() is not is_removed
    assert (done.returncode == 0) is is_removed
    assert ("3 decisions" in done.stdout) is (decisions > 0)


def test_the_launcher_says_what_to_do_without_an_environment_and_runs_it_from_any_folder(checkout: Path, tmp_path: Path) -> None:
    launcher = str(checkout / "finrisk")
    missing = subprocess.run([launcher, "versions"], cwd="/", capture_output=True, text=True)
    assert missing.returncode == 1 and "run `make demo` first" in missing.stderr and missing.stderr.count("\n") == 1
    (checkout / ".venv" / "bin" / "finrisk").symlink_to(Path(sys.executable).with_name("finrisk"))
    done = subprocess.run([launcher, "--version"], cwd="/", capture_output=True, text=True)
    assert done.returncode == 0 and "version" in done.stdout


def test_demonstration_and_extras_install_no_tools_of_development_unless_they_are_there(checkout: Path) -> None:
    require("make")
    uv = checkout / ".uv" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text('#!/bin/sh\necho "$@" >> calls\n')
    uv.chmod(0o755)
    for name in ("pyproject.toml", "uv.lock"):
        (checkout / name).touch()
    for target in (".venv/.ready", "postgres", ".venv/.dev", "spark"):
        subprocess.run(["make", target], cwd=checkout, check=True, capture_output=True)
    os.utime(checkout / "uv.lock", (2e9, 2e9))
    subprocess.run(["make", ".venv/.ready"], cwd=checkout, check=True, capture_output=True)
    calls = (checkout / "calls").read_text().splitlines()
    assert ["--no-group dev" in call for call in calls] == [True, True, False, False, False]
    # An extra that is there stays.
    assert ["--inexact" in call for call in calls] == [False, True, True, True, False]
