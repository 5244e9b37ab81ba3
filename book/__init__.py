"""The book: the repository's own pages with a navigation for each reader, their generated references and their pictures."""
