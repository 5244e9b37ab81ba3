"""The tags of every asset, by which the Dagster UI finds them: domain, stage, source, and whether they hold data of single persons."""

from collections.abc import Mapping

import dagster as dg

DOMAIN, STAGE, SOURCE, PERSONAL = "finrisk/domain", "finrisk/stage", "finrisk/source", "finrisk/personal_data"

OF_NOBODY = frozenset({"evaluation", "oracle", "monitoring", "pack"})
"""Stages that hold figures of many, never a row of one. A bundle holds golden rows, which are features of single persons."""


def tagged(asset: dg.AssetsDefinition, source: str) -> dg.AssetsDefinition:
    """The asset with its tags, beside those that it has."""
    return asset.map_asset_specs(lambda spec: spec.merge_attributes(tags=tags_of(spec, source)))


def tags_of(spec: dg.AssetSpec, source: str) -> Mapping[str, str]:
    """What an asset is: its group is its domain, the first word of its name its stage."""
    return {
        DOMAIN: spec.group_name or "default",
        STAGE: spec.key.to_user_string().partition("_")[0],
        SOURCE: source,
        PERSONAL: "yes" if is_personal(spec) else "no",
    }


def is_personal(spec: dg.AssetSpec) -> bool:
    """Whether it holds data of single persons: as its columns say, and where nothing says so, yes."""
    schema = spec.metadata.get("dagster/column_schema")
    if isinstance(schema, dg.TableSchema):
        return any(column.tags.get("personal", "none") != "none" for column in schema.columns)
    return spec.key.to_user_string().partition("_")[0] not in OF_NOBODY
