"""What is on disk, and what is drawn."""
