"""FPN-MAA: valence and arousal, expression and action units of faces, for FFPlug."""
