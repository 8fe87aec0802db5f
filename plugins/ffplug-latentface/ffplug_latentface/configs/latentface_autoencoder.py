"""The first stage as published by unsup3d: 37.1 million parameters, 64×64 pixels."""

model = dict(type="ffplug_latentface.LatentFaceAutoencoder", image_size=64, width=64, code=256)
