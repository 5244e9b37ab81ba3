"""Snapshots of every source's graph: names, owners, dependencies and checks of the assets.

After a change that is meant, delete the snapshot and run the test: it is written anew and fails once, so that it is read first.
"""

import json
from pathlib import Path

import dagster as dg
import pytest

from finrisk_assets.domains import registry
from finrisk_assets.domains.base import Domain
from finrisk_assets.graph import automation, build
from finrisk_assets.ledger import sources
from finrisk_assets.ledger.sources import BUILT_IN
from finrisk_assets.ledger.sources.source_definition import Source
from finrisk_assets.settings import Settings

SNAPSHOTS = Path(__file__).parent / "snapshots"


def resolved(source: str, home: Path) -> dg.Definitions:
    return build.build_definitions(Settings(home=home, source=source))


def graph(source: str, home: Path) -> dict[str, dict[str, object]]:
    nodes = resolved(source, home).resolve_asset_graph()
    checks: dict[str, list[str]] = {}
    for key in nodes.asset_check_keys:
        checks.setdefault(key.asset_key.to_user_string(), []).append(key.name)
    return {
        key.to_user_string(): {
            "group": nodes.get(key).group_name,
            "owners": sorted(nodes.get(key).owners),
            "kinds": sorted(nodes.get(key).kinds),
            "description": nodes.get(key).description,
            "deps": sorted(parent.to_user_string() for parent in nodes.get(key).parent_keys),
            "checks": sorted(checks.get(key.to_user_string(), [])),
            "months": nodes.get(key).partitions_def is not None,
            "condition": getattr(nodes.get(key).automation_condition, "label", None),
        }
        for key in sorted(nodes.get_all_asset_keys(), key=dg.AssetKey.to_user_string)
    }


def domains_of(source: str, home: Path) -> tuple[Source, list[Domain]]:
    loaded = sources.load(Settings(home=home, source=source))
    return loaded, registry.domains_of(loaded)


def ancestors(asset: str, deps: dict[str, set[str]]) -> set[str]:
    """Return every asset that this asset depends on, directly or indirectly."""
    snapshot: set[str] = set()
    waiting = [asset]
    while waiting:
        for parent in deps.get(waiting.pop(), set()) - snapshot:
            snapshot.add(parent)
            waiting.append(parent)
    return snapshot


@pytest.mark.parametrize("source", BUILT_IN)
def test_graph_is_as_the_snapshot_says(source: str, tmp_path: Path) -> None:
    snapshot = json.dumps(graph(source, tmp_path), indent=1, sort_keys=True) + "\n"
    file = SNAPSHOTS / f"{source}.json"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_text(snapshot, encoding="utf-8")
        pytest.fail(f"{file.name} was not there and has been written: read it, then run the test again")
    assert json.loads(snapshot) == json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("source", BUILT_IN)
def test_every_asset_is_owned_described_and_checked(source: str, tmp_path: Path) -> None:
    for asset, node in graph(source, tmp_path).items():
        assert node["owners"], asset
        assert node["kinds"], asset
        assert node["group"] not in (None, "default"), asset
        assert len(str(node["description"])) > 20, asset
        assert f"{asset}_contract" in node["checks"], asset  # type: ignore[operator]


@pytest.mark.parametrize("source", BUILT_IN)
def test_a_step_has_the_name_of_its_asset_or_check(source: str, tmp_path: Path) -> None:
    """A name before it a second time makes the steps of a run unreadable."""
    definitions = resolved(source, tmp_path)
    steps = {node.name for node in definitions.resolve_job_def(automation.EVERYTHING).graph.nodes}
    nodes = definitions.resolve_asset_graph()
    assets = {key.to_user_string() for key in nodes.get_all_asset_keys()}
    assert steps == assets | {key.name for key in nodes.asset_check_keys}


@pytest.mark.parametrize("source", BUILT_IN)
def test_every_domain_goes_from_features_to_scores(source: str, tmp_path: Path) -> None:
    """A second model of a domain has its own stages, and the first model's features and group."""
    loaded, domains = domains_of(source, tmp_path)
    assets = graph(source, tmp_path)
    for domain in domains:
        stages = [f"{stage}_{domain.name}" for stage in ("model", "evaluation", "champion", "scores")]
        assert {f"features_{domain.group}", *stages} <= assets.keys(), domain.name
        assert f"features_{domain.group}" in assets[f"model_{domain.name}"]["deps"]  # type: ignore[operator]
        assert (f"features_{domain.name}" in assets) == (not domain.features_of)
        assert {assets[stage]["group"] for stage in stages} == {domain.group}
        assert (f"oracle_{domain.name}" in assets) == (domain.truth in loaded.truth)


def test_nothing_that_learns_or_decides_knows_the_truth(tmp_path: Path) -> None:
    """Neither directly nor through other assets. Only an oracle reads the true probabilities; Bento and packs carry its figures."""
    assets = graph("simulator", tmp_path)
    deps = {asset: {str(parent) for parent in node["deps"]} for asset, node in assets.items()}  # type: ignore[attr-defined]
    truths = {asset for asset in assets if asset.startswith("truth_")}
    oracles = {asset for asset in assets if asset.startswith("oracle_")}
    assert any(asset.startswith("features_") for asset in assets)
    assert all(ancestors(oracle, deps) & truths for oracle in oracles)
    carriers = {asset for asset in assets if asset == "bento" or asset.startswith("pack_")}
    for asset in assets.keys() - truths - oracles - carriers:
        known = ancestors(asset, deps) & (truths | oracles)
        assert not known, f"{asset} depends on {', '.join(sorted(known))}"


def test_the_ancestors_of_an_asset_are_followed_through_others() -> None:
    """Otherwise the test above would pass whatever the graph is."""
    deps = {"model_x": {"features_x"}, "features_x": {"middle"}, "middle": {"truth_x"}}
    assert ancestors("model_x", deps) == {"features_x", "middle", "truth_x"}


@pytest.mark.parametrize("source", BUILT_IN)
def test_no_feature_table_has_a_column_of_the_truth_or_a_protected_one(source: str, tmp_path: Path) -> None:
    loaded, domains = domains_of(source, tmp_path)
    protected = {column.name for raw in loaded.tables.values() for column in raw.table.columns if column.personal == "protected"}
    for domain in domains:
        names = set(domain.feature_contract(loaded).names)
        assert not {name for name in names if name.startswith(("true_", "truth_", "oracle_", "ledger_pd"))}, domain.name
        assert not names & protected, domain.name


@pytest.mark.parametrize(
    ("url", "executor"),
    [
        ("", "in_process"),
        ("postgres://db.example/risk", "multiprocess"),
        ("pyspark://local[2]", "in_process"),
        ("pyspark://spark://host:7077", "in_process"),
        ("pyspark://sc://host:15002", "multiprocess"),
    ],
)
def test_a_step_is_a_process_of_its_own_where_the_warehouse_takes_several_writers(url: str, executor: str, tmp_path: Path) -> None:
    definitions = build.build_definitions(Settings(home=tmp_path, warehouse_url=url))
    assert definitions.executor is not None and definitions.executor.name == executor


def test_dagsters_pages_hold_no_url_of_warehouse_and_tracking(tmp_path: Path) -> None:
    from dagster._core.remote_representation.external_data import RepositorySnap
    from dagster._serdes import serialize_value

    urls = {"warehouse_url": "postgres://risk@db.example/risk", "mlflow_store_url": "postgresql://mlflow@db.example/mlflow"}
    repository = build.build_definitions(Settings(home=tmp_path, **urls)).get_repository_def()
    shown = serialize_value(RepositorySnap.from_def(repository))
    assert '"tracking"' in shown and "db.example" not in shown
