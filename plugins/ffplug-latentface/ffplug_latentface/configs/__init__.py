"""The models and their recipes."""
