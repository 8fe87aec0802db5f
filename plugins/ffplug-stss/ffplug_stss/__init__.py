"""STSS: space-time supersampling of rendered frames, and a renderer with exact vectors."""
