"""The service. It never imports Dagster, MLflow, Ibis, pandas or scikit-learn: the container stays small."""
