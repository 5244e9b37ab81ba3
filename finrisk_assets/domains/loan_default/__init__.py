"""Will a loan default within its horizon? See README.md."""
