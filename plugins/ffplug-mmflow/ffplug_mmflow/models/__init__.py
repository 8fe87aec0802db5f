"""MMFlow's networks as FFPlug models."""
