"""Is a transaction out of the ordinary? See README.md."""
