"""MMFlow's networks as baselines; each is read from the config that the installed mmflow ships."""
