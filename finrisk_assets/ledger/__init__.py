"""The canonical tables: how sources land, and how valid rows part from quarantined ones."""
