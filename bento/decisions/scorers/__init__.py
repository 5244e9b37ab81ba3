"""One scorer for each domain: from a request to the model's row, and from scores to the answer."""
