"""Pairs of Gaussian heads, rendered when they are asked for."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from ffplug_face.models.head import REGIONS

from ffplug.datasets.base import FlowDataset, Problem, choose, choose_all
from ffplug.datasets.seeding import derive_seed
from ffplug.errors import ConfigError, did_you_mean
from ffplug_srflownet.avatars import Avatar
from ffplug_srflownet.datasets.srflow import DIRECTIONS, check_strides
from ffplug_srflownet.datasets.transforms import add_regions
from ffplug_srflownet.heads import get_head, sequence_options
from ffplug_srflownet.registry import DATASETS
from ffplug_srflownet.scenes import DEFINITIONS, SplatScene, head_scene

_FRAMES = 10
"""Frames of a procedural sequence, of which a pair takes two."""


@DATASETS.register_module()
class GaussianSequenceDataset(FlowDataset):
    """Frame pairs of Gaussian heads with dense flow, foreground and occlusion; nothing is on disk but avatars.

    Pair i depends on the arguments and i only, so two sets of one seed agree and those of two seeds share nothing.

    Args:
        length: number of pairs.
        size: height and width in pixels, at least 16.
        seed: of the set, >= 0.
        definition: of the flow: ``"ray"``, ``"center"`` (the paper's) or ``"affine2d"``, see
            :mod:`ffplug_srflownet.scenes`.
        head: config of the head model whose triangles carry the Gaussians.
        identities: number of identities to draw from; None for one a pair.
        stride: how many frames apart a pair's two are, or several to draw from.
        direction: ``"forward"``, ``"backward"`` or ``"both"`` (drawn).
        background: ``"white"``, or ``"drawn"`` as the options say.
        avatars: in the place of procedural heads, the arguments of :class:`ffplug_srflownet.avatars.Avatar` each:
            ``dict(splats=PLY, motion=NPZ, flame=PKL, cameras=JSON)``. A pair is seen by one of the avatar's cameras.
        regions: names of regions whose masks the samples get too (``gt_lips``), of
            :data:`ffplug_face.models.head.REGIONS`.
        options: fields of :class:`ffplug_face.sequences.SequenceOptions` that differ from its own.
        pipeline: transforms; None packs the pair. ``LoadFlowPair`` is left out: nothing is on disk.
        **kwargs: see :class:`ffplug.datasets.FlowDataset`.

    Raises:
        ConfigError: an argument is out of its range.

    Example:
        dict(type="ffplug_srflownet.GaussianSequenceDataset", length=4, size=(64, 96))
    """

    title = "Gaussian heads"

    def __init__(
        self,
        length: int = 1000,
        size: Sequence[int] = (192, 160),
        seed: int = 0,
        definition: str = "ray",
        head: Mapping[str, Any] | None = None,
        identities: int | None = None,
        stride: int | Sequence[int] = 1,
        direction: str = "both",
        background: str = "white",
        avatars: Sequence[Mapping[str, Any]] = (),
        regions: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        pipeline: Sequence[dict | Callable] | None = None,
        **kwargs: Any,
    ) -> None:
        if length < 1 or seed < 0 or (identities is not None and identities < 1):
            raise ConfigError(
                f"length={length}, seed={seed}, identities={identities}: expected length and identities >= 1, seed >= 0"
            )
        if len(size) != 2 or min(size) < 16:
            raise ConfigError(f"size={tuple(size)}: expected height and width of at least 16 pixels")
        self.length, self.size, self.seed, self.identities = length, tuple(size), seed, identities
        self.definition = choose("definition", definition, DEFINITIONS)
        self.strides = check_strides(stride, _FRAMES - 1)
        self.direction = choose("direction", direction, DIRECTIONS)
        self.background = choose("background", background, ("white", "drawn"))
        self.head = dict(head or dict(type="ffplug_face.OpenHead"))
        self.avatars = [_avatar_arguments(number, avatar) for number, avatar in enumerate(avatars)]
        self.regions = choose_all("regions", regions, REGIONS) if regions else ()
        self.options = sequence_options(options or {}, size=self.size, frames=(_FRAMES,))
        self._cache()
        steps = [dict(type="ffplug.PackFlowInputs")] if pipeline is None else [s for s in pipeline if not _loads(s)]
        super().__init__("procedural", steps, **kwargs)
        self._metainfo.update(procedural=not self.avatars, flow_definition=definition)

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the pairs by number."""
        for index in range(self.length):
            name = f"{index:06d}"
            yield dict(self.pair(None, None, sequence=name, frame=0, sample_id=f"{self.seed}/{name}"), number=index)

    def load_data_list(self) -> list[dict[str, Any]]:  # noqa: D102 (see the base class)
        return list(self.scan([]))

    def _cache(self) -> None:
        self.avatar = functools.lru_cache(maxsize=len(self.avatars))(lambda number: Avatar(**self.avatars[number]))
        self.scene = functools.lru_cache(maxsize=4)(self._scene)

    def _scene(self, number: int, view: int | None = None) -> SplatScene:
        if self.avatars:
            return self.avatar(number).scene(self.size, view)
        return head_scene(get_head(self.head), self.seed, number, self.options, self.background)

    def get_data_info(self, idx: int) -> dict[str, Any]:
        """Render a pair: frames, flow, valid, occlusion, foreground and the metainfo."""
        info = super().get_data_info(idx)
        number = info.pop("number")
        rng = np.random.default_rng(derive_seed(self.seed, "gaussian pair", number))
        count = len(self.avatars) or self.identities
        drawn = number if count is None else int(rng.integers(count))
        scene = self.scene(drawn, int(rng.choice(self.avatar(drawn).views)) if self.avatars else None)
        stride = min(int(rng.choice(self.strides)), len(scene) - 1)
        first = int(rng.integers(len(scene) - stride))
        then = first + stride
        if self.direction == "backward" or (self.direction == "both" and rng.random() < 0.5):
            first, then = then, first
        truth = scene.flow(first, then, self.definition)
        info.update(
            img1=scene.image(first),
            img2=scene.image(then),
            flow=truth.flow.permute(1, 2, 0).contiguous().numpy(),
            valid=np.ones(self.size, np.float32),
            occlusion=~truth.visible.numpy(),
            foreground=truth.mask.numpy(),
            ori_shape=self.size,
            frame=first,
        )
        if self.regions:
            add_regions(info, scene.regions(first).numpy(), self.regions)
        return info

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("avatar", "scene")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cache()


def _avatar_arguments(number: int, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """An avatar's arguments by name, checked.

    Raises:
        ConfigError: one is unknown, or one that is needed is missing.
    """
    parameters = inspect.signature(Avatar).parameters
    for name in arguments:
        if name not in parameters:
            raise ConfigError(f"avatars[{number}]: {name!r} is no argument{did_you_mean(name, parameters)}")
    for name in ("splats", "motion"):
        if name not in arguments:
            raise ConfigError(f"avatars[{number}]: {name!r} is missing; expected dict(splats=..., motion=...)")
    return dict(arguments)


def _loads(step: dict | Callable) -> bool:
    """Whether a pipeline's step is ``LoadFlowPair``."""
    kind = step.get("type") if isinstance(step, dict) else type(step)
    return str(getattr(kind, "__name__", kind)).rsplit(".", 1)[-1] == "LoadFlowPair"
