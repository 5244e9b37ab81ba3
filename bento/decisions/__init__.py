"""From a request to a recorded decision, and what is done with decisions later."""
