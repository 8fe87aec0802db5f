"""LatentFace: the autoencoder, and denoisers of width 128 as of the second release."""

from mmengine.config import read_base

with read_base():
    from .latentface_autoencoder import model as _autoencoder

model = dict(
    type="ffplug_latentface.RepresentationDiffusion",
    autoencoder=_autoencoder,
    width=128,
    layout="mlp",
    sampler="ddim",
    steps=5,
    target="leave_one_out",
    weighting="min_snr",
    gamma=5.0,
)
