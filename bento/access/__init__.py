"""Who may call which route, how often, and from where."""
