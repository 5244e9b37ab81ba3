"""The models that a process carries: those packed into its Bento or, served from source, the newest in BentoML's model store.

`finrisk_assets.packaging` puts them there, one BentoML model per domain, whose files are a scoring bundle. A Bento names them by
tag, so that it answers with the same models wherever it runs. A domain that the source lacks is simply not there, with the
reason in the metadata of those that are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bentoml.exceptions import BentoMLException, NotFound

from finrisk_assets.modelling.bundle import Bundle

DOMAINS = ("transaction_anomaly", "loan_default")
"""The domains that the service has a route for."""


class NoChampions(BentoMLException):
    """There is nothing to answer with, or what there is does not belong together."""


@dataclass(frozen=True)
class Champions:
    """The loaded bundles by domain, the source that all of them come from, and why a domain has none."""

    bundles: Mapping[str, Bundle]
    source: str
    absent: Mapping[str, str]

    def why_absent(self, domain: str) -> str:
        """One sentence for the client that asked for a domain without a model."""
        reason = self.absent.get(domain, "the source has no data for it")
        return f"This Bento carries no {domain.replace('_', '-')} model: it was built from the source {self.source!r}; {reason}."


def stored() -> list[Any]:
    """The newest model of every domain in BentoML's model store, as BentoML models.

    Raises
    ------
    NoChampions
        Where the store has none.
    """
    import bentoml
    from bentoml._internal.container import BentoMLContainer

    models = []
    for domain in DOMAINS:
        try:
            models.append(bentoml.models.get("finrisk-" + domain.replace("_", "-")))
        except NotFound:
            continue
    if not models:
        raise NoChampions(
            f"no finrisk model in the model store of BENTOML_HOME={BentoMLContainer.bentoml_home.get()}: "
            "materialise the asset `bento` first, then set BENTOML_HOME to FINRISK_HOME/<source>/bentoml"
        )
    return models


def load(bento: Any | None) -> Champions:
    """Load and check the models of a Bento or, without one, of the model store.

    Raises
    ------
    NoChampions
        If there are none, or they come from different sources.
    finrisk_assets.modelling.bundle.BundleError
        If a file is not what it was when it was trained.
    """
    import bentoml

    models = stored() if bento is None else [bentoml.models.get(info.tag) for info in bento.info.all_models]
    loaded = [Bundle.load(Path(model.path), version=model.tag.version) for model in models]
    sources = sorted({bundle.source for bundle in loaded})
    if len(sources) != 1:
        raise NoChampions(f"one service answers for one source; these models come from {sources}")
    absent = {domain: reason for model in models for domain, reason in model.info.metadata.get("absent", {}).items()}
    bundles = {bundle.domain: bundle for bundle in loaded}
    return Champions(bundles, sources[0], {domain: absent[domain] for domain in absent.keys() - bundles.keys()})
