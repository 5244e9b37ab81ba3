"""Will next month close above this one, and by how much? See README.md."""
