"""The way out of MMFlow: its RAFT and GMA checkpoints, its configs, and its other models as baselines."""
