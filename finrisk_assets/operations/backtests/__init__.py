"""Looking back: what rules and capacities would have done to the payments of past months."""
