"""The five decisions, a folder each, and what they share. The container imports this package: the front stays empty."""
