"""The tags of every asset, for searching in the Dagster UI: domain, stage, source, and whether it holds personal data."""

from collections.abc import Mapping

import dagster as dg

DOMAIN, STAGE, SOURCE, PERSONAL = "finrisk/domain", "finrisk/stage", "finrisk/source", "finrisk/personal_data"

AGGREGATE_STAGES = frozenset({"evaluation", "oracle", "consistency", "monitoring", "pack"})
"""Stages that hold aggregate figures only. A bundle is not among them: its golden rows are features of single persons."""


def add_tags(asset: dg.AssetsDefinition, source: str) -> dg.AssetsDefinition:
    """Return the asset with the tags of `asset_tags` added to its own."""
    return asset.map_asset_specs(lambda spec: spec.merge_attributes(tags=asset_tags(spec, source)))


def asset_tags(spec: dg.AssetSpec, source: str) -> Mapping[str, str]:
    """Return an asset's tags: the domain from its group, the stage from the first word of its name."""
    return {
        DOMAIN: spec.group_name or "default",
        STAGE: spec.key.to_user_string().partition("_")[0],
        SOURCE: source,
        PERSONAL: "yes" if has_personal_data(spec) else "no",
    }


def has_personal_data(spec: dg.AssetSpec) -> bool:
    """Return whether an asset holds personal data, by its column schema; without a schema, yes, except `AGGREGATE_STAGES`."""
    schema = spec.metadata.get("dagster/column_schema")
    if isinstance(schema, dg.TableSchema):
        return any(column.tags.get("personal", "none") != "none" for column in schema.columns)
    return spec.key.to_user_string().partition("_")[0] not in AGGREGATE_STAGES
