"""Everything that runs to answer. It never imports Dagster, MLflow, Ibis, pandas or scikit-learn: the container stays small."""

import gc

COLLECTED_AFTER = 20_000
"""New objects between two collections; by default 700, which a batch makes for every few items, and none of them is garbage yet.

It stands here because it is read before anything else: with the default, a seventh of the time in which a process starts goes into looking
for garbage among the modules and the models that it loads.
"""
gc.set_threshold(COLLECTED_AFTER)
