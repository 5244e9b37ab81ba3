"""Will a person run into trouble with their spending? See README.md."""
