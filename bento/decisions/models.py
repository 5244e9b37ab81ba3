"""The models of a process: those packed into its Bento or, where the service runs from source, the newest in BentoML's model store.

`finrisk_assets.graph.packaging` stores one BentoML model per domain, whose files are a scoring bundle. A Bento names its models by tag, so
it answers with the same models wherever it runs. A domain that the source lacks has no model; the metadata of the other models says why.
A challenger may be packed beside its champion, whose metadata names it; a challenger never answers (see `shadow`).
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, mode
from typing import Any

from bentoml.exceptions import BentoMLException, NotFound

from bento.decisions.domains import DOMAINS
from finrisk_assets.policy.document import Policy
from finrisk_assets.policy.policy_file import PolicyError, default_policy, parse_policy, read_policy
from finrisk_assets.scoring.bundle import Bundle
from finrisk_assets.scoring.bundle_io import GOLDEN
from finrisk_assets.scoring.reasons import name_level
from finrisk_assets.scoring.spec import BundleError
from schemas.features import Feature

logger = logging.getLogger("finrisk.service")

CHALLENGER_SUFFIX = "-challenger"
"""End of the name of a challenger's model."""

POLICY_METADATA = "policy_json"
"""Name of the metadata that holds the policy in effect when the models were packed."""


class NoChampions(BentoMLException):
    """A model store without champions, or with champions of different sources."""


class ModelRejected(BentoMLException):
    """A model that must not be used; the message names its tag and its fault."""


class PolicyRejected(BentoMLException):
    """A policy that must not be used; the message names its file, line and key."""


@dataclass(frozen=True)
class Champions:
    """The loaded bundles of the champions and challengers, and their metadata.

    Attributes
    ----------
    bundles
        Domain to the champion's bundle.
    source
        The source of the ledger that all models were trained on.
    absent
        Domain to the reason why it has no model.
    figures
        Domain to its model's measured figures, as `finrisk_assets.graph.packaging` stored them.
    typical_features
        Domain to a row that belongs to no person: each feature's median over the bundle's golden rows. Example requests use them.
    policy
        The policy that they decide under.
    challengers
        Domain to the challenger's bundle, where a challenger was packed.
    folders
        Domain to the folder of the champion's bundle.
    origins
        Domain to the champion's version in the registry, and its run and experiment in MLflow, where they are known.
    """

    bundles: Mapping[str, Bundle]
    source: str
    absent: Mapping[str, str]
    figures: Mapping[str, Sequence[Mapping[str, Any]]]
    typical_features: Mapping[str, Mapping[str, float | str | None]]
    challengers: Mapping[str, Bundle] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)
    policy: Policy = field(default_factory=default_policy)
    origins: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def why_absent(self, domain: str) -> str:
        """Return one sentence for the client that asked for a domain without a model."""
        reason = self.absent.get(domain, "the source has no data for it")
        return f"This Bento carries no {domain.replace('_', '-')} model: it was built from the source {self.source!r}; {reason}."


def find_newest_models() -> list[Any]:
    """Return the newest model of every domain in BentoML's model store, and the challenger that it names, as BentoML models.

    Raises
    ------
    NoChampions
        Where the store has no model of the service.
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
        challenger = champion.info.metadata.get("challenger")
        models += [bentoml.models.get(challenger)] if challenger else []
    if not models:
        raise NoChampions(
            f"no finrisk model in the model store of BENTOML_HOME={BentoMLContainer.bentoml_home.get()}: "
            "materialise the asset `bento` first, then set BENTOML_HOME to FINRISK_HOME/<source>/bentoml"
        )
    return models


def load_champions(bento: Any | None, policy_file: Path | None = None) -> Champions:
    """Load and check the models of a Bento or, without one, of the model store, and the policy that they decide under.

    Parameters
    ----------
    policy_file
        The policy; None for the one that was packed with the models.

    Raises
    ------
    NoChampions
        Where there are no models, or they come from different sources.
    ModelRejected
        Where a file was changed since the training, or a golden row gets another score.
    PolicyRejected
        Where the policy cannot be used.
    """
    import bentoml

    packed = find_newest_models() if bento is None else [bentoml.models.get(info.tag) for info in bento.info.all_models]
    models = [model for model in packed if not model.tag.name.endswith(CHALLENGER_SUFFIX)]
    loaded = [_load_bundle(model) for model in models]
    sources = sorted({bundle.source for bundle in loaded})
    if len(sources) != 1:
        raise NoChampions(f"one service answers for one source; these models come from {sources}")
    policy = _load_policy(models, policy_file)
    plain = {bundle.domain: bundle for bundle in loaded}
    bundles = {domain: bundle.under(policy, _companions(plain, domain)) for domain, bundle in plain.items()}
    challengers = _load_challengers([model for model in packed if model.tag.name.endswith(CHALLENGER_SUFFIX)])
    reasons = {domain: reason for model in models for domain, reason in model.info.metadata.get("absent", {}).items()}
    return Champions(
        bundles=bundles,
        source=sources[0],
        absent={domain: reasons[domain] for domain in reasons.keys() - bundles.keys()},
        figures={
            bundle.domain: json.loads(model.info.metadata.get("figures_json", "[]")) for bundle, model in zip(loaded, models, strict=True)
        },
        typical_features={bundle.domain: _typical_features(bundle, Path(model.path)) for bundle, model in zip(loaded, models, strict=True)},
        challengers={domain: bundle.under(policy, _companions(plain, domain)) for domain, bundle in challengers.items()},
        folders={bundle.domain: Path(model.path) for bundle, model in zip(loaded, models, strict=True)},
        policy=policy,
        origins={bundle.domain: model.info.metadata.get("origin", {}) for bundle, model in zip(loaded, models, strict=True)},
    )


def _load_bundle(model: Any) -> Bundle:
    """Return the bundle of a BentoML model, with every hash and every golden row checked."""
    try:
        return Bundle.load(Path(model.path), version=model.tag.version)
    except BundleError as error:
        raise ModelRejected(f"the model {model.tag} is refused: {error}") from error


def _companions(bundles: Mapping[str, Bundle], domain: str) -> dict[str, Bundle]:
    """Return the champions of other domains that a domain's decisions ask too."""
    return {name: bundles[name] for name in DOMAINS[domain].companions if name in bundles}


def _load_policy(models: Sequence[Any], file: Path | None) -> Policy:
    """Return the policy of a file, else the one that was packed with the models, else the shipped one."""
    packed = next((text for model in models if (text := model.info.metadata.get(POLICY_METADATA))), None)
    try:
        if file is not None:
            return read_policy(file)
        return default_policy() if packed is None else parse_policy(packed, "the Bento's policy")
    except PolicyError as error:
        raise PolicyRejected(str(error)) from None


def _load_challengers(models: Sequence[Any]) -> dict[str, Bundle]:
    """Return the bundles of the challengers; a challenger that cannot be loaded is logged and left out, its champion still answers."""
    bundles = {}
    for model in models:
        try:
            bundle = Bundle.load(Path(model.path), version=model.tag.version)
        except BundleError as error:
            logger.error("the challenger %s is left out: %s", model.tag, error)
            continue
        bundles[bundle.domain] = bundle
    return bundles


def _typical_features(bundle: Bundle, folder: Path) -> dict[str, float | str | None]:
    """Return the median of each feature over the golden rows, of a category the commonest level; None where all rows lack the feature."""
    rows = json.loads((folder / GOLDEN).read_bytes())["rows"]
    columns = [[value for value in column if value is not None] for column in zip(*rows, strict=True)]

    def typical(feature: Feature, values: list[float]) -> float | str | None:
        if not values:
            return None
        return name_level(feature, mode(values)) if feature.is_category else float(f"{median(values):.4g}")

    return {feature.name: typical(feature, values) for feature, values in zip(bundle.features, columns, strict=True)}
