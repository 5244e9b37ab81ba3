"""The asset `bento`: the champions of all domains, packed with the service that answers with them (see `packaging`)."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from finrisk_assets import checks
from finrisk_assets.domain import Domain
from finrisk_assets.ledger.sources.base import Source
from finrisk_assets.packaging import bentoml_home, build_bento
from finrisk_assets.resources import Warehouse
from finrisk_assets.settings import Settings
from finrisk_assets.stages.common import champion_folder


def assets(domains: list[Domain], absent: Mapping[str, str], source: Source, settings: Settings) -> list[Any]:
    """The Bento of one source, and its check; `absent` says why a domain has no model."""
    if not domains:
        return []

    judged = [f"oracle_{domain.name}" for domain in domains if domain.truth in source.truth]

    @dg.asset(
        name="bento",
        group_name="serving",
        owners=["team:ml-platform"],
        kinds={"bentoml"},
        deps=[*(f"{stage}_{domain.name}" for domain in domains for stage in ("champion", "evaluation")), *judged],
        description="The champions and the service that answers with them, as a Bento: `finrisk serve` starts it.",
    )
    def bento(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        champions = {domain.name: champion_folder(domain, settings) for domain in domains}
        measured = {
            domain.name: [
                {"window": window, **figure}
                for window, stage in (("test", "evaluation"), ("oracle", "oracle"))
                if stage == "evaluation" or f"oracle_{domain.name}" in judged
                for figure in warehouse.table(f"{stage}_{domain.name}").to_pyarrow().to_pylist()
            ]
            for domain in domains
        }
        built = build_bento(settings, champions, absent, measured)
        return dg.MaterializeResult(
            metadata={
                "tag": built.tag,
                "folder": dg.MetadataValue.path(built.path),
                "serve": f"BENTOML_HOME={built.home} bentoml serve {built.tag}",
                **{f"model_{name}": tag for name, tag in built.models.items()},
            },
            data_version=dg.DataVersion(built.version),
        )

    def broken(_: Any) -> list[str]:
        folder = bentoml_home(settings) / "bentos" / "finrisk"
        latest = folder / "latest"
        if not latest.is_file():
            return [f"there is no Bento in {folder}"]
        manifest = folder / latest.read_text().strip() / "bento.yaml"
        return [] if manifest.is_file() else [f"{manifest} is missing"]

    return [bento, checks.demand("bento", "bento_contract", "The newest Bento is whole.", broken)]
