"""Tests of the assets' owners, kinds, descriptions and personal-data tags in the Dagster UI."""

from pathlib import Path

import dagster as dg
import pytest

from finrisk_assets.graph import build, tags
from finrisk_assets.ledger.sources import BUILT_IN
from finrisk_assets.settings import Settings

LEDGER_STAGES = {"raw", "validated", "quarantine", "totals", "truth"}


def specs(source: str, home: Path) -> dict[str, dg.AssetSpec]:
    graph = build.build_definitions(Settings(home=home, source=source)).resolve_asset_graph()
    return {key.to_user_string(): graph.get(key).to_asset_spec() for key in graph.get_all_asset_keys()}


@pytest.mark.parametrize("source", BUILT_IN)
def test_every_asset_says_what_it_is(source: str, tmp_path: Path) -> None:
    specs_by_name = specs(source, tmp_path)
    assert specs_by_name
    for name, spec in specs_by_name.items():
        assert spec.owners, name
        assert spec.kinds, name
        assert len(spec.description or "") > 20, name
        assert spec.tags[tags.SOURCE] == source, name
        assert spec.tags[tags.DOMAIN] == spec.group_name, name
        assert name.startswith(spec.tags[tags.STAGE]), name
        assert (spec.tags[tags.DOMAIN] == "ledger") == (spec.tags[tags.STAGE] in LEDGER_STAGES), name
        assert spec.tags[tags.PERSONAL] in ("yes", "no"), name


@pytest.mark.parametrize("source", BUILT_IN)
def test_stored_tables_of_people_are_personal_and_figures_of_many_are_not(source: str, tmp_path: Path) -> None:
    for name, spec in specs(source, tmp_path).items():
        expected = "no" if name.startswith(("evaluation_", "oracle_", "consistency_", "monitoring_", "pack_")) else "yes"
        assert spec.tags[tags.PERSONAL] == expected, name


def test_a_table_without_any_personal_column_is_not_personal() -> None:
    columns = dg.TableSchema([dg.TableColumn("rate", tags={"personal": "none"})])
    spec = dg.AssetSpec("validated_rates", group_name="ledger", metadata={"dagster/column_schema": columns})
    assert tags.asset_tags(spec, "berka")[tags.PERSONAL] == "no"


@pytest.mark.parametrize("source", BUILT_IN)
def test_every_model_has_a_blocking_leakage_check(source: str, tmp_path: Path) -> None:
    graph = build.build_definitions(Settings(home=tmp_path, source=source)).resolve_asset_graph()
    models = {key.to_user_string() for key in graph.get_all_asset_keys() if key.to_user_string().startswith("model_")}
    checked = {key.asset_key.to_user_string() for key in graph.asset_check_keys if key.name.endswith("_leakage")}
    assert checked == models
    for key in graph.asset_check_keys:
        if key.name.endswith("_leakage"):
            assert graph.get(key).blocking, key
