"""What a model shows on rows it was not trained on: metrics, fairness, leakage, explanations and plots."""
