"""The vocabulary of both halves: ledger tables, features and the API's models. Imports neither half."""
