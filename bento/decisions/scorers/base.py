"""The base of every domain's scorer: prepare a request for the model, and build the answer from the scores."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from bento.decisions.answers import ScoringInput, score
from bento.decisions.explanations import Explainer
from bento.store.records import DecisionPayload, FeatureSnapshot
from bento.store.session import Store
from finrisk_assets.scoring.bundle import Bundle, Scores
from finrisk_assets.scoring.spec import Rows
from schemas.api import Answer


class Scorer(ABC):
    """The scorer of one bundle of a domain.

    Parameters
    ----------
    bundle
        The model.
    store
        The store that holds the histories and the feature snapshots.
    """

    def __init__(self, bundle: Bundle, store: Store) -> None:
        self.bundle = bundle
        self.explainer = Explainer(bundle)
        self._store = store

    def warm_up(self) -> None:
        """Score one row, so that the first request does not wait for one-time work."""
        self.bundle.score(np.ones((1, len(self.bundle.features)), np.float32))

    @abstractmethod
    def prepare(self, request: Any) -> ScoringInput:
        """Look up and check everything that the model needs to score a request.

        Raises
        ------
        bento.problems.Problem
            For a request that cannot be scored.
        """

    @abstractmethod
    def build_answer(self, scoring_input: ScoringInput, scores: Scores) -> Answer:
        """Build the answer to a request from the scores of its row."""

    def restore(self, request: Any, row: Rows, snapshot: FeatureSnapshot | None, context: Any) -> ScoringInput:
        """Rebuild the scoring input of `prepare` from what was stored with a decision."""
        return ScoringInput(request, row, snapshot, context)

    def renew(self, payload: DecisionPayload) -> DecisionPayload:
        """Return a stored decision with what this scorer's policy has to know beside the row; as it was stored where it knows the same."""
        return payload

    def answer(self, request: Any) -> Answer:
        """Answer a request without recording a decision; raises as `prepare` does."""
        scoring_input = self.prepare(request)
        return self.build_answer(scoring_input, score(self.bundle, scoring_input.row))
