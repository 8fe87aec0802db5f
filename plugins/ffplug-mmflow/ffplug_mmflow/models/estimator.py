"""A network of MMFlow behind the doors that every FFPlug model has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.structures import PixelData
from torch import Tensor, nn

from ffplug.errors import ConfigError
from ffplug.models.padding import pad, padding_for
from ffplug.structures import FlowDataSample
from ffplug_mmflow.bridge import import_mmflow
from ffplug_mmflow.config_file import read_config
from ffplug_mmflow.registry import MODELS


@MODELS.register_module()
class MMFlowEstimator(BaseModel):
    """An optical-flow network of MMFlow's 1.x branch, for comparison with FFPlug's own: same data, tests and commands.

    The network, its normalisation and its losses are MMFlow's and come from the installed package; frames are given to
    it in MMFlow's order BGR, and brought to a size that it takes as MMFlow's own test pipelines do.

    Args:
        network: a config file of MMFlow in its ``configs`` folder (``_base_/models/pwcnet.py``), or its ``model`` dict
            itself, ``dict(type='mmflow.PWCNet', ...)``.
        multiple: what the network's sides must be multiples of.
        fit: how frames get there in prediction: ``'resize'`` (the flow is scaled back) or ``'pad'`` (edges are
            repeated). In training they are padded, and the padding is not counted.
        data_preprocessor: config of what stacks the frames, or None for FFPlug's, without padding.
        init_cfg: see MMEngine's ``BaseModule``.

    Raises:
        PluginError: MMFlow is not installed; the message says what to install.
        ConfigError: MMFlow has no such network or argument.

    Example:
        dict(type="ffplug_mmflow.MMFlowEstimator", network="_base_/models/pwcnet.py")
    """

    unchecked_arguments = ("network",)
    quadratic = False

    def __init__(
        self,
        network: str | Mapping[str, Any],
        multiple: int = 64,
        fit: str = "resize",
        data_preprocessor: dict | nn.Module | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        stack = {"type": "ffplug.FlowDataPreprocessor", "multiple": 1, "minimum": 1}
        super().__init__(data_preprocessor or stack, init_cfg)
        if fit not in ("resize", "pad"):
            raise ConfigError(f"model.fit={fit!r}: expected 'resize' or 'pad'")
        self.network = _build(network)
        self.multiple = self.size_multiple = multiple
        self.fit = fit

    def example_batch(self, batch_size: int = 2) -> dict[str, list]:
        """Small random frame pairs with a flow, as a data loader gives them, the same each time: for checks."""
        generator = torch.Generator().manual_seed(0)
        height, width = 90, 124
        samples = [FlowDataSample() for _ in range(batch_size)]
        for sample in samples:
            sample.gt_flow = torch.randn(2, height, width, generator=generator)
            sample.gt_valid = torch.ones(height, width)
        inputs = [torch.randint(0, 256, (2, 3, height, width), generator=generator, dtype=torch.uint8) for _ in samples]
        return {"inputs": inputs, "data_samples": samples}

    def forward(self, inputs: Tensor, data_samples: list[FlowDataSample] | None = None, mode: str = "tensor") -> Any:
        """MMEngine's entry.

        Args:
            inputs: frame pairs N×2×3×H×W, RGB in 0..255, of any size.
            data_samples: one per pair.
            mode: ``tensor`` gives what MMFlow's network gives, ``loss`` the terms of MMFlow's loss (those of IRR-PWC's
                occlusion, of which data sets tell nothing, left out), ``predict`` the samples with ``pred_flow``.
        """
        if mode == "predict":
            for pair, sample in zip(inputs, data_samples, strict=True):
                sample.set_field(self._predict(pair), "pred_flow")
            return data_samples
        height, width = inputs.shape[-2:]
        padding = padding_for(height, width, self.multiple)
        frames = self._normalise(pad(inputs.flatten(0, 1).float(), padding).unflatten(0, inputs.shape[:2]))
        if mode == "tensor":
            return self.network(frames, mode="tensor")
        if mode == "loss":
            losses = self.network(frames, self._targets(data_samples, padding), mode="loss")
            return {key: value for key, value in losses.items() if isinstance(value, Tensor | list)}
        raise ValueError(f"mode={mode!r}: expected 'tensor', 'loss' or 'predict'")

    @torch.no_grad()
    def predict_flow(
        self, image1: Tensor, image2: Tensor, iterations: int | None = None, flow_init: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Flow between frames of any size, without gradients.

        Args:
            image1: frame 1, N×3×H×W, RGB in 0..255, on the model's device.
            image2: frame 2, as ``image1``.
            iterations: None, for these networks have a fixed number of steps.
            flow_init: None, for they start from nothing.

        Returns:
            ``flow`` N×2×H×W in pixels.

        Raises:
            ValueError: the frames are not N×3×H×W of one size.
            ConfigError: iterations or a first flow is asked for.
        """
        if image1.shape != image2.shape or image1.ndim != 4 or image1.shape[1] != 3:
            raise ValueError(
                f"image1 {tuple(image1.shape)} and image2 {tuple(image2.shape)}: expected N×3×H×W of one size"
            )
        if iterations is not None or flow_init is not None:
            raise ConfigError(
                f"{type(self.network).__name__} of MMFlow takes no number of iterations and no first flow"
            )
        was_training = self.training
        self.eval()
        try:
            pairs = torch.stack((image1, image2), dim=1)
            return {"flow": torch.stack([self._predict(pair) for pair in pairs])}
        finally:
            self.train(was_training)

    def _predict(self, pair: Tensor) -> Tensor:
        """Flow 2×H×W of one pair 2×3×H×W: MMFlow's own prediction finishes the first sample of a batch alone."""
        pair = pair.float()
        height, width = pair.shape[-2:]
        sample = self._sample()
        if self.fit == "pad":
            left, right, top, bottom = padding = padding_for(height, width, self.multiple)
            pair = pad(pair, padding)
            sample.set_metainfo({"pad": ((top, bottom), (left, right))})
        else:
            size = tuple(math.ceil(side / self.multiple) * self.multiple for side in (height, width))
            if size != (height, width):
                pair = F.interpolate(pair, size=size, mode="bilinear", align_corners=False)
            sample.set_metainfo({"scale_factor": (size[1] / width, size[0] / height)})
        sample.set_metainfo({"img_shape": tuple(pair.shape[-2:]), "ori_shape": (height, width)})
        result = self.network(self._normalise(pair[None]), [sample], mode="predict")
        return result[0].pred_flow_fw.data.float()

    def _normalise(self, frames: Tensor) -> Tensor:
        """Frames N×2×3×H×W, RGB in 0..255 -> N×6×H×W as the network's own preprocessor gives them."""
        data = {"inputs": list(frames.flip(2))}
        return self.network.data_preprocessor(data, self.training)["inputs"]

    def _targets(self, samples: Sequence[FlowDataSample], padding: tuple[int, int, int, int]) -> list[Any]:
        """Ground truth as MMFlow's samples; what is unknown, or padded, is not valid."""
        targets = []
        for sample in samples:
            valid = F.pad(sample.gt_valid, padding)
            flow = F.pad(torch.where(sample.gt_valid > 0, sample.gt_flow, 0), padding)
            target = self._sample()
            target.gt_flow_fw = PixelData(data=flow)
            target.gt_valid_fw = PixelData(data=valid[None])
            targets.append(target)
        return targets

    @staticmethod
    def _sample() -> Any:
        from mmflow.structures import FlowDataSample as MMFlowSample

        return MMFlowSample()


def _build(network: str | Mapping[str, Any]) -> nn.Module:
    models = import_mmflow()
    if isinstance(network, str):
        config = read_config(f"mmflow::{network}").get("model")
        if not isinstance(config, dict):
            raise ConfigError(f"model.network={network!r}: this file of MMFlow has no model")
    else:
        config = dict(network)
    try:
        with DefaultScope.overwrite_default_scope("mmflow"):  # its types are written without their package
            return models.builder.MODELS.build(config)
    except (KeyError, TypeError, AssertionError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(f"model.network: MMFlow does not build {config.get('type')!r}: {text}") from error
