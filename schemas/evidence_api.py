"""The answer of the route that shows a model's evidence: curves, groups and distributions of its test window, and its newest drift report.

The rules of `schemas.api` hold here too. Everything is aggregated: nothing is about a person.
"""

from pydantic import Field

from schemas.api import Answer, Utc


class PlotPoint(Answer):
    """A point of a curve."""

    x: float
    y: float


class CalibrationGroup(Answer):
    """Rows of similar probability: what the model said, and what came out."""

    predicted: float = Field(description="Mean probability.")
    observed: float = Field(description="Share of rows with the outcome.")
    low: float = Field(description="Lower bound of its 95 % Jeffreys interval.")
    high: float
    rows: int


class ScoreShare(Answer):
    """The share of the test window's rows whose probability lies in one twentieth of the range."""

    low: float
    high: float
    share: float


class EffectGroup(Answer):
    """The contributions of one feature, of rows with similar values."""

    values: str = Field(description="`low`, `middle` or `high` third of the known values, or `missing`.", examples=["high"])
    rows: int
    low: float = Field(description="10 % quantile of the contributions, in units of the score.")
    middle: float = Field(description="Their median.")
    high: float = Field(description="Their 90 % quantile.")


class FeatureEffect(Answer):
    """The effect of a feature on the score, over a sample of the test window."""

    feature: str
    mean_absolute: float = Field(description="Mean size of its contribution, in units of the score.")
    groups: list[EffectGroup] = Field(description="A group of fewer than ten rows is withheld.")


class NamedFigure(Answer):
    """A figure with its 95 % interval, where it has one."""

    metric: str
    value: float
    low: float | None = None
    high: float | None = None
    meaning: str = ""


class CandidateFigures(Answer):
    """A model that was tried, and its figures on the validation window."""

    model: str
    is_chosen: bool
    figures: dict[str, float]


class ScorecardLine(Answer):
    """A bin of a scorecard, and its points: more points mean less risk."""

    feature: str
    bin: str = Field(examples=["below 0.25"])
    points: int
    weight_of_evidence: float = Field(description="ln(share of goods / share of bads).")
    share: float = Field(description="Share of the training rows.")
    event_rate: float | None = Field(description="Observed rate; null for a bin of fewer than ten training rows.")


class PointsCard(Answer):
    """The scorecard that was trained beside the other candidates: base points, and a table of points."""

    base_points: int
    lines: list[ScorecardLine]


class ChallengerEvidence(Answer):
    """Curves and figures of a challenger on its test window."""

    version: str
    roc: list[PlotPoint]
    precision_recall: list[PlotPoint]
    figures: list[NamedFigure]


class DriftedColumn(Answer):
    """The movement of the score or of a feature."""

    column: str
    psi: float = Field(description="Population stability index.")
    psi_limit: float | None = Field(description="What it stays below in 95 % of windows in which nothing moves.")
    p_value: float | None = Field(description="Adjusted for all columns that were tested.")
    moved: str


class DriftVerdict(Answer):
    """The verdict of the newest monitoring of the champion."""

    champion: str = Field(description="Version of the monitored model.")
    window: str = Field(description="The months that were compared with training.", examples=["2024-05 to 2024-06"])
    as_of: Utc
    verdict: str
    is_confirmed: bool = Field(description="Whether drift is confirmed, so that a new model is to be trained.")


class DriftReport(DriftVerdict):
    """The newest monitoring of the champion: whether its features and its score moved since training."""

    columns: list[DriftedColumn] = Field(description="The score, and the features by falling movement; at most 60.")


class ModelOrigin(Answer):
    """The champion's place in MLflow, for links."""

    registry_version: str
    run_id: str
    experiment_id: str


class ModelEvidence(Answer):
    """The aggregated figures of a champion on its frozen test window. An empty list means that no such figure was measured."""

    domain: str
    version: str
    rows: int | None = Field(description="Rows of the test window; null where the model was packed without evidence.")
    events: int | None = Field(description="Rows with the outcome; null without labels.")
    roc: list[PlotPoint] = Field(description="x: share of the others that are caught too; y: share of the events that are caught.")
    precision_recall: list[PlotPoint] = Field(description="x: recall; y: precision.")
    calibration: list[CalibrationGroup]
    scores: list[ScoreShare]
    effects: list[FeatureEffect]
    fairness: list[NamedFigure]
    candidates: list[CandidateFigures]
    scorecard: PointsCard | None
    challenger: ChallengerEvidence | None
    drift: DriftReport | None = Field(description="Null where FINRISK_REPORTS names no folder, or the model was not monitored yet.")
    origin: ModelOrigin | None
