"""The look of the API page."""
