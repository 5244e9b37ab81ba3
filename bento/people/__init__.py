"""Rights of people over their data, retention and backups."""
