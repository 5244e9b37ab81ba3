"""Files that are not described yet: their layout, the formats of their cells, and a proposal of the mapping."""
