"""Loans and offers of the simulated economy, and what becomes of them month by month."""
