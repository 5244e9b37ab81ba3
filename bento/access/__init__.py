"""Access control: API keys, bearer tokens, roles, rate limits and the bind guard."""
