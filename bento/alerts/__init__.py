"""Alerts: the reviewed and blocked transactions that analysts claim, look into and close with a disposition."""
