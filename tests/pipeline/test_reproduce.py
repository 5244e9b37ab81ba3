"""Tests of `finrisk reproduce`: every champion is trained again to the same bytes, or the obstacle is named."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from finrisk_assets.cli.main import cli
from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.graph.build import build_resources
from finrisk_assets.graph.stages.external.spark_fit import FITTED_ROWS
from finrisk_assets.ledger import snapshots
from finrisk_assets.ledger.snapshots import SnapshotError
from finrisk_assets.modelling.training import model_registry, provenance
from finrisk_assets.operations import reproduce
from tests.pipeline.conftest import Run

PAGE = (Path(__file__).parents[2] / "docs" / "reproducibility.md").read_text(encoding="utf-8")
SHELL = "".join(re.findall(r"```sh\n(.*?)```", PAGE, flags=re.DOTALL))
COMMANDS = [line.removeprefix("./") for line in SHELL.splitlines() if line.startswith("./finrisk")]


def version(run: Run, domain: str = "loan_offers") -> model_registry.RegisteredVersion:
    return reproduce.find(run.settings, domain, "champion")[1]


def reproduce_offers(run: Run, *, anyway: bool = False) -> reproduce.Reproduction:
    """Reproduce the offers' model, which is the quickest to train."""
    return reproduce.reproduce(run.settings, *reproduce.find(run.settings, "loan_offers", "champion"), anyway=anyway)


def run_command(run: Run, command: str) -> str:
    """Return the output of a command of the docs, run in this process."""
    home = {"FINRISK_HOME": str(run.settings.home), "COLUMNS": "200"}
    done = CliRunner().invoke(cli, command.split()[1:], env=home, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_every_champion_is_byte_equal_in_a_fresh_process_on_one_thread(run: Run) -> None:
    assert "finrisk reproduce --all" in COMMANDS
    one = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "FINRISK_HOME": str(run.settings.home)}
    command = [sys.executable, "-m", "finrisk_assets.cli.main", "reproduce", "--all"]
    done = subprocess.run(command, env=os.environ | one, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line for line in done.stdout.splitlines() if line.startswith("finrisk-")]
    assert [line.split()[0] for line in lines] == [model_registry.model_name(domain.name) for domain in DOMAINS]
    assert all(line.endswith(": byte-equal") for line in lines)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_a_version_remembers_what_it_was_made_of(run: Run, domain) -> None:  # type: ignore[no-untyped-def]
    client = build_resources(run.settings)["tracking"].client()
    tags = model_registry.read_tags(client, version(run, domain.name))
    origin = provenance.Origin.from_tags(tags)
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", origin.git_commit)
    assert origin.git_dirty in ("true", "false", "unknown")
    assert str(run.settings.home) not in str(tags)
    assert provenance.restore_settings(run.settings, origin.settings) == run.settings
    materialised = run.result.asset_materializations_for_node(f"model_{domain.name}")[0].metadata
    assert {name: materialised[name].value for name in origin.to_tags()} == origin.to_tags()


def test_a_landing_is_kept_and_named_by_the_versions_that_came_of_it(run: Run) -> None:
    landing = run.result.asset_materializations_for_node("raw_loans")[0].metadata
    snapshot = str(landing["snapshot"].value)
    landed = run.settings.root / "landing" / "raw_loans.parquet"
    assert snapshots.restore(run.settings.root / "snapshots", snapshot).read_bytes() == landed.read_bytes()
    assert reproduce.named_snapshots(run.settings)[snapshot] == [f"loan_default {version(run, 'loan_default').version}"]


def test_a_damaged_snapshot_is_refused_before_training(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = build_resources(run.settings)["tracking"].client()
    snapshot = model_registry.read_tags(client, version(run))["snapshot"]
    content = snapshots.restore(run.settings.root / "snapshots", snapshot).read_bytes()
    monkeypatch.setattr(snapshots, "snapshot_folder", lambda root: tmp_path)
    with pytest.raises(SnapshotError, match=f"no snapshot {snapshot}"):
        reproduce_offers(run)
    (tmp_path / f"{snapshot}.parquet").write_bytes(content[:-1] + b"\0")
    with pytest.raises(SnapshotError, match="is damaged"):
        reproduce_offers(run)


def test_other_code_is_refused_with_the_commit_to_check_out_and_tried_anyway(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (provenance, reproduce):
        monkeypatch.setattr(module, "code_sha256", lambda package: "f" * 64)
    commit = provenance.Origin.from_tags(
        model_registry.read_tags(build_resources(run.settings)["tracking"].client(), version(run))
    ).git_commit
    way = "no commit can be named" if commit == "unknown" else f"git worktree add .*{commit}"
    with pytest.raises(reproduce.ReproduceError, match=rf"the code of its training is ffffffffffff, and was .*\n?.*{way}"):
        reproduce_offers(run)
    difference = reproduce_offers(run, anyway=True).difference
    assert difference is not None
    assert (difference.file, difference.at) == ("bundle.json", "code_sha256")


def test_other_libraries_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "lock_sha256", lambda: "e" * 64)
    with pytest.raises(reproduce.ReproduceError, match=r"uv\.lock is eeeeeeeeeeee, and was"):
        reproduce_offers(run)


def test_a_model_that_spark_fitted_is_refused_because_its_snapshot_holds_the_sample(run: Run) -> None:
    client, model = build_resources(run.settings)["tracking"].client(), version(run)
    client.set_model_version_tag(model.name, model.version, FITTED_ROWS, "46000000")
    try:
        with pytest.raises(reproduce.ReproduceError, match=r"Spark fitted XGBoost's candidates on 46,000,000 rows.* `--anyway`"):
            reproduce_offers(run)
    finally:
        client.delete_model_version_tag(model.name, model.version, FITTED_ROWS)


@pytest.mark.parametrize(("model", "which"), [("loan_default", "99"), ("loan_default", "best"), ("pension", "1")])
def test_what_is_not_registered_is_said_so(run: Run, model: str, which: str) -> None:
    with pytest.raises(reproduce.ReproduceError, match=which if model == "loan_default" else "there is no model 'pension'; choose"):
        reproduce.find(run.settings, model, which)


@pytest.mark.parametrize("command", [command for command in COMMANDS if command.startswith("finrisk reproduce") and "--all" not in command])
def test_the_docs_reproduce_commands(run: Run, command: str) -> None:
    known = version(run, "loan_default")
    line = run_command(run, command.replace("finrisk-loan-default 1", f"{known.name} {known.version}"))
    assert line.startswith(f"finrisk-loan-default version {known.version}, bundle ")
    assert line.endswith(": byte-equal\n")


def test_the_docs_snapshot_commands(run: Run, tmp_path: Path) -> None:
    listed, restored, counted, pruned = (command for command in COMMANDS if command.startswith("finrisk snapshots"))
    output = run_command(run, listed)
    begin = re.findall(r"([0-9a-f]{12})\s+(?:table\s+)?features_loan_offers", output)[0]
    target = tmp_path / "features.parquet"
    assert begin in run_command(run, restored.replace("SHA", begin).replace("features.parquet", str(target)))
    assert snapshots.hash_file(target).startswith(begin)
    folder = run.settings.root / "snapshots"
    target.chmod(0o644)
    target.write_bytes(target.read_bytes() + b"\0")
    spare = [one for one in snapshots.list_snapshots(folder) if one.sha256 not in reproduce.named_snapshots(run.settings)]
    assert f"{len(spare)} snapshots" in run_command(run, counted)
    assert "removed" in run_command(run, pruned)
    assert {one.sha256 for one in snapshots.list_snapshots(folder)} <= reproduce.named_snapshots(run.settings).keys()
