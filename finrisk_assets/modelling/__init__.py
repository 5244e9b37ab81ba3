"""The parts that every model needs: split, calibration, evaluation, explanation, the scoring bundle and the registry."""
