"""Models with an iteration policy, and the recipes that train it."""
