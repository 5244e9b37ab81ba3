"""The marts: tables for reports and other tools, as files with a data dictionary."""
