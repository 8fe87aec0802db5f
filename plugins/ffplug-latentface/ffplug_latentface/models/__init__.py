"""Networks, factors, autoencoder and representation diffusion."""

from ffplug_latentface.models.autoencoder import FaceDataPreprocessor, LatentFaceAutoencoder
from ffplug_latentface.models.backbone import LatentFaceEncoder
from ffplug_latentface.models.denoiser import LatentDenoiser
from ffplug_latentface.models.diffusion import RepresentationDiffusion
from ffplug_latentface.models.factors import Factors, Renderer
from ffplug_latentface.models.plain import PlainAutoencoder
from ffplug_latentface.models.probe import LinearProbe

__all__ = [
    "FaceDataPreprocessor",
    "Factors",
    "LatentDenoiser",
    "LatentFaceAutoencoder",
    "LatentFaceEncoder",
    "LinearProbe",
    "PlainAutoencoder",
    "Renderer",
    "RepresentationDiffusion",
]
