"""Recipes of the claims."""
