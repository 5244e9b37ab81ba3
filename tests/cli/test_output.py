"""Tests of what the commands print: tables at 80 columns and in a pipe, the same facts as JSON, and no home where there was none."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import click
import ibis
import pytest
from click.testing import CliRunner

from bento.cli.output import format_table
from finrisk_assets.cli.main import cli
from finrisk_assets.graph.warehouse import Warehouse
from finrisk_assets.operations import shadow_report, verify_pack
from finrisk_assets.operations.shadow_report import ShadowComparison

WITHOUT_JSON = {
    *("demo", "dev", "serve", "up", "console"),
    *("keys create", "keys revoke", "runs clear", "snapshots restore", "audit checkpoint"),
    *("people export", "people erase", "people retain", "keyring new", "keyring rotate", "keyring drop"),
    *("store backup", "store wipe", "store upgrade", "store check"),
    *("import", "simulate stream", "stream", "stream redrive", "stream topics", "stream schema"),
}
"""Commands that act, and print a sentence about it, or nothing."""

READING = (
    *("versions", "snapshots list", "snapshots prune", "validate-pack list", "validate-pack show loan_default", "validate-pack verify"),
    *("runs", "runs clear 1a2b", "shadow", "keys list", "keys revoke 1f0c", "audit verify", "audit show", "audit checkpoint", "replay"),
    *("load-history", "load-feedback", "reproduce --all", "rollback loan_default --reason tried", "serve", "up"),
    *("policy show", "policy check", "policy diff docs/taiwan-policy.yaml docs/taiwan-policy.yaml", "rules test"),
    *("capacity --alerts-per-day 5", "reasons cashflow", "people export 1 --to nowhere.json", "people erase 1 --yes"),
    *(
        "people retain --older-than 400",
        "keyring show",
        "keyring rotate",
        "keyring drop",
        "store check",
        "store backup nowhere",
        "store wipe",
    ),
    *("quarantine", "export", "stream", "stream topics", "stream schema", "stream redrive"),
    *("mirror push", "mirror restore", "doctor", "--help", "--version"),
)
"""Commands that have nothing to make a home for."""


def walk(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its words; a group that does something by itself too."""
    if not isinstance(command, click.Group) or command.invoke_without_command:
        yield " ".join(words), command
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from walk(inner, (*words, name))


COMMANDS = dict(walk(cli))


def test_every_command_that_prints_facts_prints_them_as_json_too() -> None:
    options = {words: {name for option in command.params for name in option.opts} for words, command in COMMANDS.items()}
    assert {words for words, names in options.items() if "--json" not in names} <= WITHOUT_JSON


@pytest.mark.parametrize("words", READING)
def test_a_command_without_a_home_makes_none_and_says_so_in_one_sentence(words: str, tmp_path: Path) -> None:
    home = tmp_path / "none"
    done = CliRunner().invoke(cli, words.split(), env={"FINRISK_HOME": str(home), "FINRISK_SOURCE": "simulator"})
    assert not home.exists()
    assert isinstance(done.exception, SystemExit | None), done.exception
    assert done.exit_code in (0, 1)
    if done.exit_code == 1 and words != "doctor":
        assert done.output.startswith("Error: ") and done.output.count("\n") == 1, done.output


def test_every_reading_command_stands_above() -> None:
    tried = {" ".join(word for word in words.split() if not word.startswith("-")) for words in READING}
    makers = {"demo", "dev", "console", "keys create", "keyring new", "store upgrade"}
    at_arguments = {"snapshots restore", "check", "import", "simulate stream"}  # refused for its arguments' sake before it looks
    assert {words for words in COMMANDS if not any(one == words or one.startswith(f"{words} ") for one in tried)} <= makers | at_arguments


def test_a_table_that_fits_is_aligned() -> None:
    rows = [("spending_risk", "0.816", "–"), ("cashflow", "12.5", "–")]
    assert list(format_table(("domain", "AUC", "rolled back"), rows, width=80)) == [
        "domain           AUC",
        "spending_risk  0.816",
        "cashflow        12.5",
    ]


def test_a_table_that_is_too_wide_becomes_lines_without_a_cut_cell() -> None:
    sentence = " ".join(["A long sentence that does not fit."] * 5)
    lines = list(format_table(("feature", "sentence"), [("income", sentence), ("rent", "short")], width=60))
    assert max(map(len, lines)) <= 60
    first = lines[: lines.index("", 1)]
    assert " ".join(line.removeprefix("sentence").strip() for line in first[2:]) == sentence
    assert lines[1] == "feature   income" and lines[-1] == "sentence  short"


def test_an_empty_table_still_has_its_headings() -> None:
    assert list(format_table(("domain", "version"), [], width=80)) == ["domain  version"]


@pytest.mark.parametrize("words", ["policy check", "policy show", "keys list", "runs", "shadow", "doctor", "reasons cashflow"])
def test_the_json_of_a_command_is_json(words: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, [*words.split(), "--json"], env={"FINRISK_HOME": str(tmp_path / "none"), "FINRISK_SOURCE": "simulator"})
    assert json.loads(done.stdout) is not None


def test_the_widest_report_reads_at_80_columns() -> None:
    pair = ShadowComparison("transaction_anomaly", "0" * 12, "1" * 12, 100_000, 3, 0.99, 0.001, (-0.001, 0.0, 0.0, 0.001, 0.002))
    headings = ("domain", "champion", "challenger", *shadow_report.HEADINGS)
    lines = list(format_table(headings, [(pair.domain, pair.champion, pair.challenger, *pair.cells())], width=80))
    assert max(map(len, lines)) <= 80
    assert verify_pack.list_figures.__doc__


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        *(("FINRISK_SOURCE", "nonsense"), ("FINRISK_SIM_CUSTOMERS", "many"), ("FINRISK_SIM_CUSTOMERS", "0"), ("FINRISK_HOMES", "x")),
        *(("FINRISK_AS_OF", "yesterday"), ("FINRISK_POLICY", "nowhere.yaml"), ("FINRISK_SHADOW", "perhaps"), ("FINRISK_HOME", "README.md")),
        *(("FINRISK_HOME", "a?b"), ("FINRISK_HOME", "50%20a")),
        *(("FINRISK_SIM_ECONOMY", "nowhere.yaml"), ("FINRISK_WAREHOUSE_URL", "nonsense://x")),
    ],
)
@pytest.mark.parametrize("words", ["demo", "dev", "doctor"])
def test_a_bad_setting_is_one_sentence(words: str, variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A setting that nobody looks at would start the real thing.
    monkeypatch.setattr("finrisk_assets.cli.demo.run", lambda *_, **__: pytest.fail("the demonstration has started"))
    monkeypatch.setattr("finrisk_assets.cli.local_servers.Server.replace_this_process", lambda _: pytest.fail("Dagster has started"))
    environment = {"FINRISK_HOME": str(tmp_path / "none"), "FINRISK_SOURCE": "simulator", variable: value}
    done = CliRunner().invoke(cli, [*words.split(), *(["--json"] if words == "doctor" else [])], env=environment)
    assert isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    if words == "doctor" and not done.output.startswith("Error"):
        assert [check["name"] for check in json.loads(done.stdout) if check["state"] == "FAULT"] == ["settings"]
    else:
        assert done.output.startswith("Error: ") and done.output.count("\n") == 1, done.output
    assert not (tmp_path / "none").exists()


def test_a_user_without_a_home_is_not_told_of_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    done = CliRunner().invoke(cli, ["policy", "check"], env={"FINRISK_HOME": str(tmp_path / "home")})
    assert done.exit_code == 0, done.output
    assert os.environ.pop("MPLCONFIGDIR") == str(tmp_path / "home" / "matplotlib")
    assert not (tmp_path / "home").exists()


def test_a_ledger_whose_run_ended_half_way_is_told_in_one_sentence(tmp_path: Path) -> None:
    """The quarantine of a table is stored, and its valid rows are not."""
    (tmp_path / "simulator").mkdir()
    warehouse = Warehouse(url=f"duckdb://{tmp_path}/simulator/warehouse.duckdb")
    warehouse.store("quarantine_transactions", ibis.memtable({"row": [1]}))
    warehouse.close()
    done = CliRunner().invoke(cli, ["quarantine"], env={"FINRISK_HOME": str(tmp_path), "FINRISK_SOURCE": "simulator"})
    assert done.output.startswith("Error: the ledger has no table validated_transactions yet: run `make demo` first")
    assert done.output.count("\n") == 1 and done.exit_code == 1
    warehouse.close()
