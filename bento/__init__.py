"""Everything that runs to answer. It never imports Dagster, MLflow, Ibis, pandas or scikit-learn: the container stays small."""
