"""A model's life, told on the real graph: the first champion, a challenger refused by each demand, a better one, and the way back."""

from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
import pytest
import yaml

from benchmarks.gates import PLANTED, Outcome, Story, few, honest, small
from finrisk_assets.domains.loan_default.definition import LOAN_DEFAULT
from finrisk_assets.graph.build import build_resources
from finrisk_assets.graph.stages.champion import read_champion_figures
from finrisk_assets.graph.stages.common import champion_folder
from finrisk_assets.modelling.training import gate_verdict, model_registry

pytestmark = pytest.mark.slow

CHECKS = {"golden rows": "model_loan_default_contract", "leakage": "model_loan_default_leakage"}
"""Demands that are checks of their own; all others are the gate's."""


@dataclass(frozen=True)
class Told:
    """The story, and what stood after each of its chapters."""

    story: Story
    after: dict[str, Outcome]

    def bundle(self, version: str) -> str:
        """The bundle of a registered version."""
        client = build_resources(self.story.settings)["tracking"].client()
        found = client.get_model_version(model_registry.model_name("loan_default"), version)
        return str(found.tags["bundle"])

    def packed(self, bento: str) -> list[str]:
        """The models that a Bento carries."""
        folder = self.story.settings.bentoml_home / "bentos" / "finrisk" / bento
        info = yaml.safe_load((folder / "bento.yaml").read_text())
        return [model["tag"] for service in info["services"] for model in service["models"]]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    with dg.DagsterInstance.ephemeral() as instance:
        story = Story(small(tmp_path_factory.mktemp("story")), instance)
        after = {"first": story.begin(few)}
        after |= {demand: story.challenge(train, **how) for demand, (_, train, how) in PLANTED.items()}
        after["better"] = story.challenge(honest)
        after["back"] = story.roll_back("complaints")
        after["again"] = story.challenge(honest)
        yield Told(story, after)


def test_the_first_champion_decides(told: Told) -> None:
    first = told.after["first"]
    assert first.gate == gate_verdict.PASSED
    assert first.champion == first.challenger == "1"
    assert told.packed(first.bento) == [f"finrisk-loan-default:{told.bundle('1')}"]


@pytest.mark.parametrize("demand", PLANTED)
def test_a_challenger_that_fails_a_demand_is_refused(told: Told, demand: str) -> None:
    outcome, first = told.after[demand], told.after["first"]
    assert outcome.challenger != first.challenger, "it was registered"
    if demand in CHECKS:
        assert CHECKS[demand] in outcome.failed
        assert outcome.gate != gate_verdict.PASSED
    else:
        assert demand in outcome.gate.split(", ")
        assert "model_loan_default_gate" in outcome.failed
    assert (outcome.champion, outcome.bento) == (first.champion, first.bento), "who decides has not changed"


def test_a_higher_auc_does_not_buy_a_lower_profit(told: Told) -> None:
    """The challenger planted against profit ranks better than the champion, and is refused all the same."""
    assert "discrimination" not in told.after["profit"].gate
    client = build_resources(told.story.settings)["tracking"].client()
    run = client.get_run(client.get_model_version(model_registry.model_name("loan_default"), told.after["profit"].challenger).run_id)
    assert run.data.metrics["test_auc_beside_champion"] > 0
    assert run.data.metrics["test_gain_beside_champion"] < 0


def test_a_better_one_is_promoted_and_packed(told: Told) -> None:
    better, first = told.after["better"], told.after["first"]
    assert better.gate == gate_verdict.PASSED
    assert better.champion == better.challenger != first.champion
    assert better.bento != first.bento
    assert told.packed(better.bento) == [f"finrisk-loan-default:{told.bundle(better.champion)}"]


def test_rolling_back_restores_champion_and_bento(told: Told) -> None:
    back, first = told.after["back"], told.after["first"]
    assert (back.champion, back.bento) == (first.champion, first.bento)
    assert back.gate == gate_verdict.STANDING, "the champion materialised alone does not bring it back"


def test_what_was_rolled_back_does_not_come_back(told: Told) -> None:
    """The next training gives the same bundle, whose figures are as good as ever."""
    again, better = told.after["again"], told.after["better"]
    assert again.challenger == better.challenger
    assert again.gate == "standing"
    assert again.champion == told.after["first"].champion


def test_a_champion_keeps_its_own_figures(told: Told) -> None:
    """The evaluation's table is of the newest challenger; the champion's figures are those by which it was judged."""
    kept = {figure["metric"]: figure["value"] for figure in read_champion_figures(LOAN_DEFAULT, told.story.settings)}
    client = build_resources(told.story.settings)["tracking"].client()
    run = client.get_run(client.get_model_version(model_registry.model_name("loan_default"), "1").run_id)
    assert kept["auc"] == run.data.metrics["test_auc"]
    assert (champion_folder(LOAN_DEFAULT, told.story.settings) / "bundle.json").is_file()
