"""Gaussian heads that move: their pictures, depth, masks and flow.

Three definitions of the flow that Gaussians show, composited with the weights of their colours and divided by alpha:

- ``center``: the motion of each Gaussian's projected centre, as SRFlow (arXiv 2601.06479) describes it;
- ``affine2d``: each pixel rides on the projected Gaussian, x' = u' + B'B⁻¹(p - u) with the symmetric square root B of
  its covariance (Gao et al., GaussianFlow, 2024); which root is taken is ambiguous by a turn, so it is for comparison;
- ``ray``: the point where a Gaussian is densest along the pixel's ray moves with the Gaussian. It is exact where a thin
  Gaussian moves rigidly, and the closest to the surface's flow; the default.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from ffplug_face.models import HeadModel
from ffplug_face.models.head import REGIONS
from ffplug_face.rendering import Camera, ProceduralSkin, Skin, Surface
from ffplug_face.rendering.picture import to_srgb
from ffplug_face.sequences import FaceScene, SequenceOptions, draw_sequence
from torch import Tensor
from torch.nn import functional

from ffplug.datasets.base import choose
from ffplug.datasets.seeding import derive_seed
from ffplug.ops.gaussians import (
    GaussianProjection,
    NextFrame,
    camera_centre,
    gaussian_rasterize,
    gaussian_ray_flow,
    project_gaussians,
    ray_maps,
)
from ffplug_srflownet.splats import Y0, Splats

DEFINITIONS = ("ray", "center", "affine2d")
LEAST_ALPHA = 0.5
"""What is more opaque than this is the person, where the flow is known; elsewhere the flow is 0."""

_SLACK = 0.004, 0.01
"""How much nearer (metres, and share of the depth) the second frame may be than a point that is still visible."""


class SplatFrame(NamedTuple):
    """What a camera sees of Gaussians.

    Attributes:
        colour: 3×H×W in 0..1, over black.
        alpha: H×W, 0..1.
        depth: H×W, expected depth in metres; 0 where there is nothing.
    """

    colour: Tensor
    alpha: Tensor
    depth: Tensor

    @property
    def mask(self) -> Tensor:
        """Where the person is, H×W bool."""
        return self.alpha > LEAST_ALPHA


class SplatFlow(NamedTuple):
    """Flow of one pair of frames on the pixels of the first.

    Attributes:
        flow: 2×H×W float32, pixels; 0 outside of the mask.
        mask: H×W bool, where the person is.
        visible: H×W bool, where the second frame shows the same point; the background, which does not move, is visible
            unless the person covers it there.
        depth_change: H×W, metres by which the point goes away from the camera: with ``flow`` and depth, the scene
            flow; 0 outside of the mask.
    """

    flow: Tensor
    mask: Tensor
    visible: Tensor
    depth_change: Tensor


class View(NamedTuple):
    """Gaussians of the world and the camera that sees them."""

    splats: Splats
    camera: Camera

    def matrices(self) -> tuple[Tensor, Tensor]:
        """World to camera 4×4, and intrinsics 3×3 for pixels whose centre is at +½."""
        camera, like = self.camera, self.splats.means
        viewmat = torch.eye(4)
        viewmat[:3, :3], viewmat[:3, 3] = torch.tensor(camera.rotation), torch.tensor(camera.translation)
        middle = (camera.width / 2, camera.height / 2)
        intrinsics = torch.tensor([[camera.focal, 0, middle[0]], [0, camera.focal, middle[1]], [0, 0, 1]])
        return viewmat.to(like), intrinsics.to(like)

    def cloud(self) -> tuple[Tensor, ...]:
        """The first arguments of the projection: means, quaternions, scales, both matrices."""
        return (self.splats.means, self.splats.quats, self.splats.scales, *self.matrices())


@torch.no_grad()
def look(view: View) -> SplatFrame:
    """Render a frame."""
    means, quats, scales, viewmat, intrinsics = view.cloud()
    colours = view.splats.colours(camera_centre(viewmat))
    size = view.camera.width, view.camera.height
    seen = gaussian_rasterize(means, quats, scales, view.splats.opacities, colours, viewmat, intrinsics, *size)
    return SplatFrame(seen.image.clamp(max=1), seen.alpha, _divide(seen.depth, seen.alpha))


@torch.no_grad()
def splat_flow(now: View, then: View, there: SplatFrame, definition: str = "ray") -> SplatFlow:
    """Flow between two states of the same Gaussians.

    Equal states give exactly zero.

    Args:
        now: the state whose pixels the flow belongs to.
        then: the state that it leads to; its camera's picture has the same size.
        there: what :func:`look` gives for ``then``.
        definition: one of :data:`DEFINITIONS`, see the module's text.
    """
    choose("definition", definition, DEFINITIONS)
    width, height = now.camera.width, now.camera.height
    before, after = now.cloud(), then.cloud()
    opacities = now.splats.opacities
    first, second = (project_gaussians(*cloud, width, height) for cloud in (before, after))
    # What the second camera has behind it has no flow: it is left out.
    opacities = torch.where(first.visible & second.visible, opacities, 0.0)
    moved = torch.where((first.visible & second.visible)[:, None], second.means - first.means, 0.0)
    features = opacities.new_empty(len(opacities), 0)
    if definition == "affine2d":
        features = _affine(first, second, moved, width, height)
    seen = gaussian_rasterize(
        *before[:3], opacities, features, *before[3:], width, height, next_frame=NextFrame(*after)
    )
    if definition == "center":
        total = seen.flow
    elif definition == "affine2d":
        x, y = _pixels(width, height, like=seen.alpha)
        shift, along, down = seen.image[:2], seen.image[2:4], seen.image[4:]
        total = shift + along * x + down * y
    else:
        depths = torch.where(first.visible, first.depths, 0.0)
        shape = first.means, first.conics, opacities, depths
        # The same sum without any motion is 0 but for rounding, which the difference takes out.
        total = gaussian_ray_flow(*shape, ray_maps(first.means, *before, *after), height, width)
        total = total - gaussian_ray_flow(*shape, ray_maps(first.means, *before, *before), height, width)
    mask = seen.alpha > LEAST_ALPHA
    flow = torch.where(mask, _divide(total, seen.alpha), 0.0)
    next_depth = _divide(seen.next_depth, seen.alpha)
    change = torch.where(mask, next_depth - _divide(seen.depth, seen.alpha), 0.0)
    return SplatFlow(flow, mask, _visible(flow, mask, next_depth, there), change)


def _divide(total: Tensor, alpha: Tensor) -> Tensor:
    return torch.where(alpha > 0, total / alpha.clamp(min=1e-6), 0.0)


def _pixels(width: int, height: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel centres relative to the picture's middle, W and H×1."""
    x = torch.arange(width, dtype=like.dtype, device=like.device) + 0.5 - width / 2
    y = torch.arange(height, dtype=like.dtype, device=like.device) + 0.5 - height / 2
    return x, y[:, None]


def _affine(first: GaussianProjection, second: GaussianProjection, moved: Tensor, width: int, height: int) -> Tensor:
    """Each Gaussian's flow at (x, y) from the picture's middle as shift + x·along + y·down, N×6."""
    roots = [_root(projection.covariances) for projection in (first, second)]
    growth = (roots[1] - roots[0]) @ torch.linalg.inv(roots[0])  # 0 where nothing moves
    growth = torch.where((first.visible & second.visible)[:, None, None], growth, 0.0)
    place = first.means - first.means.new_tensor([width / 2, height / 2])
    place = torch.where(first.visible[:, None], place, 0.0)
    return torch.cat((moved - (growth @ place[..., None])[..., 0], growth[..., 0], growth[..., 1]), 1)


def _root(matrices: Tensor) -> Tensor:
    """The symmetric square roots of positive definite N×2×2."""
    det = torch.linalg.det(matrices).clamp(min=0).sqrt()
    trace = matrices.diagonal(dim1=1, dim2=2).sum(-1)
    eye = torch.eye(2, dtype=matrices.dtype, device=matrices.device)
    return (matrices + det[:, None, None] * eye) / (trace + 2 * det).sqrt()[:, None, None]


def _visible(flow: Tensor, mask: Tensor, next_depth: Tensor, there: SplatFrame) -> Tensor:
    """Where the second frame shows the point: inside of the picture, on the person, with nothing nearer."""
    height, width = mask.shape
    x, y = _pixels(width, height, like=flow)
    target = torch.stack(((x + flow[0]) / (width / 2), (y + flow[1]) / (height / 2)), -1)
    inside = (target.abs() <= 1).all(-1)
    planes = torch.stack((there.alpha, there.depth * there.alpha))[None]
    alpha, depth = functional.grid_sample(planes, target[None], padding_mode="border", align_corners=False)[0]
    slack = (_SLACK[1] * next_depth).clamp(min=_SLACK[0])
    shown = inside & (alpha > LEAST_ALPHA) & (_divide(depth, alpha) > next_depth - slack)
    return torch.where(mask, shown, ~there.mask)


def splats_on_mesh(
    faces: Tensor, colours: Tensor, spread: float = 0.55, thickness: float = 0.06, opacity: float = 0.95
) -> Splats:
    """One flat Gaussian for each triangle F×3, bound to it, with a colour F×3 (0..1) that does not depend on the view.

    Spread along the triangle and thickness along its normal are standard deviations in units of the triangle's size.
    """
    count = len(faces)
    return Splats(
        means=torch.zeros(count, 3),
        quats=torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(count, 1),
        scales=torch.tensor([spread, thickness, spread]).repeat(count, 1),
        opacities=torch.full((count,), opacity),
        sh=((colours.float() - 0.5) / Y0)[:, None],
        binding=torch.arange(count),
    )


class SplatScene:
    """Gaussians bound to a mesh that moves, frame by frame.

    Args:
        splats: bound to the mesh's triangles.
        faces: F×3.
        vertices: the mesh V×3 (metres) of a frame, called with its number.
        length: number of frames.
        camera: that sees them, or one for each frame.
        background: colour (3) or picture 3×H×W in 0..1; it does not move. SRFlow's is white.
        labels: F, the region of each triangle, an index into :data:`ffplug_face.models.head.REGIONS`; None where that
            is not known.
        sh_frame: of the colours, see :meth:`Splats.bound_to`.

    Raises:
        ValueError: there are cameras for another number of frames.
    """

    def __init__(
        self,
        splats: Splats,
        faces: Tensor,
        vertices: Callable[[int], Tensor],
        length: int,
        camera: Camera | Sequence[Camera],
        background: Sequence[float] | Tensor = (1.0, 1.0, 1.0),
        labels: Tensor | None = None,
        sh_frame: str = "world",
    ) -> None:
        self.splats, self.faces, self.vertices, self.length = splats, faces, vertices, length
        self.cameras = (camera,) * length if isinstance(camera, Camera) else tuple(camera)
        if len(self.cameras) != length:
            raise ValueError(f"SplatScene: {len(self.cameras)} cameras for {length} frames")
        self.labels, self.sh_frame = labels, sh_frame
        background = torch.as_tensor(background, dtype=torch.float32)
        self.background = background[:, None, None] if background.ndim == 1 else background
        self.view = functools.lru_cache(maxsize=8)(self._view)
        self.frame = functools.lru_cache(maxsize=8)(self._frame)

    def __len__(self) -> int:
        return self.length

    def _view(self, frame: int) -> View:
        bound = self.splats.bound_to(self.vertices(frame).float(), self.faces, self.sh_frame)
        return View(bound, self.cameras[frame])

    def _frame(self, frame: int) -> SplatFrame:
        return look(self.view(frame))

    def image(self, frame: int) -> np.ndarray:
        """The picture of a frame, H×W×3 uint8."""
        seen = self.frame(frame)
        picture = (seen.colour + (1 - seen.alpha) * self.background).clamp(0, 1)
        return (picture * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()

    @torch.no_grad()
    def regions(self, frame: int) -> Tensor | None:
        """Labels H×W int64 of the region that weighs most in each pixel; -1 beside the person, None without labels."""
        if self.labels is None:
            return None
        shares = functional.one_hot(self.labels[self.splats.binding], len(REGIONS)).float()
        view = self.view(frame)
        means, quats, scales, *matrices = view.cloud()
        size = view.camera.width, view.camera.height
        seen = gaussian_rasterize(means, quats, scales, view.splats.opacities, shares, *matrices, *size)
        return torch.where(self.frame(frame).mask, seen.image.argmax(0), -1)

    def flow(self, frame: int, then: int, definition: str = "ray") -> SplatFlow:
        """Flow from a frame to another, see :func:`splat_flow`."""
        return splat_flow(self.view(frame), self.view(then), self.frame(then), definition)


def head_scene(
    head: HeadModel, seed: int, index: int, options: SequenceOptions, background: str = "white"
) -> SplatScene:
    """Draw a procedural Gaussian head: a head model's triangles with skin, and the motion of a face sequence.

    Colours do not depend on light or view, so that brightness is constant along the flow.

    Args:
        head: whose mesh it is.
        seed: of the set.
        index: of the sequence; it follows from (seed, index, options) and the head alone.
        options: see :class:`ffplug_face.sequences.SequenceOptions`.
        background: ``"white"`` as SRFlow's, or ``"drawn"`` as the options say.
    """
    sequence = draw_sequence(head, seed, index, options)
    skin = ProceduralSkin.draw(np.random.default_rng(derive_seed(sequence.seed, "splats")))
    white = choose("background", background, ("white", "drawn")) == "white"
    scene = FaceScene(head, sequence, options, skin, torch.full((3, 1, 1), 255.0) if white else None)
    splats = splats_on_mesh(head.faces, triangle_colours(head, skin))
    return SplatScene(
        splats,
        head.faces,
        lambda frame: scene.state(frame, frame).vertices,
        len(sequence),
        sequence.camera,
        scene.background / 255,
        head.regions,
    )


def triangle_colours(head: HeadModel, skin: Skin) -> Tensor:
    """The skin's colour (sRGB, 0..1) in the middle of each of the head's triangles, F×3."""
    triangles = torch.arange(len(head.faces), dtype=torch.int32)[None]
    middle = torch.full((*triangles.shape, 3), 1 / 3, dtype=torch.float64)
    surface = Surface(triangles, middle, torch.ones(triangles.shape, dtype=torch.float64))
    return to_srgb(skin.colours(head, surface)[0]).clamp(0, 1)
