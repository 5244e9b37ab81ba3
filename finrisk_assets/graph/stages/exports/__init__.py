"""Assets that write files for other programs."""
