"""From a feature table to a registered bundle: split, candidates, calibration, scorecard, registry."""
