"""Bank statements: files of common layouts, read as movements of money."""
