"""Links from the console to the pages of Dagster and MLflow, where their addresses are known."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from finrisk_assets.settings import Settings

PACK = "pack/pack.html"
"""The validation pack among the artifacts of a champion's run."""
DRIFT_REPORTS = "monitoring"
"""The folder of drift reports among them."""


@dataclass(frozen=True)
class OutsideLinks:
    """The addresses of Dagster and MLflow; an empty one gives no link."""

    dagster: str = ""
    mlflow: str = ""

    @classmethod
    def from_settings(cls, settings: Settings) -> "OutsideLinks":
        """Return the links to the addresses of the settings; one that is no web address gives none."""
        addresses = (settings.dagster_url.rstrip("/"), settings.mlflow_url.rstrip("/"))
        return cls(*(address if address.startswith(("http://", "https://")) else "" for address in addresses))

    def list_model_links(self, domain: str, origin: Mapping[str, str] | None) -> list[tuple[str, str]]:
        """Return text and address of each page about a domain's champion; `origin` names its run and experiment in MLflow."""
        links = []
        if self.dagster:
            names = {"champion": "Champion", "evaluation": "Evaluation", "pack": "Validation pack", "monitoring": "Monitoring"}
            links += [(f"{text} in Dagster", f"{self.dagster}/assets/{name}_{quote(domain)}") for name, text in names.items()]
        if self.mlflow and origin:
            run = f"{self.mlflow}/#/experiments/{quote(origin['experiment_id'])}/runs/{quote(origin['run_id'])}"
            links += [
                ("Training run in MLflow", run),
                ("Validation pack in MLflow", f"{run}/artifactPath/{PACK}"),
                ("Drift reports in MLflow", f"{run}/artifactPath/{DRIFT_REPORTS}"),
            ]
        return links
