"""The models that a process carries: those packed into its Bento or, served from source, the newest in BentoML's model store.

`finrisk_assets.graph.packaging` puts them there, one BentoML model per domain, whose files are a scoring bundle. A Bento names them by
tag, so that it answers with the same models wherever it runs. A domain that the source lacks is simply not there, with the
reason in the metadata of those that are. Beside a champion its challenger may travel, which never answers (see `shadow`): the champion's
metadata names it.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bentoml.exceptions import BentoMLException, NotFound

from bento.decisions.domains import DOMAINS
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.bundle_io import GOLDEN
from finrisk_assets.scoring.spec import BundleError

logger = logging.getLogger("finrisk.service")

CHALLENGER = "-challenger"
"""The end of the name of a model that is asked in the shadow of the champion."""


class NoChampions(BentoMLException):
    """There is nothing to answer with, or what there is does not belong together."""


class ModelRejected(BentoMLException):
    """A model that must not be used: its tag, and what is wrong with it."""


@dataclass(frozen=True)
class Champions:
    """The loaded bundles, and what is to be told of them.

    Attributes
    ----------
    bundles
        By domain.
    source
        The one that all of them come from.
    absent
        Domain to the reason why it has no model.
    figures
        Domain to its model's measured figures, as `finrisk_assets.graph.packaging` was given them.
    typical
        Domain to features of nobody: each the median of the bundle's golden rows. Examples of requests are made of them.
    challengers
        Domain to the bundle that is asked in the champion's shadow, where one was packed.
    """

    bundles: Mapping[str, Bundle]
    source: str
    absent: Mapping[str, str]
    figures: Mapping[str, Sequence[Mapping[str, Any]]]
    typical: Mapping[str, Mapping[str, float | None]]
    challengers: Mapping[str, Bundle] = field(default_factory=dict)

    def why_absent(self, domain: str) -> str:
        """One sentence for the client that asked for a domain without a model."""
        reason = self.absent.get(domain, "the source has no data for it")
        return f"This Bento carries no {domain.replace('_', '-')} model: it was built from the source {self.source!r}; {reason}."


def list_models() -> list[Any]:
    """The newest model of every domain in BentoML's model store and the challenger that it names, as BentoML models.

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
            champion = bentoml.models.get("finrisk-" + domain.replace("_", "-"))
        except NotFound:
            continue
        models.append(champion)
        beside = champion.info.metadata.get("challenger")
        models += [bentoml.models.get(beside)] if beside else []
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
    ModelRejected
        If a file is not what it was when it was trained, or a golden row no longer gets the score that it got then.
    """
    import bentoml

    carried = list_models() if bento is None else [bentoml.models.get(info.tag) for info in bento.info.all_models]
    models = [model for model in carried if not model.tag.name.endswith(CHALLENGER)]
    loaded = [_load_bundle(model) for model in models]
    sources = sorted({bundle.source for bundle in loaded})
    if len(sources) != 1:
        raise NoChampions(f"one service answers for one source; these models come from {sources}")
    absent = {domain: reason for model in models for domain, reason in model.info.metadata.get("absent", {}).items()}
    bundles = {bundle.domain: bundle for bundle in loaded}
    return Champions(
        bundles,
        sources[0],
        {domain: absent[domain] for domain in absent.keys() - bundles.keys()},
        {bundle.domain: json.loads(model.info.metadata.get("figures_json", "[]")) for bundle, model in zip(loaded, models, strict=True)},
        {bundle.domain: _median_features(bundle, Path(model.path)) for bundle, model in zip(loaded, models, strict=True)},
        _load_challengers([model for model in carried if model.tag.name.endswith(CHALLENGER)]),
    )


def _load_bundle(model: Any) -> Bundle:
    """The bundle of a BentoML model, once every hash and every golden row agrees."""
    try:
        return Bundle.load(Path(model.path), version=model.tag.version)
    except BundleError as error:
        raise ModelRejected(f"the model {model.tag} is refused: {error}") from error


def _load_challengers(models: Sequence[Any]) -> dict[str, Bundle]:
    """The bundles of the challengers that can be loaded: one that cannot is told and left out, for its champion answers all the same."""
    found = {}
    for model in models:
        try:
            bundle = Bundle.load(Path(model.path), version=model.tag.version)
        except BundleError as error:
            logger.error("the challenger %s is left out: %s", model.tag, error)
            continue
        found[bundle.domain] = bundle
    return found


def _median_features(bundle: Bundle, folder: Path) -> dict[str, float | None]:
    """The median of each feature over the golden rows; None where it is missing in all of them."""
    rows = json.loads((folder / GOLDEN).read_bytes())["rows"]
    known = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]
    return {
        feature.name: float(f"{median(values):.4g}") if values else None for feature, values in zip(bundle.features, known, strict=True)
    }
