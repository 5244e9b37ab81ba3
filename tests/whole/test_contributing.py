"""Tests of CONTRIBUTING.md: its targets and links exist, and its walk-throughs change the files that they name.

Each walk-through is followed in a copy of the code.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import ibis
import pytest

from finrisk_assets.ledger import contract, sources
from finrisk_assets.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DEFINITION, FEATURE_TEST, SOURCE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
_, FEATURE_COMMANDS, SOURCE_COMMANDS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
COPIED = ("finrisk_assets", "bento", "schemas", "book", "tests", "docs")
REASON_PAGE, TABLE_PAGE = "docs/reason-catalogue.md", "docs/reference/tables.md"
PAYMENTS = """number,client,time,euro
1,alma,2024-05-01 10:00:00,12.50
2,boris,2024-05-02 11:30:00,not a number
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a copy of the code, its tests and its pages, to be edited."""
    copy = tmp_path / "finrisk"
    copy.mkdir()
    for folder in COPIED:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def digests(tree: Path) -> dict[str, str]:
    files = (path for path in tree.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(tree).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}


def changed_files(tree: Path, before: Mapping[str, str]) -> set[str]:
    after = digests(tree)
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def edit(file: Path, old: str, new: str) -> None:
    content = file.read_text(encoding="utf-8")
    assert content.count(old) == 1, f"{old!r} is {content.count(old)} times in {file.name}"
    file.write_text(content.replace(old, new), encoding="utf-8")


def run(commands: str, tree: Path) -> subprocess.CompletedProcess[str]:
    """Run shell commands in the copy, with the environment's programs and the copy's code."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "FINRISK_"))}
    path = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
    environment |= {"PATH": path, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(["sh", "-e", "-c", commands], cwd=tree, env=environment, capture_output=True, text=True, check=False)


def check_style(tree: Path, *files: str) -> None:
    names = " ".join(files)
    checked = run(f"ruff check --no-cache {names} && ruff format --no-cache --check {names}", tree)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_a_feature_is_added_by_two_edits_and_one_command(tree: Path) -> None:
    place = re.search(r"in `(\w+)` of `(\w+)/catalogue\.py`, with the name added to the theme `([\w ]+)`", PAGE)
    test_file = re.search(r"in the domain's file of `(tests/pipeline)`, here `(\w+\.py)`", PAGE)
    name = re.search(r'"(\w+)"', DEFINITION)
    assert place and test_file and name
    group, domain, theme = place.groups()
    edited = (f"finrisk_assets/domains/{domain}/catalogue.py", f"{test_file[1]}/{test_file[2]}")
    catalogue, pipeline_test = (tree / file for file in edited)
    before = digests(tree)

    definition = "".join(f"        {line}\n" for line in DEFINITION.splitlines())
    function = re.search(rf"^def {group}\(\).*?^    \)  # fmt: skip\n", catalogue.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert function
    edit(catalogue, function[0], function[0].replace("    )  # fmt: skip\n", f"{definition}    )  # fmt: skip\n"))
    edit(catalogue, f'"{theme}": (', f'"{theme}": ("{name[1]}", ')
    pipeline_test.write_text(pipeline_test.read_text(encoding="utf-8") + "\n\n" + FEATURE_TEST, encoding="utf-8")
    assert changed_files(tree, before) == set(edited)
    run(f"ruff format --no-cache {' '.join(edited)}", tree)  # as the commit hook does
    check_style(tree, *edited)

    assert test_file[2] in FEATURE_COMMANDS
    finished = run(FEATURE_COMMANDS, tree)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert changed_files(tree, before) == {*edited, REASON_PAGE, TABLE_PAGE}
    for page in (REASON_PAGE, TABLE_PAGE):
        assert f"`{name[1]}`" in (tree / page).read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_source_is_added_by_a_module_and_a_name(tree: Path) -> None:
    module = "finrisk_assets/ledger/sources/corner_bank.py"
    sources_list = "finrisk_assets/ledger/sources/__init__.py"
    snapshot = "tests/definitions/snapshots/corner_bank.json"
    before = digests(tree)
    (tree / module).write_text(SOURCE, encoding="utf-8")
    edit(tree / sources_list, '        "mapped",\n', '        "corner_bank",\n        "mapped",\n')
    check_style(tree, module, sources_list)

    first, second = run(SOURCE_COMMANDS, tree), run(SOURCE_COMMANDS, tree)
    assert first.returncode == 1 and "corner_bank.json was not there and has been written" in first.stdout, first.stdout
    assert "1 failed" in first.stdout
    assert second.returncode == 0, second.stdout + second.stderr
    assert changed_files(tree, before) - {REASON_PAGE} == {module, sources_list, snapshot}


def test_the_source_of_the_walk_through_parts_valid_from_quarantined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corner_bank.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "data" / "corner_bank").mkdir(parents=True)
    (tmp_path / "data" / "corner_bank" / "payments.csv").write_text(PAYMENTS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sources, "SOURCES", {**sources.SOURCES, "corner_bank": "corner_bank"})

    source = sources.load(Settings(home=tmp_path, source="corner_bank", data_dir=tmp_path / "data"))
    transactions = source.tables["transactions"]
    landed = tmp_path / "raw.parquet"
    assert transactions.land(landed).rows == 2
    engine = ibis.duckdb.connect()
    raw = engine.read_parquet(landed)
    parts = contract.split(transactions.table, transactions.columns, raw, {}, datetime(2024, 6, 1))
    assert engine.to_pyarrow(parts.valid)["transaction_id"].to_pylist() == ["1"]
    assert contract.count_by_rule(engine.create_table("quarantine", parts.quarantine)) == {"amount is not a number": 1}


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z-]+)", PAGE))))
def test_every_target_that_the_page_names_is_in_the_makefile(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([\w./-]+)\)", PAGE))))
def test_links_of_the_page_lead_somewhere(path: str) -> None:
    assert (ROOT / path).exists()
