"""A scoring bundle as an MLflow model from code, without a pickle; MLflow runs this file when it loads the model."""

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd

from finrisk_assets.modelling.training.candidates import to_matrix
from finrisk_assets.scoring.bundle import Bundle


class BundleModel(mlflow.pyfunc.PythonModel):
    """A model that scores a frame whose columns are the bundle's features."""

    def load_context(self, context: mlflow.pyfunc.PythonModelContext) -> None:
        self._bundle = Bundle.load(Path(context.artifacts["bundle"]))

    def predict(
        self, context: mlflow.pyfunc.PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        scores = self._bundle.score(to_matrix(model_input, self._bundle.features))
        return pd.DataFrame({"margin": scores.margin, "probability": scores.probability}, index=model_input.index)


mlflow.models.set_model(BundleModel())
