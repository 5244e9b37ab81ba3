"""Tests of a version's origin, and of the first difference between two bundles."""

import json
import subprocess
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from finrisk_assets.modelling.training import provenance
from finrisk_assets.modelling.training.candidates import build_candidates, compute_margin
from finrisk_assets.modelling.training.provenance import Origin, OriginError
from finrisk_assets.operations.reproduce import BundleDifference, first_difference
from finrisk_assets.settings import Settings
from schemas.features import Feature

MANIFEST = {"code_sha256": "aa", "components": [{"kind": "linear", "intercept": 0.25}], "files": {"trees-0.json": "11"}}
TREES = {"learner": {"trees": [{"split_conditions": [0.5, 1.5]}]}}


def bundle(folder: Path, manifest: object = MANIFEST, trees: object = TREES) -> Path:
    folder.mkdir()
    (folder / "bundle.json").write_text(json.dumps(manifest))
    (folder / "trees-0.json").write_text(json.dumps(trees))
    return folder


def test_equal_bundles_have_no_difference(tmp_path: Path) -> None:
    assert first_difference(bundle(tmp_path / "a"), bundle(tmp_path / "b")) is None


def test_a_difference_in_json_is_told_by_its_path_and_both_values(tmp_path: Path) -> None:
    other = {**MANIFEST, "components": [{"kind": "linear", "intercept": 0.250000001}]}
    difference = first_difference(bundle(tmp_path / "a"), bundle(tmp_path / "b", other))
    assert difference == BundleDifference("bundle.json", "components[0].intercept", "0.25", "0.250000001")
    assert str(difference) == "bundle.json, components[0].intercept: registered 0.25, trained again 0.250000001"


def test_a_model_file_is_told_before_the_manifest_that_holds_its_hash(tmp_path: Path) -> None:
    other = bundle(tmp_path / "b", {**MANIFEST, "files": {"trees-0.json": "22"}}, {"learner": {"trees": [{"split_conditions": [0.5, 2]}]}})
    difference = first_difference(bundle(tmp_path / "a"), other)
    assert difference == BundleDifference("trees-0.json", "learner.trees[0].split_conditions[1]", "1.5", "2")


def test_the_hash_of_the_code_is_told_only_where_nothing_else_differs(tmp_path: Path) -> None:
    registered = bundle(tmp_path / "a")
    code = first_difference(registered, bundle(tmp_path / "b", {**MANIFEST, "code_sha256": "bb"}))
    both = first_difference(registered, bundle(tmp_path / "c", {**MANIFEST, "code_sha256": "bb", "files": {}}))
    assert code is not None and code.at == "code_sha256"
    assert both == BundleDifference("bundle.json", "files.trees-0.json", '"11"', "nothing")


def test_a_file_that_is_missing_and_another_spelling_are_differences_too(tmp_path: Path) -> None:
    registered, again = bundle(tmp_path / "a"), bundle(tmp_path / "b")
    (again / "trees-0.json").write_text(json.dumps(TREES, indent=1))
    spelling = first_difference(registered, again)
    assert spelling is not None and (spelling.file, spelling.at) == ("trees-0.json", "byte 1")
    (again / "trees-0.json").unlink()
    assert first_difference(registered, again) == BundleDifference("trees-0.json", "", "there", "not there")


def test_settings_are_recorded_without_paths_and_with_their_moment(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, warehouse_url="duckdb:///secret", mapping=tmp_path / "m.yaml", seed=7, sim_shock_size=0.4)
    recorded = provenance.settings_to_json(replace(settings, as_of=datetime(2025, 7, 1)))
    assert str(tmp_path) not in recorded
    assert "secret" not in recorded
    elsewhere = provenance.restore_settings(Settings(home=Path("elsewhere")), recorded)
    assert elsewhere == Settings(home=Path("elsewhere"), seed=7, sim_shock_size=0.4, as_of=datetime(2025, 7, 1))


def test_an_origin_comes_back_from_its_tags_and_a_version_without_one_says_so() -> None:
    names = ("snapshot", "data_sha256", "code_sha256", "seed", "lock_sha256", "git_commit", "git_dirty", "settings")
    origin = Origin(**dict.fromkeys((*names, "python", "libraries", "machine"), "x"), dvc='{"loans.csv": "0a"}')
    assert Origin.from_tags({"bundle": "1", "gate": "passed", **origin.to_tags()}) == origin
    with pytest.raises(OriginError, match="no tag snapshot, code_sha256"):
        Origin.from_tags({"bundle": "1", "source": "simulator"})


def test_the_commit_is_named_and_whether_the_tree_was_dirty(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
        return subprocess.run(["git", *identity, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    assert provenance.read_git_commit(tmp_path) == ("unknown", "unknown")
    git("init", "--quiet")
    (tmp_path / "model.py").write_text("seed = 1")
    git("add", "model.py")
    git("commit", "--quiet", "--message", "first")
    assert provenance.read_git_commit(tmp_path) == (git("rev-parse", "HEAD"), "false")
    (tmp_path / "model.py").write_text("seed = 2")
    assert provenance.read_git_commit(tmp_path) == (git("rev-parse", "HEAD"), "true")
    (tmp_path / "installed").mkdir()
    assert provenance.read_git_commit(tmp_path / "installed") == ("unknown", "unknown")


def test_a_forest_says_the_same_bits_on_any_number_of_threads() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(3_000, 6)).astype(np.float32)
    labels = rows[:, 0] + rng.normal(size=len(rows)) > 0
    features = [Feature(f"f{at}", "", "", "", "") for at in range(6)]
    scores = [
        compute_margin(build_candidates(features, seed=1, n_threads=threads, n_rows=len(rows))["random_forest"].fit(rows, labels), rows)[0]
        for threads in (1, 4, 4)
    ]
    assert np.array_equal(scores[0], scores[1])
    assert np.array_equal(scores[1], scores[2])


def test_linear_algebra_adds_up_in_the_same_order_on_any_number_of_threads() -> None:
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(2)
    rows, weights = rng.normal(size=(4_000, 60)), rng.normal(size=4_000)

    def product(threads: int) -> np.ndarray:
        with threadpool_limits(threads), provenance.limit_threads():
            return np.asarray(rows.T @ weights)

    assert product(1).tobytes() == product(2).tobytes()
