"""The console: pages on which people look at alerts, persons, loans, models, the policy and the audit, through the public API alone."""
