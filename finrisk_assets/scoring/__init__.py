"""The scoring bundle and its explanations, shared by both halves. Imports numpy and the vocabulary only."""
