"""Access control: API keys, tokens, roles, rate limits and the bind guard."""
