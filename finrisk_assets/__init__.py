"""Everything that runs to make models. Importing this package alone imports nothing heavy."""
