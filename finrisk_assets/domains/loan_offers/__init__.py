"""Which loan offer, if any, is worth making? See README.md."""
