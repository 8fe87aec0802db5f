"""Micro-expression recognition from optical flow: data, features, classifiers, protocol and scores."""
