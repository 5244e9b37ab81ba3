"""Documents about one model: the model card and the validation pack."""
