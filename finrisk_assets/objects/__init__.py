"""Objects in buckets: their addresses, reads and writes that are whole or do not happen, and sets of files with a manifest."""
