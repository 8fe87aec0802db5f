"""Published recipes of the core networks: a network, its data and its schedule."""
