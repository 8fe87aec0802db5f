"""Iteration policies: recurrent flow networks that run only the steps a frame pair needs."""
