"""The gate's verdict on a registered version, kept as MLflow tags of that version.

The stage `evaluation` and the leakage check each write their part, the stage `champion` reads the whole. Only this module writes and
reads these tags; `finrisk_assets.domains.gate` judges the demands.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

GATE_TAG, LEAKS_TAG, ROLLED_BACK_TAG = "gate", "leaks", "rolled_back"
"""Names of the tags: ``passed`` or the demands that are not met; the columns that leak; the reason of a rollback."""

PASSED, STANDING = "passed", "standing"
"""Values of `GATE_TAG`: every demand is met; the version was rolled back. `STANDING` is a demand of the gate."""


@dataclass(frozen=True)
class GateVerdict:
    """The verdict on one version.

    Attributes
    ----------
    gate
        ``passed``, or the names of the demands that are not met, with commas between; None before the evaluation.
    leaks
        The columns that leak into the model, with commas between; empty where none does.
    rolled_back
        The reason for which the version was rolled back; None where it was not.
    """

    gate: str | None = None
    leaks: str = ""
    rolled_back: str | None = None

    @property
    def is_passed(self) -> bool:
        """True if the version may become champion."""
        return self.gate == PASSED and not self.leaks

    def refusal(self, domain: str) -> str:
        """Return why the version of a domain's model may not become champion, and what to check; empty where it may."""
        if self.leaks:
            return f"leakage: {self.leaks}; the check model_{domain}_leakage says what to do"
        if self.gate is None:
            return f"not judged: materialise evaluation_{domain} first"
        return "" if self.gate == PASSED else self.gate


def read_verdict(tags: Mapping[str, str]) -> GateVerdict:
    """Return the verdict that the tags of a version hold."""
    return GateVerdict(tags.get(GATE_TAG), tags.get(LEAKS_TAG, ""), tags.get(ROLLED_BACK_TAG))


def record_evaluation(client: Any, name: str, version: str, unmet_demands: Iterable[str]) -> None:
    """Tag a version with the demands that it does not meet, each once, or with ``passed``.

    Parameters
    ----------
    client
        MLflow's client.
    name, version
        The registered name and the registry's number.
    unmet_demands
        Names of the demands, as in `finrisk_assets.domains.gate.DEMANDS`.
    """
    client.set_model_version_tag(name, version, GATE_TAG, ", ".join(dict.fromkeys(unmet_demands)) or PASSED)


def record_leaks(client: Any, name: str, version: str, columns: Iterable[str]) -> None:
    """Tag a version with the columns that leak into it, each once; an empty list clears an earlier finding."""
    client.set_model_version_tag(name, version, LEAKS_TAG, ", ".join(dict.fromkeys(columns)))


def record_rollback(client: Any, name: str, version: str, reason: str) -> None:
    """Tag a version with the reason of its rollback, and take its passed gate back."""
    client.set_model_version_tag(name, version, ROLLED_BACK_TAG, reason)
    # The version is still the challenger: its old verdict would let it back where the champion is materialised alone.
    client.set_model_version_tag(name, version, GATE_TAG, STANDING)
