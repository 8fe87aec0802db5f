"""Whole networks of FFPlug beside those of other libraries, with the same weights, one module for each network.

Each module has a function ``implementations(iterations)`` that gives, by name, functions of two frames 1×3×H×W (RGB in
0..255) to flow 1×2×H×W.
"""
