"""MVFlow: optical flow of compressed video that starts from the codec's motion vectors."""
