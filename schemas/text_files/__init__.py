"""Text files as banks and lenders write them: their layout, the formats of their cells, the roles of their columns, and OFX."""
