"""Networks; each file holds one ``model``."""
