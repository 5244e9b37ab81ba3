"""Tests of the validation packs of the small ledger: the pages, and that verification finds and names every changed byte."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from finrisk_assets.cli.main import cli
from finrisk_assets.domains.base import Domain
from finrisk_assets.domains.registry import DOMAINS
from finrisk_assets.graph import packaging
from finrisk_assets.graph.build import build_resources
from finrisk_assets.graph.stages import champion as champion_stage
from finrisk_assets.graph.stages import pack as stage
from finrisk_assets.ledger import sources
from finrisk_assets.modelling.packs import pack
from finrisk_assets.modelling.packs.evidence import write_evidence
from finrisk_assets.modelling.training import model_registry
from finrisk_assets.operations import verify_pack
from finrisk_assets.policy.policy_file import default_policy
from tests.pipeline.conftest import Run

LOANS = next(domain for domain in DOMAINS if domain.name == "loan_default")


def champion(run: Run, domain: Domain = LOANS) -> model_registry.RegisteredVersion:
    disagreements = model_registry.find_version(build_resources(run.settings)["tracking"].client(), domain.name, model_registry.CHAMPION)
    assert disagreements is not None
    return disagreements


def folder(run: Run, domain: Domain = LOANS) -> Path:
    return verify_pack.find_pack(run.settings, domain.name)[1]


@contextmanager
def tamper(file: Path, before: str, after: str) -> Iterator[None]:
    """Change the content of one file until the block ends."""
    content, mode = file.read_bytes(), file.stat().st_mode
    assert before.encode() in content, f"{file} has no {before}"
    file.chmod(0o644)
    file.write_bytes(content.replace(before.encode(), after.encode(), 1))
    try:
        yield
    finally:
        file.write_bytes(content)
        file.chmod(mode)


def read_documented_commands() -> list[list[str]]:
    """Return the arguments of the commands in docs/validation-pack.md."""
    text = (Path(__file__).parents[2] / "docs" / "validation-pack.md").read_text()
    return [line.split("#")[0].split() for line in re.findall(r"^\./finrisk validate-pack (.+)$", text, flags=re.MULTILINE)]


def find_disagreements(run: Run) -> str:
    """Return where the verification of the loan model's pack disagrees with the packed figures."""
    return "\n".join(verify_pack.verify(run.settings, "loan_default").disagreements)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_each_version_has_two_pages_and_a_manifest_that_is_sealed_in_the_registry(run: Run, domain: Domain) -> None:
    packed, at = verify_pack.find_pack(run.settings, domain.name)
    client, model = build_resources(run.settings)["tracking"].client(), champion(run, domain)
    tags = model_registry.read_tags(client, model)
    assert at == run.settings.root / "packs" / domain.name / tags["bundle"]
    assert tags["pack"] == pack.sha256((at / "pack.json").read_bytes())
    assert {file.path for file in client.list_artifacts(model.run_id, "pack")} >= {"pack/card.html", "pack/pack.html", "pack/pack.json"}
    assert packed.is_supported
    expected = {"bundle/bundle.json", "snapshot", "evaluation.json", "policy.json", "oracle.json", "README.md", "card.md"}
    assert expected <= packed.by_artifact.keys()
    assert packed.facts["Policy (SHA-256)"] == packed.by_artifact["policy.json"].sha256 == default_policy().sha256
    assert not packed.figures_of("other")
    assert all(
        packed.texts[name] for name in ("decision", "for whom", "intended use", "not intended", "population", "known when", "limits")
    )
    text = (at / "card.html").read_text() + (at / "pack.html").read_text()
    assert not re.search(r"compliant|<script|https?://", text)


@pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)
def test_the_evidence_of_each_champion_is_packed_and_agrees_with_its_figures(run: Run, domain: Domain) -> None:
    evidence = champion_stage.read_champion_evidence(domain, run.settings)
    figures = {figure["metric"]: figure["value"] for figure in champion_stage.read_champion_figures(domain, run.settings)}
    assert evidence["rows"] == figures["n_test"] and 2 < len(evidence["roc"]) <= 100
    x, y = np.array(evidence["roc"]).T
    assert float(np.trapezoid(y, x)) == pytest.approx(figures["auc"], abs=0.02)
    assert bool(evidence["scores"]) == domain.monitoring.is_scored_as_it_stands
    assert evidence["effects"] and sum(row["is_chosen"] for row in evidence["candidates"]) == 1
    assert bool(evidence["scorecard"]) == (domain.name == "loan_default")
    name = f"finrisk-{domain.name.replace('_', '-')}"
    (packed,) = (run.settings.bentoml_home / "models" / name / evidence["version"]).glob("evidence.json")
    content = packed.read_bytes()
    assert content == write_evidence(evidence) and len(content) < 100_000


def test_the_version_of_a_bento_has_its_evidence_but_not_its_runs() -> None:
    def version(evidence: dict[str, Any]) -> str:
        return packaging._version({"loan_default": "m:1"}, {}, evidence, "", default_policy())

    assert version({"loan_default": {"rows": 1}}) == version({"loan_default": {"rows": 1}}) != version({"loan_default": {"rows": 2}})


def test_no_person_is_in_a_pack(run: Run) -> None:
    """Numbers of customers are too short to be looked for; those of their loans and offers are not."""
    pages = "".join(file.read_text() for file in (run.settings.root / "packs").rglob("*.html"))
    words = set(re.findall(r"\w+", re.sub(r"base64,[^\"]+", "", pages)))
    for table, key in (("loans", "loan_id"), ("offers", "offer_id")):
        theirs = run.warehouse.table(f"validated_{table}")[key].to_pyarrow().to_pylist()
        assert len(theirs) > 100
        assert not words & set(theirs)


def test_the_same_inputs_give_the_same_bytes(run: Run) -> None:
    before = {file.name: file.read_bytes() for file in folder(run).iterdir()}
    client, model = build_resources(run.settings)["tracking"].client(), champion(run)
    gathered = stage.gather(LOANS, sources.load(run.settings), client, model, json.loads(before["oracle.json"]))
    again = stage.write(gathered, run.settings, client, model)
    assert {file.name: file.read_bytes() for file in again.iterdir()} == before


def test_everything_agrees_in_what_the_graph_made(run: Run) -> None:
    done = verify_pack.verify(run.settings, "loan_default")
    assert done.disagreements == []
    disagreements = {one.name: one.agree for one in done.outcomes}
    assert disagreements["Artifacts"] == len(done.record.artifacts)
    recomputed = sum(disagreements.get(heading, 0) for heading, _ in pack.GROUPS.values())
    assert recomputed == len(done.record.figures) > 50
    assert min(disagreements[name] for name in ("Discrimination", "Calibration", "Explanation", "Fairness", "Beside the oracle")) > 3


def test_a_figure_changed_in_the_manifest_is_found(run: Run) -> None:
    file = folder(run) / "pack.json"
    auc = verify_pack.find_pack(run.settings, "loan_default")[0].by_key["evaluation/auc"].value
    assert auc is not None
    with tamper(file, f'"value": {auc!r}', '"value": 0.9911'):
        disagreements = find_disagreements(run)
    assert re.search(
        r"pack\.json: the value of evaluation/auc is 0\.9911 there, 0\.\d+ from snapshot \w{8} and bundle \w{12}", disagreements
    )
    assert "pack.json: its hash is not the one that the registry holds" in disagreements


def test_a_figure_changed_in_a_page_is_found(run: Run) -> None:
    auc = verify_pack.find_pack(run.settings, "loan_default")[0].by_key["evaluation/auc"]
    with tamper(folder(run) / "pack.html", f">{auc.format_bound('value')}<", ">0.9911<"):
        disagreements = find_disagreements(run)
    assert re.search(r"pack\.html, line \d+: shows 0\.9911 \(0\.\d+\) as the value of evaluation/auc", disagreements)
    assert "pack.html: its bytes are not those" in disagreements


def test_a_bundle_that_was_changed_is_found(run: Run) -> None:
    packed = verify_pack.find_pack(run.settings, "loan_default")[0]
    manifests = (run.settings.root / "mlflow" / "artifacts").rglob("bundle.json")
    (file,) = (one for one in manifests if pack.sha256(one.read_bytes()) == packed.by_artifact["bundle/bundle.json"].sha256)
    log_loss = json.loads(file.read_bytes())["metrics"]["validation_log_loss"]
    with tamper(file, f'"validation_log_loss": {log_loss!r}', '"validation_log_loss": 0.9911'):
        disagreements = find_disagreements(run)
    assert "bundle/bundle.json: has the hash" in disagreements


def test_a_snapshot_that_was_changed_is_found(run: Run) -> None:
    packed = verify_pack.find_pack(run.settings, "loan_default")[0]
    snapshot = run.settings.root / "snapshots" / f"{packed.by_artifact['snapshot'].sha256}.parquet"
    with tamper(snapshot, "PAR1", "PAR2"):
        disagreements = find_disagreements(run)
    assert re.search(r"snapshot: the snapshot .+ is damaged", disagreements)
    assert "they cannot be computed again" in disagreements


def test_a_plot_that_was_changed_is_found(run: Run) -> None:
    model = champion(run)
    (file,) = (run.settings.root / "mlflow" / "artifacts").rglob(f"{model.run_id}/artifacts/plots/test_roc_pr.png")
    with tamper(file, "IHDR", "IHDX"):
        assert "plots/test_roc_pr.png: has the hash" in find_disagreements(run)


def test_what_is_gone_is_named(run: Run) -> None:
    (file,) = (run.settings.root / "mlflow" / "artifacts").rglob(f"{champion(run).run_id}/artifacts/candidates.json")
    aside = file.rename(file.with_suffix(".aside"))
    try:
        disagreements = find_disagreements(run)
    finally:
        aside.rename(file)
    assert "candidates.json: cannot be read from MLflow run" in disagreements
    assert "they cannot be computed again" in disagreements


def test_the_commands_say_how_many_agree_and_end_with_1_where_one_does_not(run: Run) -> None:
    settings = run.settings
    environment = {
        "FINRISK_HOME": str(settings.home), "FINRISK_SIM_CUSTOMERS": str(settings.sim_customers),
        "FINRISK_SIM_MONTHS": str(settings.sim_months), "FINRISK_AS_OF": str(settings.as_of),
    }  # fmt: skip

    def validate_pack(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli, ["validate-pack", *arguments], env=environment)
        return done.exit_code, done.output

    version = verify_pack.find_pack(settings, "loan_default")[0].version
    (listed, shown, verified) = [validate_pack(*command) for command in read_documented_commands()]
    assert (listed[0], shown[0], verified[0]) == (0, 0, 0), verified[1]
    assert all(domain.name in listed[1] for domain in DOMAINS)
    assert str(folder(run) / "pack.html") in shown[1].replace("\n", "")
    assert re.search(r"Discrimination +4 of 4 +agree", verified[1])
    assert "everything agrees" in verified[1]
    with tamper(folder(run) / "card.html", "Model card", "Modal card"):
        status, output = validate_pack("verify", "loan_default", "--version", version[:8])
    assert status == 1
    assert "first disagreement: card.html: its bytes are not those that pack.json names" in output
    status, output = validate_pack("verify", "loan_default", "--version", "99")
    assert status == 1
    assert f"loan_default has no version '99'; it has {version}" in output


def test_a_domain_that_is_not_there_is_named(run: Run) -> None:
    with pytest.raises(pack.PackError, match="the source simulator has no domain 'weather'; it has"):
        verify_pack.verify(run.settings, "weather")
    with pytest.raises(pack.PackError, match="there is no pack"):
        verify_pack.list_domains_with_packs(replace(run.settings, home=run.settings.home / "empty"))
