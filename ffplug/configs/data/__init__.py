"""Data sets and mixtures of the published training stages: loaders, validation, metrics."""
