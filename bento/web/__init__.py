"""The HTTP edge: envelope, middleware, metrics, health, look-ups and the API's pages."""
