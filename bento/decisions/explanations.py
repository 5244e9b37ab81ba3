"""The part of an answer that explains the score: every feature's contribution, and the reasons in words.

What all answers of a bundle share is prepared once. `finrisk_assets.scoring.reasons` ranks the factors.
"""

import math
from typing import Any

import numpy as np
from pydantic_core import to_json

from finrisk_assets.scoring.bundle import Bundle, Doubt, Scores
from finrisk_assets.scoring.reasons import (
    MAX_REASONS,
    Direction,
    FactorWords,
    factor_code,
    list_members,
    name_level,
    rank_factors,
)
from finrisk_assets.scoring.spec import Rows
from schemas.api import EncodedContributions, Explanation, ModelVersion, Reason

TOO_LITTLE_KNOWN = "TOO_LITTLE_KNOWN"
"""The code of the reason that a decision would be a guess."""


class Explainer:
    """The explanations of one bundle's scores.

    Parameters
    ----------
    bundle
        The model.

    Attributes
    ----------
    model
        The name and version of the bundle's model.
    policy_version
        The version of the policy that the bundle decides under.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.model = ModelVersion(name=bundle.name, version=bundle.version)
        self.policy_version = bundle.policy.version
        self._bundle = bundle
        self._factors = bundle.factors
        self._reference = None if bundle.reference is None else np.asarray(bundle.reference, np.float64)
        # The texts around two numbers for each feature: the numbers alone are encoded for an answer.
        self._texts = [b""] * (4 * len(bundle.features) + 1)
        self._texts[::4] = [b'},{"feature":%s,"unit":%s,"value":' % (to_json(f.name), to_json(f.unit)) for f in bundle.features] + [b"}]"]
        self._texts[2::4] = [b',"contribution":'] * len(bundle.features)
        self._texts[0] = self._texts[0].replace(b"},", b"[", 1)
        self._categories = [(column, feature) for column, feature in enumerate(bundle.features) if feature.is_category]
        self._features, self._words = bundle.features, FactorWords(bundle.features, bundle.values, bundle.reference_group)
        self._codes = [factor_code(feature) for feature in bundle.features]
        self._members = [list(list_members(bundle.features, self._factors, column)) for column in range(len(bundle.features))]

    def fields(self, row: Rows, scores: Scores, *, high: bool, refused: bool = False) -> dict[str, Any]:
        """Return the fields of an answer that every domain has: the score of one row, its explanation, its reasons and the model.

        Parameters
        ----------
        row
            The model's row, float32 of shape (d,).
        scores
            The scores of this row.
        high, refused
            As of `find_reasons`.

        Raises
        ------
        ValueError
            If a contribution is not a finite number.
        """
        doubt = scores.doubts[0]
        doubts = [] if doubt is None else [self._word_doubt(doubt)]
        return {
            "score": float(scores.margin[0]),
            "explanation": self.explain(row, scores),
            "reasons": [*doubts, *self.find_reasons(row, scores, high=high, refused=refused)][:MAX_REASONS],
            "model": self.model,
            "policy_version": self.policy_version,
        }

    def explain(self, row: Rows, scores: Scores) -> Explanation:
        """Return every feature's contribution to the score of one row; parameters and errors as of `fields`."""
        contributions = scores.contributions[0].tolist()
        if not math.isfinite(sum(contributions, scores.base)):
            raise ValueError(f"{self.model.name} {self.model.version}: a contribution is not a finite number")
        numbers = [0.0] * (2 * len(contributions))
        numbers[::2], numbers[1::2] = row.tolist(), contributions
        # A value that is missing, NaN, is null.
        pieces = self._texts.copy()
        pieces[1::2] = to_json(numbers, inf_nan_mode="null")[1:-1].split(b",")
        for column, feature in self._categories:
            pieces[4 * column + 1] = to_json(name_level(feature, float(row[column])))
        return Explanation.model_construct(base=scores.base, contributions=EncodedContributions(b"".join(pieces)))

    def find_reasons(self, row: Rows, scores: Scores, *, high: bool, refused: bool = False) -> list[Reason]:
        """Return the factors that moved the score of one row most: up where the decision says that the score is high, else down.

        A refused applicant is compared with applicants who were just approved, where the bundle has this reference: a comparison with
        the average would name features that most applicants share.
        """
        contributions = scores.contributions[0]
        moves = contributions - self._reference if refused and self._reference is not None else contributions
        direction: Direction = "raises" if high else "lowers"
        movements, values = moves.tolist(), row.tolist()
        factors = rank_factors(movements, self._factors, direction)
        reasons = (self._word_reason(column, movements, values, direction) for column, _ in factors)
        return [reason for reason in reasons if reason.text]

    def _word_doubt(self, doubt: Doubt) -> Reason:
        """Return the reason that too little is known, which is the first of all reasons."""
        names = [self._features[column].name for column in doubt.columns]
        return Reason.model_construct(code=TOO_LITTLE_KNOWN, feature=names[0], features=names, text=doubt.text)

    def _word_reason(self, column: int, moves: list[float], row: list[float], direction: Direction) -> Reason:
        members = self._factors[self._features[column].factor]
        speaker, text = self._words.word_factor(members, moves, row, direction)
        feature = self._features[speaker].name
        return Reason.model_construct(code=self._codes[column], feature=feature, features=self._members[column], text=text)
