"""The model and its recipes."""
