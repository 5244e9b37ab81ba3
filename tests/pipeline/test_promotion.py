"""Tests of promotion on the real graph: first champion, challengers refused by each demand, a better challenger, and rollback."""

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
class PromotionStory:
    """The story, and what stood after each of its chapters."""

    story: Story
    after: dict[str, Outcome]

    def bundle(self, version: str) -> str:
        """Return the bundle of a registered version."""
        client = build_resources(self.story.settings)["tracking"].client()
        version_info = client.get_model_version(model_registry.model_name("loan_default"), version)
        return str(version_info.tags["bundle"])

    def packed(self, bento: str) -> list[str]:
        """Return the models that a Bento carries."""
        folder = self.story.settings.bentoml_home / "bentos" / "finrisk" / bento
        info = yaml.safe_load((folder / "bento.yaml").read_text())
        return [model["tag"] for service in info["services"] for model in service["models"]]


@pytest.fixture(scope="module")
def promotion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PromotionStory]:
    with dg.DagsterInstance.ephemeral() as instance:
        story = Story(small(tmp_path_factory.mktemp("story")), instance)
        after = {"first": story.begin(few)}
        after |= {demand: story.challenge(train, **how) for demand, (_, train, how) in PLANTED.items()}
        after["better"] = story.challenge(honest)
        after["back"] = story.roll_back("complaints")
        after["again"] = story.challenge(honest)
        yield PromotionStory(story, after)


def test_the_first_champion_decides(promotion: PromotionStory) -> None:
    first = promotion.after["first"]
    assert first.gate == gate_verdict.PASSED
    assert first.champion == first.challenger == "1"
    assert promotion.packed(first.bento) == [f"finrisk-loan-default:{promotion.bundle('1')}"]


@pytest.mark.parametrize("demand", PLANTED)
def test_a_challenger_that_fails_a_demand_is_refused(promotion: PromotionStory, demand: str) -> None:
    outcome, first = promotion.after[demand], promotion.after["first"]
    assert outcome.challenger != first.challenger, "it was registered"
    if demand in CHECKS:
        assert CHECKS[demand] in outcome.failed
        assert outcome.gate != gate_verdict.PASSED
    else:
        assert demand in outcome.gate.split(", ")
        assert "model_loan_default_gate" in outcome.failed
    assert (outcome.champion, outcome.bento) == (first.champion, first.bento), "who decides has not changed"


def test_a_higher_auc_does_not_buy_a_lower_profit(promotion: PromotionStory) -> None:
    """The challenger planted against profit ranks better than the champion, and is refused all the same."""
    assert "discrimination" not in promotion.after["profit"].gate
    client = build_resources(promotion.story.settings)["tracking"].client()
    run = client.get_run(client.get_model_version(model_registry.model_name("loan_default"), promotion.after["profit"].challenger).run_id)
    assert run.data.metrics["test_auc_beside_champion"] > 0
    assert run.data.metrics["test_gain_beside_champion"] < 0


def test_a_better_one_is_promoted_and_packed(promotion: PromotionStory) -> None:
    better, first = promotion.after["better"], promotion.after["first"]
    assert better.gate == gate_verdict.PASSED
    assert better.champion == better.challenger != first.champion
    assert better.bento != first.bento
    assert promotion.packed(better.bento) == [f"finrisk-loan-default:{promotion.bundle(better.champion)}"]


def test_rolling_back_restores_champion_and_bento(promotion: PromotionStory) -> None:
    back, first = promotion.after["back"], promotion.after["first"]
    assert (back.champion, back.bento) == (first.champion, first.bento)
    assert back.gate == gate_verdict.STANDING, "the champion materialised alone does not bring it back"


def test_what_was_rolled_back_does_not_come_back(promotion: PromotionStory) -> None:
    """The next training gives the same bundle, whose figures are unchanged."""
    again, better = promotion.after["again"], promotion.after["better"]
    assert again.challenger == better.challenger
    assert again.gate == "standing"
    assert again.champion == promotion.after["first"].champion


def test_a_champion_keeps_its_own_figures(promotion: PromotionStory) -> None:
    """The evaluation's table is of the newest challenger; the champion's figures are those by which it was judged."""
    figures = {figure["metric"]: figure["value"] for figure in read_champion_figures(LOAN_DEFAULT, promotion.story.settings)}
    client = build_resources(promotion.story.settings)["tracking"].client()
    run = client.get_run(client.get_model_version(model_registry.model_name("loan_default"), "1").run_id)
    assert figures["auc"] == run.data.metrics["test_auc"]
    assert (champion_folder(LOAN_DEFAULT, promotion.story.settings) / "bundle.json").is_file()
