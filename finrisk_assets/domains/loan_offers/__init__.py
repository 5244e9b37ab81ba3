"""The domain of loan offers: the most profitable offer, if any is worth making. See README.md."""
