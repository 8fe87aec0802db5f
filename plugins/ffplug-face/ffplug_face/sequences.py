"""Sequences of a head that moves: what is drawn, and its pictures, flows and landmarks."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp
from torch import Tensor

from ffplug.datasets.seeding import derive_seed
from ffplug.errors import ConfigError, did_you_mean
from ffplug_face.actions import EMOTIONS, sides
from ffplug_face.models import HeadModel
from ffplug_face.models.head import JOINTS
from ffplug_face.rendering import Camera, Light, SkinSource, State, optical_flow, random_light, rasterize, visible_in
from ffplug_face.rendering.backdrop import Backdrop, draw_backdrop
from ffplug_face.rendering.body import Body
from ffplug_face.rendering.geometry import Surface
from ffplug_face.rendering.picture import shade, with_body
from ffplug_face.rendering.skin import Skin

EASES = ("smooth", "bump")
"""How expression and pose go over a sequence: a smoothstep, or up to an apex and back where there are 3 frames."""


@dataclasses.dataclass(frozen=True)
class SequenceOptions:
    """What sequences are drawn from; the layout of FacialFlowNet's generator, the ranges are ours.

    Attributes:
        frames: numbers of frames to choose from.
        size: height and width of the pictures, pixels.
        emotions: which of :data:`ffplug_face.actions.EMOTIONS` to choose from.
        intensity: range of an emotion's strength.
        extra_actions: how many further actions join in, each up to a quarter.
        expression_scale: standard deviation of unnamed expression coefficients (FLAME's first 50).
        jaw: standard deviation of the jaw's turn (radians) where the expression has no ``jawOpen``.
        gaze: standard deviation of the eyes' turn (radians), both alike.
        yaw_pitch_roll: standard deviations of the head's turn at both ends, degrees.
        translation: standard deviation of its place at both ends, metres.
        start: share of the expression that the first frame has.
        fields_of_view: range, degrees.
        fill: range of the share of the picture's height that the head fills.
        light: kind of light (see :func:`ffplug_face.rendering.random_light`).
        flicker: most that the light's intensity differs between two frames.
        skins: ``procedural``, or a folder of textures.
        backgrounds: ``analytic``, ``pictures``, ``mixed`` or a folder of pictures (see the core's ``TextureSource``).
        eases: which of :data:`EASES` to choose from.
        supersample: each pixel's colour is the mean of its square of this side.
        body: whether the neck ends in a collar over shoulders; else it ends in the air.
        drift: how far the background moves from the first frame to the last, as a camera that turns would make it:
            standard deviation in shares of the picture's height; it turns and grows a little, too. 0 holds it still.
    """

    frames: tuple[int, ...] = (5, 10, 15, 20)
    size: tuple[int, int] = (512, 512)
    emotions: tuple[str, ...] = tuple(EMOTIONS)
    intensity: tuple[float, float] = (0.3, 1.0)
    extra_actions: int = 4
    expression_scale: float = 1.2
    jaw: float = 0.15
    gaze: float = 0.08
    yaw_pitch_roll: tuple[float, float, float] = (15.0, 8.0, 6.0)
    translation: float = 0.015
    start: float = 0.15
    fields_of_view: tuple[float, float] = (20.0, 45.0)
    fill: tuple[float, float] = (0.5, 0.85)
    light: str = "mixed"
    flicker: float = 0.03
    skins: str = "procedural"
    backgrounds: str = "analytic"
    eases: tuple[str, ...] = EASES
    supersample: int = 2
    body: bool = True
    drift: float = 0.0

    def __post_init__(self) -> None:
        for name, known in (("emotions", EMOTIONS), ("eases", EASES)):
            chosen = getattr(self, name)
            for word in chosen:
                if word not in known:
                    raise ConfigError(
                        f"{name}: {word!r} is none{did_you_mean(word, known)}; there are {', '.join(known)}"
                    )
            if not chosen:
                raise ConfigError(f"{name} is empty: expected some of {', '.join(known)}")
        if not self.frames or min(self.frames) < 2:
            raise ConfigError(f"frames={self.frames}: expected numbers of frames, each at least 2")
        if min(self.size) < 8:
            raise ConfigError(f"size={self.size}: expected height and width of at least 8 pixels")


@dataclasses.dataclass(frozen=True, eq=False)
class FaceSequence:
    """The numbers of one sequence of n frames.

    Attributes:
        seed: from which everything follows.
        emotion: that was drawn.
        ease: one of :data:`EASES`.
        progress: n, how far each frame is from the first state to the last, 0..1.
        shape: S, identity.
        expression: n×E.
        pose: n×15, radians.
        translation: n×3, metres.
        intensity: n, of the light.
        camera: that sees it.
        light: that falls on it.
    """

    seed: int
    emotion: str
    ease: str
    progress: np.ndarray
    shape: np.ndarray
    expression: np.ndarray
    pose: np.ndarray
    translation: np.ndarray
    intensity: np.ndarray
    camera: Camera
    light: Light

    def __len__(self) -> int:
        return len(self.progress)

    def record(self) -> dict[str, Any]:
        """Everything as plain values, for a JSON file."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {key: _plain(value) for key, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | Tensor):
        return value.tolist()
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value


def draw_sequence(head: HeadModel, seed: int, index: int = 0, options: SequenceOptions | None = None) -> FaceSequence:
    """Draw sequence ``index`` of a set; it follows from (seed, index, options) and the head alone.

    Args:
        head: whose coefficients are drawn. Where it names them as ARKit does, an emotion is a set of actions; else the
            coefficients are normal, and the emotion is only a name.
        seed: of the set.
        index: of the sequence, at least 0.
        options: see :class:`SequenceOptions`.
    """
    options = options or SequenceOptions()
    rng = np.random.default_rng(derive_seed(seed, "face sequence", index))
    count = int(rng.choice(options.frames))
    emotion = str(rng.choice(options.emotions))
    ease = str(rng.choice(options.eases))
    if count == 2:
        ease = "smooth"  # to an apex and back there is no time
    progress = _ease(ease, count, rng)
    shape = rng.normal(0, 1, head.n_shape)
    peak, jaw = _expression(head, emotion, options, rng)
    share = options.start + (1 - options.start) * progress
    pose = np.zeros((count, 3 * len(JOINTS)))
    turn = _turns(options, progress, rng)
    pose[:, 0:3], pose[:, 3:6] = 0.3 * turn, 0.7 * turn
    pose[:, 6] = jaw * share
    gaze = rng.normal(0, options.gaze, (2, 2))
    looks = gaze[0] + progress[:, None] * (gaze[1] - gaze[0])
    for joint in (3, 4):
        pose[:, 3 * joint : 3 * joint + 2] = looks
    ends = rng.normal(0, options.translation, (2, 3))
    camera = _camera(head, options, rng)
    light = random_light(rng, options.light)
    return FaceSequence(
        seed=derive_seed(seed, "face sequence", index),
        emotion=emotion,
        ease=ease,
        progress=progress,
        shape=shape,
        expression=share[:, None] * peak,
        pose=pose,
        translation=ends[0] + progress[:, None] * (ends[1] - ends[0]),
        intensity=1 + rng.uniform(-options.flicker / 2, options.flicker / 2, count),
        camera=camera,
        light=light,
    )


def _ease(ease: str, count: int, rng: np.random.Generator) -> np.ndarray:
    time = np.linspace(0, 1, count)
    if ease == "bump":
        apex = rng.uniform(0.4, 0.7)
        time = np.where(time < apex, time / apex, (1 - time) / (1 - apex))
    return time * time * (3 - 2 * time)


def _expression(
    head: HeadModel, emotion: str, options: SequenceOptions, rng: np.random.Generator
) -> tuple[np.ndarray, float]:
    """Coefficients of the strongest frame, and the jaw's turn."""
    if not head.expression_names:
        peak = np.zeros(head.n_expression)
        used = min(50, head.n_expression)
        peak[:used] = rng.normal(0, options.expression_scale, used)
        return peak, min(abs(rng.normal(0, options.jaw)), 0.5)
    names = list(head.expression_names)
    peak = np.zeros(len(names))
    strength = rng.uniform(*options.intensity)
    side = str(rng.choice(("Left", "Right")))
    for pattern in EMOTIONS[emotion]:
        for name in sides(pattern, side if pattern.endswith("?") else None):
            if name in names:
                peak[names.index(name)] += strength
    for name in rng.choice(names, min(options.extra_actions, len(names)), replace=False):
        peak[names.index(str(name))] += rng.uniform(0, 0.25)
    return peak.clip(0, 1), 0.0


def _turns(options: SequenceOptions, progress: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The head's whole turn in each frame as axis times angle, n×3, between two ends the shortest way."""
    yaw, pitch, roll = rng.normal(0, 1, (2, 3)).T * np.array(options.yaw_pitch_roll)[:, None]
    ends = Rotation.from_euler("YXZ", np.stack([yaw, pitch, roll], 1), degrees=True)
    return Slerp([0.0, 1.0], ends)(progress).as_rotvec()


def _camera(head: HeadModel, options: SequenceOptions, rng: np.random.Generator) -> Camera:
    """A camera at a distance where the mean head fills the drawn share of the picture."""
    height, width = options.size
    low, high = (end.tolist() for end in torch.aminmax(head.template.double(), dim=0))
    # The face is looked at; what hangs below the chin may leave the picture.
    eyes = head.joints()[0, 3:].mean(0).tolist()
    view, fill = rng.uniform(*options.fields_of_view), rng.uniform(*options.fill)
    tall = high[1] - low[1]
    shown = tall / fill * min(height, width) / height
    distance = 0.5 * shown / math.tan(math.radians(view) / 2)
    target = (0.0, 0.5 * (low[1] + high[1]), eyes[2] - 0.06)
    return Camera.facing(target, distance, view, height, width)


@dataclasses.dataclass(frozen=True)
class FaceFlow:
    """Flow of one pair of frames, on the pixels of the first.

    Attributes:
        facial: 2×H×W float32, pixels: head and expression move. Outside of the mask it is the body's, which moves with
            the root, and the background's.
        head: 2×H×W float32, pixels: the head moves and the expression stays.
        expression: 2×H×W float32, their difference; 0 outside of the mask.
        mask: H×W bool, where the head is.
        visible: H×W bool, where the second frame shows the same point.
    """

    facial: Tensor
    head: Tensor
    expression: Tensor
    mask: Tensor
    visible: Tensor


class FaceScene:
    """Pictures, flows, depth, regions and landmarks of one sequence, on the head's device.

    Jaw and gaze count as expression; root, neck and translation are the head.

    Args:
        head: whose sequence it is.
        sequence: what is shown.
        options: that it was drawn with.
        skin: drawn from the sequence's seed if none is given.
        background: a still picture 3×H×W in 0..255; drawn likewise, and moved as the options say, if none is given.
    """

    def __init__(
        self,
        head: HeadModel,
        sequence: FaceSequence,
        options: SequenceOptions | None = None,
        skin: Skin | None = None,
        background: Tensor | None = None,
    ) -> None:
        self.head = head
        self.sequence = sequence
        self.options = options or SequenceOptions()
        rng = np.random.default_rng(derive_seed(sequence.seed, "skin"))
        self.skin = SkinSource(self.options.skins).draw(rng) if skin is None else skin
        self.backdrop = self._backdrop() if background is None else None
        self.background = self.backdrop.picture(0.0) if background is None else background
        self.state = functools.lru_cache(maxsize=8)(self._state)
        self.surface = functools.lru_cache(maxsize=8)(self._surface)
        self._whole = functools.lru_cache(maxsize=8)(self._dressed)
        self._seen = functools.lru_cache(maxsize=8)(self._rasterized)

    def __len__(self) -> int:
        return len(self.sequence)

    def _backdrop(self) -> Backdrop:
        return draw_backdrop(self.sequence.seed, self.sequence.camera, self.options.backgrounds, self.options.drift)

    @functools.cached_property
    def body(self) -> Body | None:
        """What the head stands on."""
        if not self.options.body:
            return None
        rng = np.random.default_rng(derive_seed(self.sequence.seed, "body"))
        return Body.draw(self.head, torch.as_tensor(self.sequence.shape[None]).to(self.head.template), rng)

    @functools.cached_property
    def _faces(self) -> Tensor:
        return with_body(self.head, self.body)

    @property
    def _still(self) -> bool:
        return self.backdrop is None or not self.options.drift

    def _time(self, frame: int) -> float:
        return frame / (len(self) - 1)

    def _state(self, frame: int, expression: int) -> State:
        values = self.sequence.shape, self.sequence.expression[expression], *self._place(frame, expression)
        tensors = [torch.as_tensor(value[None]).to(self.head.template) for value in values]
        with torch.no_grad():
            return State(self.head(*tensors)[0], self.sequence.camera)

    def _place(self, frame: int, expression: int) -> tuple[np.ndarray, np.ndarray]:
        """Pose and translation."""
        sequence = self.sequence
        pose = np.concatenate([sequence.pose[frame, :6], sequence.pose[expression, 6:]])
        return pose, sequence.translation[frame]

    def _dressed(self, frame: int, expression: int) -> State:
        """The head's state, with the body's vertices after its own."""
        state = self.state(frame, expression)
        if self.body is None:
            return state
        pose, translation = (torch.as_tensor(value).to(state.vertices) for value in self._place(frame, expression))
        return State(torch.cat((state.vertices, self.body.posed(pose, translation))), state.camera)

    def _rasterized(self, frame: int, expression: int) -> Surface:
        return rasterize(self._whole(frame, expression), self._faces)

    def _surface(self, frame: int, expression: int) -> Surface:
        """What each pixel shows of the head."""
        seen = self._seen(frame, expression)
        return seen if self.body is None else seen.part(0, len(self.head.faces))

    def image(self, frame: int, expression: int | None = None) -> Tensor:
        """The picture of a frame, 3×H×W uint8.

        Args:
            frame: whose head pose, light and background it has.
            expression: frame whose expression it has; its own by default.
        """
        state = self._whole(frame, frame if expression is None else expression)
        light = dataclasses.replace(self.sequence.light, intensity=float(self.sequence.intensity[frame]))
        background = self.background if self._still else self.backdrop.picture(self._time(frame))
        picture = shade(self.head, state, self.skin, light, background, self.options.supersample, self.body)
        return picture.round().to(torch.uint8)

    def flow(self, frame: int, then: int | None = None) -> FaceFlow:
        """Exact flow from a frame to another, the next one by default."""
        then = frame + 1 if then is None else then
        faces, now, later = self._faces, self._whole(frame, frame), self._whole(then, then)
        surface, other = self._seen(frame, frame), self._seen(then, then)
        facial = optical_flow(surface, faces, now, later).float()
        head = optical_flow(surface, faces, now, self._whole(then, frame)).float()
        visible = visible_in(surface, faces, now, later, other)
        behind = ~surface.mask
        if self._still:
            visible = visible | (behind & ~other.mask)
        else:
            moved, inside = self.backdrop.flow(self._time(frame), self._time(then))
            moved, inside = moved.to(facial), inside.to(behind.device)
            facial, head = (torch.where(behind, moved, motion) for motion in (facial, head))
            visible = visible | (behind & inside & ~_look_up(other.mask, moved))
        return FaceFlow(facial, head, facial - head, self.surface(frame, frame).mask, visible)

    def depth(self, frame: int) -> Tensor:
        """Depth H×W float32 in metres of head and body, 0 where there is neither."""
        return self._seen(frame, frame).depth.float()

    def regions(self, frame: int) -> Tensor:
        """Labels H×W int64, indices into :data:`ffplug_face.models.head.REGIONS`; -1 outside of the head."""
        surface = self.surface(frame, frame)
        labels = self.head.regions[surface.triangle.clamp(min=0).long()]
        return torch.where(surface.mask, labels, -1)

    def landmarks(self, frame: int) -> Tensor:
        """Where ``head.landmark_names`` lie in a frame, L×2 in pixels; whether they are seen or not."""
        state = self.state(frame, frame)
        points = self.head.landmarks(state.vertices[None].double())[0]
        return state.camera.project(points)[:, :2]


def _look_up(values: Tensor, flow: Tensor) -> Tensor:
    """The values H×W at the pixels nearest to where a flow (2×H×W) leads; what leaves the picture takes its edge's."""
    height, width = values.shape
    y = (torch.arange(height, device=flow.device)[:, None] + flow[1]).round().clamp(0, height - 1)
    x = (torch.arange(width, device=flow.device) + flow[0]).round().clamp(0, width - 1)
    return values.flatten()[(y * width + x).long()]


def face_scene(head: HeadModel, seed: int, index: int = 0, **options: Any) -> FaceScene:
    """Draw a sequence and make its scene; ``options`` are those of :class:`SequenceOptions`."""
    chosen = SequenceOptions(**options)
    return FaceScene(head, draw_sequence(head, seed, index, chosen), chosen)
