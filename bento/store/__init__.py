"""The service's database: decisions, transactions, snapshots, people's keys and the audit chain."""
