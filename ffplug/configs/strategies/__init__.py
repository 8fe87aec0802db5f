"""How a model is spread over machines and memory; a recipe inherits from one of them beside what it is made of."""
