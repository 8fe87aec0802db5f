"""Captures in the layout of Arm's Neural Super Sampling: EXR files, and a JSON of the camera for each sequence."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ffplug.datasets.base import Problem, choose
from ffplug.datasets.layouts import Layout, Part, join
from ffplug.datasets.procedural import Recipe
from ffplug.errors import ConfigError, DataError, did_you_mean
from ffplug.ops import backward_warp
from ffplug_stss.capture import LEAST_FRAME, make_record, peek_exr, read_exr, write_exr
from ffplug_stss.channels import SCALE
from ffplug_stss.datasets.online import MadeDataset
from ffplug_stss.registry import DATASETS, LAYOUTS
from ffplug_stss.rendering import FIELD_OF_VIEW, Renderer, decode_srgb, encode_srgb
from ffplug_stss.scenes import SceneOptions, draw_scene
from ffplug_stss.sequences import EXTRAPOLATED, SHADED, to_array
from ffplug_stss.warping import COMPOSITIONS, better_turn, inside, same_depth

JITTERS = ("resample", "keep")
TRUTHS = ("linear", "karis")

_RATIO = f"x{SCALE}"
_FOLDERS = {"color": "RGB", "depth": "R", "motion": "RG"}
_READER = "ffplug_stss.NSSDataset"
_MOST = 2.0
_INFINITE = -1.0
_BRIGHTEST = 65504.0
_NEAR = 0.1
_FINER = 4
"""Rays to a pixel of the low resolution, each way, of which a procedural capture takes one by its jitter."""


class NSSSequence:
    """One sequence of a capture, frame by frame; arguments and errors as of :class:`NSSDataset`.

    Args:
        root: folder of the capture.
        name: of the sequence.
        far: distance that becomes depth 1, in the unit of the camera's planes.
        exposure: factor of the linear colours.
        truth: how true frames are stored.
        jitter: what becomes of the camera's jitter.
        tolerance: share of its depth by which a surface may differ.
        rule: how motions are joined.
    """

    def __init__(
        self,
        root: str,
        name: str,
        far: float,
        exposure: float = 1.0,
        truth: str = "linear",
        jitter: str = "resample",
        tolerance: float = 0.05,
        rule: str = "exact",
    ) -> None:
        self.root, self.name, self.far, self.exposure = Path(root), name, far, exposure
        self.truth, self.jitter, self.tolerance, self.rule = truth, jitter, tolerance, rule
        self.path = self.root / f"{name}.json"
        self.camera = read_camera(self.path)
        # A frame and those before it share most of what they read.
        self.buffers: Callable[[int], dict[str, Tensor]] = functools.lru_cache(maxsize=8)(self._buffers)
        self._checked = False

    def usable(self) -> list[int]:
        """Numbers of the frames that have a whole history before them, with no cut in between."""
        found, since = [], 0
        for number, frame in enumerate(self.camera["Frames"]):
            since = 0 if frame.get("CameraCut") else since
            if since >= LEAST_FRAME:
                found.append(number)
            since += 1
        return found

    def record(self, frame: int) -> np.ndarray:
        """The inputs of a frame, H×W×33 float16; the first call of a sequence looks at its vectors."""
        if not self._checked:
            turn = better_turn(self.buffers(frame), self.buffers(frame - 1))
            if turn is not None:
                path = self._path(f"{_RATIO}/motion", frame)
                raise DataError(f"{path}: with {turn}; expected shares of the frame, x right and y down, to this frame")
            self._checked = True
        return make_record(frame, self.buffers, self._hole, self.rule)

    def target(self, frame: int) -> np.ndarray:
        """The true frame, 2H×2W×3 float16, BGR."""
        path = self._path("ground_truth", frame)
        values = self._read(path, "RGB")
        expected = tuple(SCALE * side for side in self.buffers(frame)["image"].shape[2:])
        if tuple(values.shape[2:]) != expected:
            found = "×".join(map(str, values.shape[2:]))
            raise DataError(f"{path}: {found} pixels, expected {expected[0]}×{expected[1]}, twice those of {_RATIO}")
        if self.truth == "karis":
            values = values / (1 - values.amax(dim=1, keepdim=True)).clamp(min=1 / _BRIGHTEST)
        return to_array(self._encode(values).flip(1))

    def _path(self, folder: str, number: int) -> Path:
        return self.root / folder / self.name / f"{number:04d}.exr"

    @staticmethod
    def _read(path: Path, channels: str) -> Tensor:
        return torch.from_numpy(read_exr(path, channels)).permute(2, 0, 1)[None].contiguous()

    def _encode(self, linear: Tensor) -> Tensor:
        return encode_srgb((self.exposure * linear).clamp(0, 1))

    def _hole(self, number: int, earlier: int, motion: Tensor) -> Tensor:
        now, then = self.buffers(number), self.buffers(earlier)
        return ~(inside(motion) & same_depth(now["depth"], then["depth"], motion, self.tolerance))

    def _buffers(self, number: int) -> dict[str, Tensor]:
        """What a record needs of a frame, 1×C×H×W each, checked."""
        frame, found = self.camera["Frames"][number], {}
        for name, channels in _FOLDERS.items():
            path = self._path(f"{_RATIO}/{name}", number)
            found[name] = self._read(path, channels)
            size = found["color"].shape[2:]
            if found[name].shape[2:] != size or min(size) < 8:
                shown = "×".join(map(str, found[name].shape[2:]))
                raise DataError(
                    f"{path}: {shown} pixels, expected {size[0]}×{size[1]} as the colours, and at least 8×8"
                )
        most = float(found["motion"].abs().max())
        if most > _MOST:
            path = self._path(f"{_RATIO}/motion", number)
            raise DataError(f"{path}: vectors of up to {most:g}; expected shares of the frame's width and height")
        low, high = float(found["depth"].min()), float(found["depth"].max())
        if low < -1e-3 or high > 1 + 1e-3:
            raise DataError(f"{self._path(f'{_RATIO}/depth', number)}: values lie in {low:g}..{high:g}, expected 0..1")
        height, width = size
        scale = torch.tensor([width, height], dtype=torch.float32)[:, None, None]
        image = self._encode(found["color"])
        if self.jitter == "resample":
            # The sample of a pixel was taken beside its centre: what belongs to the centre lies the other way.
            image = backward_warp(image, (-self._jitter(frame) * scale).expand(1, 2, height, width), "border")
        away = self._distance(found["depth"], frame)
        absent = torch.zeros_like(away)
        return dict(
            image=image,
            motion=-found["motion"] * scale,
            depth=(away / self.far).clamp(0, 1),
            normal=normals(away, frame["FovX"], frame["FovY"], self.far),
            base_color=absent.expand(-1, 3, -1, -1),
            metallic=absent,
            roughness=absent,
        )

    def _jitter(self, frame: Mapping[str, Any]) -> Tensor:
        """Where a pixel's sample was taken beside its centre, x and y as shares of the frame, 2×1×1."""
        index = self.camera.get("UpscalingRatiosIndices", {}).get(f"{_RATIO}_index", 0)
        jitter = frame["NormalizedPerRatioJitter"][index]
        return torch.tensor([jitter["X"], jitter["Y"]], dtype=torch.float32)[:, None, None]

    def _distance(self, depth: Tensor, frame: Mapping[str, Any]) -> Tensor:
        """Distance along the view from what a depth buffer holds."""
        depth = (1 - depth if self.camera.get("ReverseZ") else depth).clamp(0, 1)
        near, far = float(frame["CameraNearPlane"]), float(frame["CameraFarPlane"])
        slope = depth if far == _INFINITE else depth * (1 - near / far)
        return near / (1 - slope).clamp(min=1e-7)


def read_camera(path: Path) -> dict[str, Any]:
    """Read and check the JSON of a sequence.

    Raises:
        DataError: it is missing, no such JSON, or lacks what a reader needs.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read as JSON ({error})") from None
    frames = found.get("Frames") if isinstance(found, dict) else None
    if not isinstance(frames, list) or not frames:
        raise DataError(f"{path}: expected a list `Frames` of the frames' cameras")
    needed = ("FovX", "FovY", "CameraNearPlane", "CameraFarPlane", "NormalizedPerRatioJitter")
    for number, frame in enumerate(frames):
        missing = [key for key in needed if not isinstance(frame, dict) or key not in frame]
        if missing:
            raise DataError(f"{path}: frame {number} lacks {', '.join(missing)}")
    return found


def normals(distance: Tensor, across: float, down: float, far: float) -> Tensor:
    """Normals in the camera's frame (right, up, towards the viewer) from distances along the view.

    Args:
        distance: 1×1×H×W.
        across: field of view from left to right, in radians.
        down: from top to bottom.
        far: what is at least so far off is sky, with normal 0.

    Returns:
        1×3×H×W of length 1.
    """
    height, width = distance.shape[2:]
    x = (2 * (torch.arange(width) + 0.5) / width - 1) * math.tan(across / 2)
    y = (1 - 2 * (torch.arange(height) + 0.5) / height) * math.tan(down / 2)
    plane = torch.stack([x.expand(height, width), y[:, None].expand(height, width), -torch.ones(height, width)])
    point = distance * plane

    def slope(axis: int) -> Tensor:
        """The step to the neighbour that is nearer in depth: the other one may be another object's."""
        step, jump = point.diff(dim=axis), distance.diff(dim=axis).abs()
        front, back = ((1, 0), (0, 1)) if axis == 3 else ((0, 0, 1, 0), (0, 0, 0, 1))
        nearer = F.pad(jump, front, value=math.inf) < F.pad(jump, back, value=math.inf)
        return torch.where(nearer, F.pad(step, front), F.pad(step, back))

    normal = F.normalize(torch.linalg.cross(slope(3), -slope(2), dim=1), dim=1)
    return torch.where(distance >= far, 0.0, normal)


@DATASETS.register_module()
class NSSDataset(MadeDataset):
    """Frames to produce, with the true ones, from captures in the layout of Arm's Neural Super Sampling.

    ``0000.json`` for each sequence, ``ground_truth/0000/0007.exr``, ``x2/color/0000/0007.exr``, and likewise ``depth``
    and ``motion`` (https://github.com/arm/neural-graphics-model-gym, ``docs/nss``). Records are made from the buffers
    when asked for; frames of even numbers are shaded ones. The layout has no materials: roughness, metallic and base
    colour are 0, and normals come from the depth, in the camera's frame. Holes are told by the depth. A frame has no
    history beyond a camera cut. Needs the package OpenEXR.

    Args:
        data_root: the folder with the JSON files.
        far: distance that becomes depth 1, in the unit of the camera's planes (metres, by the layout).
        sequences: names of sequences; None takes all.
        kinds: ``SF``, ``EF`` or both.
        exposure: factor of the linear colours, which are then cut to 0..1 and encoded as sRGB.
        truth: ``linear``, or ``karis`` where true frames are stored as c / (1 + max(c)).
        jitter: ``resample`` moves colours back to the centres of the pixels, as STSS takes them; ``keep`` does not.
        tolerance: share of its depth by which a surface may differ.
        compose: how motions are joined, see :func:`ffplug_stss.warping.compose`.
        pipeline: transforms; None packs whole frames. ``LoadRecord`` is left out.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.

    Raises:
        ConfigError: an argument is none of the above, or OpenEXR is missing.
        DataError: the folder is missing, or a file in it.

    Example:
        dict(type="ffplug_stss.NSSDataset", data_root="data/NSS")
    """

    layout = "nss"
    title = "NSS"
    example: ClassVar = dict(scenes=1, frames=2, size=(16, 24), options=dict(objects=(2, 4), poles=(1, 1)))

    def __init__(
        self,
        data_root: str,
        far: float = 100.0,
        sequences: str | Sequence[str] | None = None,
        kinds: str | Sequence[str] = (SHADED, EXTRAPOLATED),
        exposure: float = 1.0,
        truth: str = "linear",
        jitter: str = "resample",
        tolerance: float = 0.05,
        compose: str = "exact",
        pipeline: Sequence[dict | Callable] | None = None,
        **kwargs: Any,
    ) -> None:
        if not (far > 0 and exposure > 0 and tolerance > 0):
            raise ConfigError(f"far={far:g}, exposure={exposure:g}, tolerance={tolerance:g}: expected all above 0")
        self.options = dict(
            far=far,
            exposure=exposure,
            truth=choose("truth", truth, TRUTHS),
            jitter=choose("jitter", jitter, JITTERS),
            tolerance=tolerance,
            rule=choose("compose", compose, COMPOSITIONS),
        )
        self.sequences = (sequences,) if isinstance(sequences, str) else sequences
        kinds = (kinds,) if isinstance(kinds, str) else kinds
        self.kinds = tuple(choose("kinds", kind, (SHADED, EXTRAPOLATED)) for kind in kinds)
        super().__init__(data_root, pipeline, **kwargs)

    def open(self, source: str) -> NSSSequence:
        """The sequence of this name."""
        return NSSSequence(self.data_root, source, **self.options)

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the frames, sequence by sequence."""
        self.require(f"{_RATIO}/color")
        there = [name[: -len(".json")] for name in self.files("") if name.endswith(".json") and name[0].isdigit()]
        for name in self.sequences or there:
            if name not in there:
                near = did_you_mean(name, there) or f"; there are {', '.join(there) or 'none'}"
                raise DataError(f"{self.data_root}: no sequence {name!r}{near}")
            sequence = self.open(name)
            count, whole = len(sequence.camera["Frames"]), True
            for folder in ("ground_truth", *(f"{_RATIO}/{part}" for part in _FOLDERS)):
                files = self.numbered(join(folder, name), r"(\d+)\.exr")
                missing = sorted(set(range(count)) - set(files))
                if missing:
                    whole = False
                    path = join(folder, name, f"{missing[0]:04d}.exr")
                    problems.append(Problem(path, f"missing, as {len(missing)} of {count} frames of the JSON", name))
            for number in sequence.usable() if whole else ():
                kind = EXTRAPOLATED if number % 2 else SHADED
                if kind in self.kinds:
                    yield dict(
                        dataset=self.title,
                        sequence=name,
                        frame=number,
                        sample_id=f"{name}/{number:04d}",
                        kind=kind,
                        source=name,
                        exr_paths=[
                            join("ground_truth", name, f"{number:04d}.exr"),
                            *(
                                join(_RATIO, part, name, f"{earlier:04d}.exr")
                                for part in _FOLDERS
                                for earlier in range(number - LEAST_FRAME, number + 1)
                            ),
                        ],
                    )

    def resolve(self, info: dict[str, Any]) -> dict[str, Any]:
        """Put ``data_root`` before the paths of an entry."""
        return {**info, "exr_paths": [join(self.data_root, path) for path in info["exr_paths"]]}


@LAYOUTS.register_module(name="nss")
class NSSLayout(Layout):
    """Captures for Arm's Neural Super Sampling; a procedural scene is one sequence, with jitter of 16 phases.

    True frames average the rays of which the low resolution takes one in 16. The recipe's ``size`` is that of the low
    resolution, its ``frames`` those that can be produced: five come before them. The options are those of
    :class:`~ffplug_stss.scenes.SceneOptions`, of which ``samples`` is not read.
    """

    title = "NSS"
    datasets = (_READER,)
    markers = (f"{_RATIO}/color",)
    expected = "0000.json, ground_truth/0000/%04d.exr, x2/color/0000/%04d.exr, and likewise x2/depth and x2/motion"
    parts = (Part("", _READER),)
    has_test = False

    def options(self, difficulty: str, changes: dict[str, Any]) -> SceneOptions:
        """What scenes are drawn from."""
        return SceneOptions.preset(difficulty, **changes)

    def inspect(self, path: str, full: bool) -> tuple[int, int] | None:
        """Width and height of an EXR file."""
        if not path.endswith(".exr"):
            return None
        channels = _FOLDERS.get(Path(path).parts[-3], "RGB")
        height, width = read_exr(path, channels).shape[:2] if full else peek_exr(path)
        return width, height

    def write_scene(self, folder: Path, recipe: Recipe, subset: int, index: int) -> None:
        """Write a sequence's EXR files and its JSON."""
        height, width = recipe.size
        scene = draw_scene(recipe.seed, index, self.options(recipe.difficulty, recipe.options))
        renderer = Renderer(scene, (_FINER * height, _FINER * width))
        name, far, frames = f"{index:04d}", scene.options.far, []
        for number in range(LEAST_FRAME + recipe.frames):
            taken = [int(_FINER * halton(number % 16 + 1, base)) for base in (2, 3)]  # column and row of each tile
            cut = (..., slice(taken[1], None, _FINER), slice(taken[0], None, _FINER))
            light, buffers = decode_srgb(renderer.shaded(number)), renderer.buffers(number)
            away = (far * buffers.depth).clamp(min=_NEAR)
            values = {
                f"{_RATIO}/color": light[cut].half(),
                f"{_RATIO}/depth": (far * (away - _NEAR) / (away * (far - _NEAR)))[cut],
                f"{_RATIO}/motion": _shares(-renderer.motion(buffers, number, number - 1))[cut].half(),
                "ground_truth": F.avg_pool2d(light, _FINER // SCALE).half(),
            }
            values["motion_gt"] = F.interpolate(values[f"{_RATIO}/motion"].float(), scale_factor=SCALE).half()
            for part, image in values.items():
                channels = "RGB"[: image.shape[1]]
                path = folder / part / name / f"{number:04d}.exr"
                write_exr(path, {channel: image[0, place].numpy() for place, channel in enumerate(channels)})
            frames.append(self._describe(number, scene.camera(number), recipe.size, taken, far))
        document = {
            "Version": "1.0.1",
            "EmulatedFramerate": 60,
            "TargetResolution": {"X": SCALE * width, "Y": SCALE * height},
            "Samples": {"Sequence": "TiledHalton", "Count": 16, "Quantized": True},
            "ReverseZ": False,
            "UpscalingRatiosIndices": {f"{_RATIO}_index": 0},
            "Frames": frames,
        }
        (folder / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    @staticmethod
    def _describe(number: int, camera: Any, size: tuple[int, int], taken: list[int], far: float) -> dict[str, Any]:
        """A frame's entry of the JSON."""
        height, width = size
        jitter = [(place + 0.5) / _FINER - 0.5 for place in taken]
        across = FIELD_OF_VIEW
        down = 2 * math.atan(math.tan(across / 2) * height / width)
        right, up, ahead = camera.axes
        depth = far / (far - _NEAR)
        rows = [
            (right / math.tan(across / 2), 0.0),
            (up / math.tan(down / 2), 0.0),
            (ahead * depth, -_NEAR * depth),
            (ahead, 0.0),
        ]
        matrix = [[*axis.tolist(), float(offset - axis @ camera.position)] for axis, offset in rows]
        return {
            "Frame": number,
            "FovX": across,
            "FovY": down,
            "CameraNearPlane": _NEAR,
            "CameraFarPlane": far,
            "ViewProjection": [matrix[row][column] for column in range(4) for row in range(4)],
            "CameraCut": number == 0,
            "Jitter": dict(zip("XY", jitter, strict=True)),
            "NormalizedPerRatioJitter": [{"X": jitter[0] / width, "Y": jitter[1] / height}],
        }


def _shares(motion: Tensor) -> Tensor:
    """Motion in pixels as shares of the frame; what is farther than a whole frame is cut, as half precision needs."""
    height, width = motion.shape[2:]
    return (motion / motion.new_tensor([width, height])[:, None, None]).clamp(-1, 1)


def halton(index: int, base: int) -> float:
    """The element of Halton's sequence, 0..1."""
    value, part = 0.0, 1.0
    while index:
        part /= base
        value += part * (index % base)
        index //= base
    return value
