"""LatentFace: identity and expression of faces by a 3D-aware autoencoder and representation diffusion."""
