"""A scoring service as most are written: FastAPI, a pickled scikit-learn model, SHAP, and a row committed through SQLAlchemy's ORM.

The explainer is built once. It gets features ready made, where ours computes them from the history, and gives no reasons and no audit.
`make` fits and pickles its model; serve it with PLAIN_MODEL and PLAIN_STORE set:
``uvicorn benchmarks.peers.plain_fastapi:app --loop uvloop --http httptools --no-access-log``.
"""

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import joblib
import numpy as np
import pandas as pd
import shap
from fastapi import Depends, FastAPI
from numpy.typing import NDArray
from pydantic import BaseModel
from sklearn.ensemble import IsolationForest
from sqlalchemy import JSON, create_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


def make(file: Path, names: list[str], rows: NDArray[np.float32]) -> None:
    """Fit an isolation forest of 100 trees and pickle it; what is missing is 0."""
    model = IsolationForest(n_estimators=100, max_samples=256, random_state=0)
    model.fit(pd.DataFrame(np.nan_to_num(rows), columns=names))
    joblib.dump(model, file)


class Base(DeclarativeBase):
    pass


class Decision(Base):
    __tablename__ = "decisions"

    id: Mapped[int] = mapped_column(primary_key=True)
    decided_at: Mapped[datetime]
    score: Mapped[float]
    anomaly: Mapped[bool]
    features: Mapped[dict[str, Any]] = mapped_column(JSON)
    contributions: Mapped[dict[str, Any]] = mapped_column(JSON)


class ScoringRequest(BaseModel):
    features: dict[str, float]


class Answer(BaseModel):
    score: float
    anomaly: bool
    contributions: dict[str, float]


def application(model_file: str, store: str) -> FastAPI:
    """The service of a pickled model and the database that it writes to."""
    model = joblib.load(model_file)  # written by `make` a moment ago
    explainer = shap.TreeExplainer(model)
    engine = create_engine(store, connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    app = FastAPI()

    def session() -> Iterator[Session]:
        with Session(engine) as open_store:
            yield open_store

    @app.post("/score")
    def score(request: ScoringRequest, session: Annotated[Session, Depends(session)]) -> Answer:
        frame = pd.DataFrame([request.features])[list(model.feature_names_in_)]
        value = float(model.decision_function(frame)[0])
        contributions = dict(zip(frame.columns, explainer.shap_values(frame)[0].tolist(), strict=True))
        answer = Answer(score=value, anomaly=value < 0, contributions=contributions)
        session.add(
            Decision(
                decided_at=datetime.now(UTC),
                score=answer.score,
                anomaly=answer.anomaly,
                features=request.features,
                contributions=contributions,
            )
        )
        session.commit()
        return answer

    return app


if "PLAIN_MODEL" in os.environ:  # not where `make` alone is wanted
    app = application(os.environ["PLAIN_MODEL"], os.environ["PLAIN_STORE"])
