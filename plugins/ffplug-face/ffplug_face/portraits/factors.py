"""What a procedural portrait follows from: identity, action units, expression, valence and arousal, view and light."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from ffplug.datasets.seeding import derive_seed
from ffplug.errors import ConfigError, did_you_mean

IDENTITY = (
    "face_width",
    "face_height",
    "eye_distance",
    "eye_size",
    "nose_width",
    "nose_length",
    "mouth_width",
    "lip_thickness",
    "nose_height",
    "mouth_height",
    "skin_tone",
    "hair_colour",
)
"""What a person's 12 numbers in -1..1 change."""

ACTION_UNITS = (1, 2, 4, 6, 7, 10, 12, 15, 23, 24, 25, 26)
"""The action units, by Ekman and Friesen's numbers, in Aff-Wild2's order; each is in 0..1."""

EXPRESSIONS = ("neutral", "anger", "disgust", "fear", "happiness", "sadness", "surprise")
"""The seven expressions, in Aff-Wild2's order; the index is the class."""

PROTOTYPES: Mapping[str, Mapping[int, float]] = {
    "neutral": {},
    "anger": {4: 0.9, 7: 0.7, 23: 0.8, 24: 0.6},
    "disgust": {4: 0.4, 7: 0.6, 10: 1.0, 15: 0.3},
    "fear": {1: 0.9, 2: 0.6, 4: 0.6, 7: 0.4, 25: 0.8, 26: 0.4},
    "happiness": {6: 0.9, 12: 1.0, 25: 0.6},
    "sadness": {1: 0.8, 4: 0.6, 15: 0.9},
    "surprise": {1: 0.9, 2: 0.9, 25: 0.9, 26: 1.0},
}
"""Action units of each expression at full intensity."""

AFFECT: Mapping[str, tuple[float, float]] = {
    "neutral": (0.0, 0.0),
    "anger": (-0.6, 0.7),
    "disgust": (-0.6, 0.3),
    "fear": (-0.6, 0.8),
    "happiness": (0.8, 0.5),
    "sadness": (-0.7, -0.4),
    "surprise": (0.2, 0.85),
}
"""Valence and arousal of each expression at full intensity, in -1..1."""


@dataclasses.dataclass(frozen=True)
class PortraitOptions:
    """What portraits are drawn from.

    Attributes:
        expressions: which of :data:`EXPRESSIONS` to choose from.
        intensity: range of an expression's strength.
        noise: deviation of each action unit that an expression uses.
        stray: chance that an action unit which it does not use joins in, up to a quarter.
        pitch_yaw_roll: largest turns of the head about x, y and z, radians.
        shift: largest move to the side, up and down, in the units of depth (the head is about 0.1 wide).
        ambient: range of the even light.
        diffuse: range of the lamp's strength.
        tilt: largest x and y of the lamp's direction, whose z is 1.
        every: frames from one drawn state of a video to the next, with a smooth way between; 1 makes frames that have
            nothing in common but the person.
        background: ``plain`` or ``noise``, of colours that each frame draws; ``mixed``; ``same``, one colour for all.
    """

    expressions: tuple[str, ...] = EXPRESSIONS
    intensity: tuple[float, float] = (0.4, 1.0)
    noise: float = 0.05
    stray: float = 0.1
    pitch_yaw_roll: tuple[float, float, float] = (0.25, 0.6, 0.12)
    shift: float = 0.01
    ambient: tuple[float, float] = (0.35, 0.65)
    diffuse: tuple[float, float] = (0.35, 0.65)
    tilt: float = 0.6
    every: int = 1
    background: str = "mixed"

    def __post_init__(self) -> None:
        for name in ("expressions", "intensity", "pitch_yaw_roll", "ambient", "diffuse"):
            value = getattr(self, name)
            object.__setattr__(self, name, (value,) if isinstance(value, str) else tuple(value))
        if not self.expressions:
            raise ConfigError(f"expressions is empty: expected one or more of {', '.join(EXPRESSIONS)}")
        for name in self.expressions:
            if name not in EXPRESSIONS:
                near = did_you_mean(str(name), EXPRESSIONS)
                raise ConfigError(f"expressions: {name!r}: expected some of {', '.join(EXPRESSIONS)}{near}")
        for name in ("intensity", "ambient", "diffuse"):
            value = getattr(self, name)
            if len(value) != 2 or not 0 <= value[0] <= value[1] <= 1:
                raise ConfigError(f"{name}={value}: expected a range within 0..1")
        if len(self.pitch_yaw_roll) != 3 or min(self.pitch_yaw_roll) < 0 or max(self.pitch_yaw_roll) > 1:
            raise ConfigError(f"pitch_yaw_roll={self.pitch_yaw_roll}: expected three angles within 0..1 radians")
        for name, most in (("noise", 1.0), ("stray", 1.0), ("shift", 0.05), ("tilt", 2.0)):
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"{name}={getattr(self, name)}: expected 0..{most:g}")
        if self.every < 1:
            raise ConfigError(f"every={self.every}: expected at least 1")
        if self.background not in ("plain", "noise", "mixed", "same"):
            raise ConfigError(f"background={self.background!r}: expected plain, noise, mixed or same")

    @classmethod
    def of(cls, changes: Mapping[str, object]) -> PortraitOptions:
        """Options from values by name, as ``ffplug synth --set`` takes them.

        Raises:
            ConfigError: a name is unknown, or a value out of its range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in changes:
            if name not in known:
                raise ConfigError(f"{name}: portraits have no such option{did_you_mean(name, known)}")
        return cls(**changes)


@dataclasses.dataclass(frozen=True, eq=False)
class Portraits:
    """Everything that N portraits follow from; an index, a slice or an array of indices chooses some.

    Attributes:
        person: N int64, the person's number.
        identity: N×12 float32 in -1..1, the same in all portraits of a person; see :data:`IDENTITY`.
        action_units: N×12 float32 in 0..1; see :data:`ACTION_UNITS`.
        expression: N int64, index into :data:`EXPRESSIONS`.
        affect: N×2 float32, valence and arousal in -1..1.
        view: N×6 float32: pitch, yaw, roll in radians, then the move along x, y, z.
        light: N×4 float32: ambient, diffuse, and the direction's x and y where its z is 1.
        background: N int64, seeds of the backgrounds.
        noisy: N bool, whether the background is noise, not plain.
    """

    person: np.ndarray
    identity: np.ndarray
    action_units: np.ndarray
    expression: np.ndarray
    affect: np.ndarray
    view: np.ndarray
    light: np.ndarray
    background: np.ndarray
    noisy: np.ndarray

    def __len__(self) -> int:
        return len(self.person)

    def __getitem__(self, chosen: int | slice | np.ndarray | Sequence[int]) -> Portraits:
        if isinstance(chosen, (int, np.integer)):
            chosen = [chosen]
        return Portraits(**{name: value[chosen] for name, value in self.arrays().items()})

    def arrays(self) -> dict[str, np.ndarray]:
        """All attributes by name, for a file."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def replaced(self, **changes: np.ndarray) -> Portraits:
        """These portraits with other values, such as ``identity=faces.identity[::-1]``."""
        return dataclasses.replace(self, **changes)

    @classmethod
    def joined(cls, parts: Sequence[Portraits]) -> Portraits:
        """Several sets as one, in order."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in names})


def draw_identity(seed: int, person: int) -> np.ndarray:
    """A person's 12 numbers, float32 in -1..1; they follow from the seed and the person's number alone."""
    return np.random.default_rng(derive_seed(seed, "portrait person", person)).uniform(-1, 1, 12).astype(np.float32)


def draw_portraits(
    seed: int, person: int, frames: int = 16, video: int = 0, options: PortraitOptions | None = None
) -> Portraits:
    """Draw a video of a person: what its frames show, no pictures yet.

    With ``options.every`` of 1 frames are independent. Else a state is drawn every so many frames, all numbers go
    smoothly from one to the next, and a frame's expression is that of the nearer one; the background stays.

    Args:
        seed: of the set.
        person: number of the person.
        frames: how many portraits, at least 1.
        video: number of the video; another one is the same person in other states.
        options: see :class:`PortraitOptions`.

    Returns:
        The portraits; they follow from the arguments alone.
    """
    options = options or PortraitOptions()
    if frames < 1:
        raise ConfigError(f"frames={frames}: expected at least 1")
    rng = np.random.default_rng(derive_seed(seed, "portrait video", person, video))
    states = frames if options.every == 1 else -(-(frames - 1) // options.every) + 1
    expression, units, affect = _draw_expressions(rng, states, options)
    view = np.zeros((states, 6))
    view[:, :3] = rng.uniform(-1, 1, (states, 3)) * options.pitch_yaw_roll
    view[:, 3:5] = rng.uniform(-options.shift, options.shift, (states, 2))
    light = np.concatenate(
        [
            rng.uniform(*options.ambient, (states, 1)),
            rng.uniform(*options.diffuse, (states, 1)),
            rng.uniform(-options.tilt, options.tilt, (states, 2)),
        ],
        axis=1,
    )
    noisy = np.full(states, options.background == "noise")
    if options.background == "mixed":
        noisy = rng.random(states) < 0.5
    seeds = rng.integers(0, 2**62, states) * (options.background != "same")
    if options.every > 1:
        at = np.arange(frames) / options.every
        first = np.minimum(at.astype(int), states - 1)
        then = np.minimum(first + 1, states - 1)
        share = (at - first)[:, None]
        share = share * share * (3 - 2 * share)
        units, affect, view, light = (a[first] + share * (a[then] - a[first]) for a in (units, affect, view, light))
        expression = np.where(share[:, 0] < 0.5, expression[first], expression[then])
        noisy, seeds = noisy[:1].repeat(frames), seeds[:1].repeat(frames)
    return Portraits(
        person=np.full(frames, person),
        identity=np.tile(draw_identity(seed, person), (frames, 1)),
        action_units=units.astype(np.float32),
        expression=expression,
        affect=affect.astype(np.float32),
        view=view.astype(np.float32),
        light=light.astype(np.float32),
        background=seeds,
        noisy=noisy,
    )


def _draw_expressions(
    rng: np.random.Generator, count: int, options: PortraitOptions
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class, action units and affect of each state."""
    choice = np.array([EXPRESSIONS.index(name) for name in options.expressions])
    expression = rng.choice(choice, count)
    prototypes = np.array([[PROTOTYPES[name].get(unit, 0.0) for unit in ACTION_UNITS] for name in EXPRESSIONS])
    affects = np.array([AFFECT[name] for name in EXPRESSIONS])
    strength = rng.uniform(*options.intensity, (count, 1))
    used = prototypes[expression] > 0
    units = strength * prototypes[expression] + used * rng.normal(0, options.noise, used.shape)
    stray = ~used & (rng.random(used.shape) < options.stray)
    units = units + stray * rng.uniform(0, 0.25, used.shape)
    affect = strength * affects[expression] + rng.normal(0, 0.03, (count, 2))
    return expression, units.clip(0, 1), affect.clip(-1, 1)
