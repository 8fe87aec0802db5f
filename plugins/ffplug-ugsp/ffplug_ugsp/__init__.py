"""UGSP, IFRNet and RIFE: frames between frames."""
