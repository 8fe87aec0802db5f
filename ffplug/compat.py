"""What MMEngine and torch need mended, in one place: each item with its reason and a test."""
