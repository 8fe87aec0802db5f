"""SAMFlow's networks and recipes."""
