"""A small plugin that the tests of the engine train in real processes."""
