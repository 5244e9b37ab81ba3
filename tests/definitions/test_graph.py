"""The graph of every source, as a snapshot: what an asset is called, who answers for it, what it needs, what checks it.

After a change that is meant, delete the snapshot and run the test: it is written anew and fails once, so that it is read first.
"""

import json
from pathlib import Path

import dagster as dg
import pytest

from finrisk_assets.build import build
from finrisk_assets.settings import Settings

SNAPSHOTS = Path(__file__).parent / "snapshots"


def graph(source: str, home: Path) -> dict[str, dict[str, object]]:
    definitions = build(Settings(home=home, source=source))
    nodes = definitions.resolve_asset_graph()
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
        }
        for key in sorted(nodes.get_all_asset_keys(), key=dg.AssetKey.to_user_string)
    }


@pytest.mark.parametrize("source", ["simulator", "handbook", "berka", "taiwan"])
def test_graph_is_as_the_snapshot_says(source: str, tmp_path: Path) -> None:
    found = json.dumps(graph(source, tmp_path), indent=1, sort_keys=True) + "\n"
    file = SNAPSHOTS / f"{source}.json"
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_text(found, encoding="utf-8")
        pytest.fail(f"{file.name} was not there and has been written: read it, then run the test again")
    assert json.loads(found) == json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("source", ["simulator", "handbook", "berka", "taiwan"])
def test_every_asset_is_owned_described_and_checked(source: str, tmp_path: Path) -> None:
    for asset, node in graph(source, tmp_path).items():
        assert node["owners"], asset
        assert node["kinds"], asset
        assert node["group"] not in (None, "default"), asset
        assert len(str(node["description"])) > 20, asset
        assert f"{asset}_contract" in node["checks"], asset  # type: ignore[operator]


def test_no_feature_reads_the_truth(tmp_path: Path) -> None:
    for asset, node in graph("simulator", tmp_path).items():
        assert not any(str(parent).startswith("truth_") for parent in node["deps"]), asset  # type: ignore[union-attr]
