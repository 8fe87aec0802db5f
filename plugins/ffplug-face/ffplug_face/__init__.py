"""Parametric heads, a renderer with exact optical flow, and faces to learn from."""
