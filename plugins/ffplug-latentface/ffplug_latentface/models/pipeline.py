"""Identity and expression as a pipeline of diffusers, saved and loaded as those are."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DiffusionPipeline, DPMSolverMultistepScheduler
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import BaseOutput
from torch import Tensor

from ffplug.errors import CheckpointError, did_you_mean
from ffplug_latentface.models.denoiser import LatentDenoiser
from ffplug_latentface.models.diffusion import RepresentationDiffusion
from ffplug_latentface.models.networks import CodeNet
from ffplug_latentface.models.schedulers import LegacyDDIMScheduler, sample_codes

SCHEDULERS = {kind.__name__: kind for kind in (DDIMScheduler, DPMSolverMultistepScheduler, LegacyDDIMScheduler)}
_INDEX = "model_index.json"


class CodeEncoder(ModelMixin, ConfigMixin):
    """The encoders of albedo and depth.

    Args:
        size: side of the pictures.
        width: channels of the first layers.
        code: length of each code.
    """

    @register_to_config
    def __init__(self, *, size: int = 64, width: int = 64, code: int = 256) -> None:
        super().__init__()
        self.albedo = CodeNet(3, width, code, size).encoder
        self.depth = CodeNet(1, width, code, size).encoder

    def forward(self, images: Tensor) -> Tensor:
        """Codes N×2C of pictures N×3×S×S in -1..1."""
        return torch.cat((self.albedo(images), self.depth(images)), 1).flatten(1)


@dataclasses.dataclass
class FaceCodes(BaseOutput):
    """Codes of faces, the albedo's and then the depth's.

    Attributes:
        identity: N×2C.
        expression: N×2C; both add up to the observed codes.
    """

    identity: Tensor
    expression: Tensor


class LatentFacePipeline(DiffusionPipeline):
    """Pictures of faces to identity and expression.

    ``save_pretrained(folder)`` and ``LatentFacePipeline.from_pretrained(folder)`` are those of diffusers;
    :func:`load_pipeline` also says what is wrong with a folder.

    Args:
        encoder: a :class:`CodeEncoder`.
        rdm_albedo: a :class:`~ffplug_latentface.models.LatentDenoiser`.
        rdm_depth: another.
        scheduler: of diffusers, for clean samples.
    """

    model_cpu_offload_seq = "encoder->rdm_albedo->rdm_depth"

    def __init__(
        self, encoder: CodeEncoder, rdm_albedo: LatentDenoiser, rdm_depth: LatentDenoiser, scheduler: DDIMScheduler
    ) -> None:
        super().__init__()
        self.register_modules(encoder=encoder, rdm_albedo=rdm_albedo, rdm_depth=rdm_depth, scheduler=scheduler)

    @classmethod
    def of(cls, model: RepresentationDiffusion) -> LatentFacePipeline:
        """The pipeline of a trained model, which shares nothing with it.

        Raises:
            CheckpointError: its denoisers are no perceptrons.
        """
        for net in model.denoisers:
            if not isinstance(net, LatentDenoiser):
                raise CheckpointError("the model's denoisers have layout='unet': convert them to 'mlp' for a pipeline")
        networks = model.autoencoder.networks
        width = networks.depth.encoder[0].out_channels
        encoder = CodeEncoder(size=networks.size, width=width, code=model.autoencoder.code)
        encoder.albedo.load_state_dict(networks.albedo.encoder.state_dict())
        encoder.depth.load_state_dict(networks.depth.encoder.state_dict())
        copies = [LatentDenoiser.from_config(net.config) for net in model.denoisers]
        for copy, net in zip(copies, model.denoisers, strict=True):
            copy.load_state_dict(net.state_dict())
        parts = [part.eval() for part in (encoder, *copies)]
        return cls(*parts, type(model.scheduler).from_config(model.scheduler.config))

    @torch.no_grad()
    def __call__(
        self, images: Tensor, steps: int = 5, generator: torch.Generator | None = None, noise: Tensor | None = None
    ) -> FaceCodes:
        """Identity and expression of pictures.

        Args:
            images: N×3×S×S in -1..1.
            steps: evaluations of the denoisers.
            generator: of the noise.
            noise: N×2C in its place.
        """
        codes = self.encoder(images.to(self.device))
        if noise is None:
            noise = torch.randn(codes.shape, generator=generator).to(codes)
        parts = zip((self.rdm_albedo, self.rdm_depth), codes.chunk(2, 1), noise.chunk(2, 1), strict=True)
        identity = torch.cat([sample_codes(net, self.scheduler, code, start, steps) for net, code, start in parts], 1)
        return FaceCodes(identity=identity, expression=codes - identity)


def load_pipeline(folder: str | os.PathLike) -> LatentFacePipeline:
    """Load a folder that ``LatentFacePipeline.save_pretrained`` wrote; nothing else that it names is imported.

    Raises:
        CheckpointError: it is no such folder, another pipeline's, names an unknown scheduler, or a part does not fit.
    """
    folder = Path(folder)
    index = folder / _INDEX
    if not index.is_file():
        raise CheckpointError(f"{folder}: no {_INDEX}: expected a folder that save_pretrained wrote")
    try:
        content = json.loads(index.read_text())
        parts = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
        own = content["_class_name"]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{index}: not a pipeline's index: {error}") from None
    if own != LatentFacePipeline.__name__:
        raise CheckpointError(f"{index}: a {own}, expected a {LatentFacePipeline.__name__}")
    expected = {
        "encoder": (CodeEncoder,),
        "rdm_albedo": (LatentDenoiser,),
        "rdm_depth": (LatentDenoiser,),
        "scheduler": tuple(SCHEDULERS.values()),
    }
    if set(parts) != set(expected):
        raise CheckpointError(f"{index}: has {', '.join(sorted(parts))}: expected {', '.join(sorted(expected))}")
    for name, kinds in expected.items():
        known = {kind.__name__: kind for kind in kinds}
        if len(parts[name]) != 2 or parts[name][1] not in known or parts[name][0] != _library(known[parts[name][1]]):
            found = ".".join(map(str, parts[name]))
            near = did_you_mean(str(parts[name][-1]), list(known)) if parts[name] else ""
            raise CheckpointError(f"{index}: {name} is {found}: expected one of {', '.join(known)}{near}")
    try:
        pipeline = LatentFacePipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{folder}: does not load: {str(error).splitlines()[0]}") from error
    lengths = {
        "encoder": pipeline.encoder.config.code,
        "rdm_albedo": pipeline.rdm_albedo.config.code,
        "rdm_depth": pipeline.rdm_depth.config.code,
    }
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise CheckpointError(f"{folder}: codes of different lengths: {shown}")
    return pipeline


def _library(kind: type) -> str:
    """What diffusers writes for the module of a part."""
    top = kind.__module__.partition(".")[0]
    return top if top == "diffusers" else kind.__module__
