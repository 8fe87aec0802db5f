"""3D Gaussian splatting: colours, alpha, depth, flow and any other features of a cloud of Gaussians."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ffplug.ops.build import CSRC
from ffplug.ops.contract import Op, register_op
from ffplug.ops.cuda import CudaSource
from ffplug.ops.native import NativeSource

_native = NativeSource(CSRC / "gaussians.cpp")
_cuda = CudaSource(CSRC / "gaussians.cu")
_TILE = 16
_CHANNELS = 8  # that a block of the CUDA kernel takes
_CHUNK = 1 << 21  # pairs of Gaussian and pixel that the reference holds at a time
_ALPHA_MAX, _ALPHA_MIN, _STOP = 0.99, 1 / 255, 1e-4


def _example_splats(make: Callable[..., Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Six Gaussians over an image of 5×7 pixels: means, conics, opacities and depths."""
    low = make(6, 2, 2, scale=2.0).tril()
    inverse = torch.linalg.inv(low.double() @ low.double().mT + torch.eye(2, device=low.device)).to(low.dtype)
    conics = torch.stack((inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]), 1)
    means = make.uniform(6, 2, low=-0.1, high=1.1) * make.tensor([7, 5])
    return means, conics, make.uniform(6, low=0.1, high=0.9), make.uniform(6, low=1, high=3)


@register_op
class GaussianComposite(Op):
    """Composite projected Gaussians front to back (Kerbl et al., 3D Gaussian Splatting, section 4).

    Pixel (x, y) is sampled at (x + ½, y + ½). With its offset d from a mean and the conic (a, b, c),
    σ = ½(a·dx² + c·dy²) + b·dx·dy and α = min(alpha_max, opacity·e^−σ); what has α < alpha_min is skipped, and that
    is the only cut-off. In order of depth, ties by index, with transmittance T (1 at first): where T(1−α) ≤ stop the
    pixel ends and leaves that Gaussian out; else its weight is w = αT and T becomes T(1−α). Gaussians whose conic is
    not positive definite, or that are not finite, are skipped.

    Args (of the call):
        means: M×2, x and y in pixels.
        conics: M×3, inverses of the covariances: xx, xy, yy.
        opacities: M, 0..1.
        features: M×C.
        depths: M; they give the order alone.
        background: C; None for 0.
        height, width: of the image.
        alpha_max, alpha_min, stop: the constants above.

    Returns:
        Σ w·feature + T·background, C×H×W; alpha 1 − T, H×W; and in int32, H×W each: the number of Gaussians that
        contribute, the last one met while T > ½ (the median), the one of greatest weight (the first of equals); the
        two indices are -1 where there is none.

    Raises:
        ValueError: shapes or constants are not as above.
    """

    name = "gaussian_composite"
    schema = (
        "(Tensor means, Tensor conics, Tensor opacities, Tensor features, Tensor depths, Tensor background, int height,"
        " int width, float alpha_max, float alpha_min, float stop) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
    )
    differentiable = ("means", "conics", "opacities", "features", "background")
    saves_outputs = True
    nondeterministic = frozenset({"cuda_backward"})
    half_tolerance = 5e-2
    tolerance = 5e-5

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        means, conics, opacities, depths = _example_splats(make)
        return means, conics, opacities, make(6, 3), depths, make(3), 5, 7

    def prepare(  # noqa: D102
        self,
        means: Tensor,
        conics: Tensor,
        opacities: Tensor,
        features: Tensor,
        depths: Tensor,
        background: Tensor | None,
        height: int,
        width: int,
        alpha_max: float = _ALPHA_MAX,
        alpha_min: float = _ALPHA_MIN,
        stop: float = _STOP,
    ) -> tuple:
        dtype = _check(self.name, means, conics, opacities, depths, height, width, alpha_max, alpha_min, stop)
        if features.dim() != 2 or len(features) != len(means):
            raise ValueError(f"{self.name}: features {tuple(features.shape)}: expected {len(means)}×C, as means")
        if background is None:
            background = means.new_zeros(features.shape[1])
        if background.shape != features.shape[1:]:
            raise ValueError(f"{self.name}: background {tuple(background.shape)} for {features.shape[1]} channels")
        tensors = (means, conics, opacities, features, depths, background)
        return *(t.to(dtype) for t in tensors), height, width, alpha_max, alpha_min, stop

    def reference(  # noqa: D102
        self,
        means: Tensor,
        conics: Tensor,
        opacities: Tensor,
        features: Tensor,
        depths: Tensor,
        background: Tensor,
        height: int,
        width: int,
        alpha_max: float,
        alpha_min: float,
        stop: float,
    ) -> tuple:
        order = _order(depths)
        numbered = torch.cat((order.new_full((1,), -1), order)).int()
        parts = []
        for pixels, weight, before, _ in _weights(
            means, conics, opacities, order, height, width, alpha_max, alpha_min, stop
        ):
            rank = torch.arange(1, len(order) + 1, device=means.device)[:, None]
            keep = weight > 0
            alpha = weight.sum(0)
            image = features[order].T @ weight + (1 - alpha) * background[:, None]
            if len(order):
                best = weight.amax(0)
                top = torch.where(keep & (weight == best), rank, len(order) + 1).amin(0) % (len(order) + 1)
                median = torch.where(keep & (before > 0.5), rank, 0).amax(0)
            else:
                top = median = torch.zeros(pixels.shape[0], dtype=torch.long, device=means.device)
            parts.append((image, alpha, keep.sum(0).int(), numbered[median], numbered[top]))
        image, *others = (torch.cat(part, dim=-1) for part in zip(*parts, strict=True))
        return image.view(-1, height, width), *(other.view(height, width) for other in others)

    def fake(self, means: Tensor, conics: Tensor, opacities: Tensor, features: Tensor, *rest) -> tuple:  # noqa: D102
        shape = rest[2:4]
        whole = [means.new_empty(shape, dtype=torch.int32) for _ in range(3)]
        return means.new_empty(features.shape[1], *shape), means.new_empty(shape), *whole

    def cpp(self, *args) -> tuple:
        """Tiles of 16×16 pixels, vectors along a row."""
        means, conics, opacities, features, depths, background, height, width, *rules = args
        results = self.fake(*args)
        tensors = (t.contiguous() for t in (means, conics, opacities, features, background, _order(depths)))
        _native.call("gaussian_composite", *tensors, *results, *features.shape, height, width, *rules)
        return results

    def cpp_backward(self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args) -> tuple:
        """Front to back once more; a Gaussian adds up its tiles in a fixed order."""
        means, conics, opacities, features, depths, background, height, width, *rules = args
        found = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in args[:4]]
        given = (*grads[:2], means, conics, opacities, features, background, _order(depths), *outputs[:2])
        tensors = (t.contiguous() for t in given)
        _native.call("gaussian_composite_backward", *tensors, *found, *features.shape, height, width, *rules)
        return *found, _grad_background(needs, grads, outputs)

    def cuda(self, *args) -> tuple:
        """A block a tile and eight channels; torch sorts the pairs of tile and Gaussian."""
        means, conics, opacities, features, depths, background, height, width, *rules = args
        results = self.fake(*args)
        grid, lists = _lists(means, conics, opacities, depths, height, width, rules[1])
        grid = (*grid, max(1, -(-features.shape[1] // _CHANNELS)))
        tensors = (*lists, features.contiguous(), background.contiguous(), *results)
        _cuda.launch("gaussian_composite", grid, _TILE * _TILE, *tensors, features.shape[1], height, width, *rules)
        return results

    def cuda_backward(self, needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor], *args) -> tuple:
        """Front to back once more; one atomic addition a warp, Gaussian and number."""
        means, conics, opacities, features, depths, background, height, width, *rules = args
        found = [torch.zeros_like(t, memory_format=torch.contiguous_format) for t in args[:4]]
        grid, lists = _lists(means, conics, opacities, depths, height, width, rules[1])
        tensors = (*grads[:2], *lists, features, background, *outputs[:2])
        tensors = (t.contiguous() for t in tensors)
        kernel, sizes = "gaussian_composite_backward", (features.shape[1], height, width)
        _cuda.launch(kernel, grid, _TILE * _TILE, *tensors, *found, *sizes, *rules)
        return *found, _grad_background(needs, grads, outputs)


@register_op
class GaussianRayFlow(Op):
    """Composite the flow of the surface point that each Gaussian shows at the pixel; no gradient.

    The weights are those of :class:`GaussianComposite`; what they weigh is computed for each pair of pixel and Gaussian
    from 21 numbers in coordinates relative to its mean (:func:`ray_maps`): with q = (dx, dy, 1), the point where the
    Gaussian is densest along the pixel's ray lies at s = (c·q)/(qᵀQq), and is seen after the motion, again relative to
    the mean, at the first two of h = s·A·q + b divided by the third.

    Args (of the call):
        means, conics, opacities, depths, height, width, alpha_max, alpha_min, stop: as of :class:`GaussianComposite`.
        rays: M×21: c (3), Q (6: the upper triangle by rows), A (9, by rows), b (3).

    Returns:
        Σ w·flow, 2×H×W in pixels; divide by alpha for the mean.

    Raises:
        ValueError: shapes or constants are not as above.
    """

    name = "gaussian_ray_flow"
    schema = (
        "(Tensor means, Tensor conics, Tensor opacities, Tensor depths, Tensor rays, int height, int width,"
        " float alpha_max, float alpha_min, float stop) -> Tensor"
    )
    half_tolerance = None  # sixteen bits do not hold a ray's map
    tolerance = 1e-4

    def example(self, make: Callable[..., Tensor]) -> tuple[Any, ...]:  # noqa: D102 (see the base class)
        means, conics, opacities, depths = _example_splats(make)
        rays = torch.cat((make(6, 3, scale=0.1) + make.tensor([0, 0, 5]), make(6, 18, scale=0.1)), 1)
        rays += make.tensor([0, 0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 40])
        return means, conics, opacities, depths, rays, 5, 7

    def prepare(  # noqa: D102
        self,
        means: Tensor,
        conics: Tensor,
        opacities: Tensor,
        depths: Tensor,
        rays: Tensor,
        height: int,
        width: int,
        alpha_max: float = _ALPHA_MAX,
        alpha_min: float = _ALPHA_MIN,
        stop: float = _STOP,
    ) -> tuple:
        dtype = _check(self.name, means, conics, opacities, depths, height, width, alpha_max, alpha_min, stop)
        if tuple(rays.shape) != (len(means), 21):
            raise ValueError(f"{self.name}: rays {tuple(rays.shape)}: expected {len(means)}×21")
        tensors = (t.detach().to(dtype) for t in (means, conics, opacities, depths, rays))
        return *tensors, height, width, alpha_max, alpha_min, stop

    def reference(  # noqa: D102
        self,
        means: Tensor,
        conics: Tensor,
        opacities: Tensor,
        depths: Tensor,
        rays: Tensor,
        height: int,
        width: int,
        alpha_max: float,
        alpha_min: float,
        stop: float,
    ) -> Tensor:
        order = _order(depths)
        centre, upper, turn, shift = rays[order, None].split((3, 6, 9, 3), dim=-1)
        rows = [upper[..., index] for index in ([0, 1, 2], [1, 3, 4], [2, 4, 5])]
        parts = []
        for _, weight, _, offset in _weights(
            means, conics, opacities, order, height, width, alpha_max, alpha_min, stop
        ):
            q = torch.cat((offset, torch.ones_like(offset[..., :1])), dim=-1)  # M×pixels×3
            spread = sum(q[..., k] * (row * q).sum(-1) for k, row in enumerate(rows))
            along = (centre * q).sum(-1) / spread
            seen = [along * (turn[..., 3 * k : 3 * k + 3] * q).sum(-1) + shift[..., k] for k in range(3)]
            flows = [seen[k] / seen[2] - offset[..., k] for k in range(2)]
            parts.append(torch.stack([(torch.where(weight > 0, flow, 0) * weight).sum(0) for flow in flows]))
        return torch.cat(parts, dim=-1).view(2, height, width)

    def fake(self, means: Tensor, conics: Tensor, opacities: Tensor, depths: Tensor, rays: Tensor, *rest) -> Tensor:  # noqa: D102
        return means.new_empty(2, *rest[:2])

    def cpp(self, *args) -> Tensor:
        """Tiles of 16×16 pixels, vectors along a row."""
        means, conics, opacities, depths, rays, height, width, *rules = args
        flow = self.fake(*args)
        tensors = (t.contiguous() for t in (means, conics, opacities, rays, _order(depths)))
        _native.call("gaussian_ray_flow", *tensors, flow, len(means), height, width, *rules)
        return flow

    def cuda(self, *args) -> Tensor:
        """A block a tile."""
        means, conics, opacities, depths, rays, height, width, *rules = args
        flow = self.fake(*args)
        grid, lists = _lists(means, conics, opacities, depths, height, width, rules[1])
        _cuda.launch("gaussian_ray_flow", grid, _TILE * _TILE, *lists, rays.contiguous(), flow, height, width, *rules)
        return flow


def _check(
    name: str,
    means: Tensor,
    conics: Tensor,
    opacities: Tensor,
    depths: Tensor,
    height: int,
    width: int,
    alpha_max: float,
    alpha_min: float,
    stop: float,
) -> torch.dtype:
    """Check what the ops share; returns the type they compute in."""
    number = len(means)
    for argument, tensor, shape in (
        ("means", means, (number, 2)),
        ("conics", conics, (number, 3)),
        ("opacities", opacities, (number,)),
        ("depths", depths, (number,)),
    ):
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: {argument} {tuple(tensor.shape)}: expected {shape}")
    if height < 1 or width < 1:
        raise ValueError(f"{name}: an image of {height}×{width}: expected at least 1×1")
    if not (0 < alpha_min <= alpha_max < 1 and 0 <= stop < 1):
        raise ValueError(
            f"{name}: alpha_min={alpha_min}, alpha_max={alpha_max}, stop={stop}: expected"
            " 0 < alpha_min <= alpha_max < 1 and 0 <= stop < 1"
        )
    return torch.promote_types(means.dtype, torch.float32)


def _order(depths: Tensor) -> Tensor:
    """Indices from near to far, equal depths by index."""
    return depths.detach().sort(stable=True).indices


def _grad_background(needs: Sequence[bool], grads: Sequence[Tensor], outputs: Sequence[Tensor]) -> Tensor | None:
    return torch.einsum("chw,hw->c", grads[0], 1 - outputs[1]) if needs[4] else None


def _weights(means, conics, opacities, order, height, width, alpha_max, alpha_min, stop):
    """Chunk by chunk of pixels: their places P×2, and for all Gaussians in order the weights, transmittances before
    them (both M×P) and offsets of the pixels (M×P×2)."""
    means, conics, opacities = means[order], conics[order], opacities[order]
    exact = conics.detach().double()
    valid = (exact[:, 0] > 0) & (exact[:, 0] * exact[:, 2] - exact[:, 1] ** 2 > 0) & exact.isfinite().all(1)
    valid = (valid & means.isfinite().all(1) & opacities.isfinite() & (opacities >= alpha_min))[:, None]
    y, x = torch.meshgrid(
        torch.arange(height, device=means.device), torch.arange(width, device=means.device), indexing="ij"
    )
    places = torch.stack((x, y), -1).view(-1, 2).to(means.dtype) + 0.5
    for pixels in places.split(max(1, _CHUNK // max(1, len(order)))):
        offset = pixels[None] - means[:, None]
        dx, dy = offset.unbind(-1)
        a, b, c = conics[:, None].unbind(-1)
        sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
        # Where nothing is drawn the exponent is 0, so that no gradient is undefined.
        alpha = (opacities[:, None] * torch.exp(-torch.where(valid, sigma, 0.0))).clamp(max=alpha_max)
        alpha = torch.where(valid & (alpha >= alpha_min), alpha, 0.0)
        after = (1 - alpha).cumprod(0)
        before = torch.cat((torch.ones_like(after[:1]), after[:-1]))[: len(order)]
        yield pixels, torch.where(after > stop, alpha * before, 0.0), before, offset


def _lists(means, conics, opacities, depths, height, width, alpha_min) -> tuple[tuple[int, int], tuple[Tensor, ...]]:
    """The grid of tiles, and for CUDA's kernels: records in depth order, order, ranks tile by tile, their ends."""
    number, columns, rows = len(means), -(-width // _TILE), -(-height // _TILE)
    order = _order(depths)
    records = means.new_empty(number, 7)
    boxes, counts = order.new_empty(number, 4, dtype=torch.int32), order.new_empty(number)
    tensors = (means.contiguous(), conics.contiguous(), opacities.contiguous(), order, records, boxes, counts)
    _cuda.launch_threads("gaussian_set_up", len(means), *tensors, number, height, width, alpha_min)
    ends = counts.cumsum(0)
    pairs = int(ends[-1]) if number else 0
    tiles, ranks = (order.new_empty(pairs, dtype=torch.int32) for _ in range(2))
    _cuda.launch_threads("gaussian_emit", len(means), boxes, ends, tiles, ranks, number, columns, dtype=means.dtype)
    tiles, permutation = tiles.sort(stable=True)
    borders = torch.arange(columns * rows + 1, device=means.device, dtype=torch.int32)
    return (columns, rows), (records, order, ranks[permutation], torch.searchsorted(tiles, borders))


gaussian_composite = GaussianComposite()
gaussian_ray_flow = GaussianRayFlow()


class GaussianProjection(NamedTuple):
    """Gaussians as a camera sees them.

    Attributes:
        means: N×2 in pixels.
        covariances: N×2×2, the blur included.
        depths: N, camera z.
        visible: N, whether they lie beyond the near plane; the rest of the row means nothing where not.
        contrast: N, √(det(covariance before the blur)/det(covariance)): the opacity's factor of antialiased splatting.
    """

    means: Tensor
    covariances: Tensor
    depths: Tensor
    visible: Tensor
    contrast: Tensor

    @property
    def conics(self) -> Tensor:
        """Inverses of the covariances, N×3: xx, xy, yy."""
        xx, xy, yy = self.covariances[:, 0, 0], self.covariances[:, 0, 1], self.covariances[:, 1, 1]
        return torch.stack((yy, -xy, xx), 1) / (xx * yy - xy * xy)[:, None]


class GaussianRender(NamedTuple):
    """What a camera sees of Gaussians; divide the sums by alpha for expected values.

    Attributes:
        image: C×H×W, over the background.
        alpha: H×W, 0..1.
        depth: Σ w·z, H×W.
        depth_median: H×W: z of the last Gaussian met while the transmittance is above ½, 0 where there is none.
        contributors: H×W, int32.
        top_gaussian: H×W, int32: index of the greatest weight, -1 where there is none.
        flow: 2×H×W: Σ w·(motion of the Gaussian's centre) in pixels; None without a next frame.
        ray_flow: 2×H×W: Σ w·(motion of the surface point); None unless asked for. It carries no gradient.
        next_depth: Σ w·z of the next frame, H×W; None without one.
        projection: of the Gaussians at this frame.
    """

    image: Tensor
    alpha: Tensor
    depth: Tensor
    depth_median: Tensor
    contributors: Tensor
    top_gaussian: Tensor
    flow: Tensor | None
    ray_flow: Tensor | None
    next_depth: Tensor | None
    projection: GaussianProjection


class NextFrame(NamedTuple):
    """Where the Gaussians of :func:`gaussian_rasterize` are in the next frame; None: as in this one."""

    means: Tensor | None = None
    quats: Tensor | None = None
    scales: Tensor | None = None
    viewmat: Tensor | None = None
    K: Tensor | None = None


def rotation_matrices(quats: Tensor) -> Tensor:
    """Rotations N×3×3 of quaternions N×4 (w, x, y, z), which are normalised here."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def project_gaussians(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    near: float = 0.01,
    blur: float = 0.3,
) -> GaussianProjection:
    """Project 3D Gaussians, differentiably (Zwicker et al., EWA Splatting; Kerbl et al., section 4).

    Inside the Jacobian alone x/z is clamped to 15 % of the image's width beyond its border (y/z likewise), as the
    linearisation means nothing far outside.

    Args:
        means: N×3, world.
        quats: N×4 (w, x, y, z), of any length but 0.
        scales: N×3, standard deviations along the Gaussian's axes.
        viewmat: 4×4, world to camera; x right, y down, z forward.
        K: 3×3 intrinsics in pixels; a pixel's centre is at +½.
        width, height: of the image.
        near: least z that is visible.
        blur: added to both variances, in pixels².
    """
    turn, shift = viewmat[:3, :3], viewmat[:3, 3]
    points = means @ turn.T + shift
    visible = points[:, 2] > near
    x, y, z = points[:, 0], points[:, 1], torch.where(visible, points[:, 2], 1.0)
    fx, fy, cx, cy = K[0, 0], K[1, 1], K[0, 2], K[1, 2]
    along_x = (x / z).clamp(-cx / fx - 0.15 * width / fx, (width - cx) / fx + 0.15 * width / fx)
    along_y = (y / z).clamp(-cy / fy - 0.15 * height / fy, (height - cy) / fy + 0.15 * height / fy)
    zero = torch.zeros_like(z)
    jacobian = torch.stack((fx / z, zero, -fx * along_x / z, zero, fy / z, -fy * along_y / z), -1).view(-1, 2, 3)
    half = jacobian @ turn @ (rotation_matrices(quats) * scales[:, None])
    sharp = half @ half.transpose(1, 2)
    covariances = sharp + blur * torch.eye(2, dtype=sharp.dtype, device=sharp.device)
    # det(sharp) as a sum of squares, by Cauchy and Binet: never below 0.
    spread = torch.linalg.cross(half[:, 0], half[:, 1]).square().sum(-1)
    det = covariances[:, 0, 0] * covariances[:, 1, 1] - covariances[:, 0, 1] ** 2
    contrast = (spread / det).clamp(min=torch.finfo(det.dtype).tiny).sqrt()
    seen = torch.stack((fx * x / z + cx, fy * y / z + cy), -1)
    return GaussianProjection(seen, covariances, points[:, 2], visible, contrast)


_SH = (
    lambda x, y, z: 0.28209479177387814 + 0 * x,
    lambda x, y, z: -0.4886025119029199 * y,
    lambda x, y, z: 0.4886025119029199 * z,
    lambda x, y, z: -0.4886025119029199 * x,
    lambda x, y, z: 1.0925484305920792 * x * y,
    lambda x, y, z: -1.0925484305920792 * y * z,
    lambda x, y, z: 0.31539156525252005 * (2 * z * z - x * x - y * y),
    lambda x, y, z: -1.0925484305920792 * x * z,
    lambda x, y, z: 0.5462742152960396 * (x * x - y * y),
    lambda x, y, z: -0.5900435899266435 * y * (3 * x * x - y * y),
    lambda x, y, z: 2.890611442640554 * x * y * z,
    lambda x, y, z: -0.4570457994644658 * y * (4 * z * z - x * x - y * y),
    lambda x, y, z: 0.3731763325901154 * z * (2 * z * z - 3 * x * x - 3 * y * y),
    lambda x, y, z: -0.4570457994644658 * x * (4 * z * z - x * x - y * y),
    lambda x, y, z: 1.445305721320277 * z * (x * x - y * y),
    lambda x, y, z: -0.5900435899266435 * x * (x * x - 3 * y * y),
)


def spherical_harmonics(coefficients: Tensor, directions: Tensor) -> Tensor:
    """Colours max(0, ½ + Σ Y·coefficient) of Gaussians seen along directions.

    Args:
        coefficients: N×K×3 with K = 1, 4, 9 or 16 (degrees 0 to 3).
        directions: N×3 from the camera's centre to the means, of any length but 0.

    Returns:
        N×3.

    Raises:
        ValueError: K is none of these.
    """
    number = coefficients.shape[1]
    if number not in (1, 4, 9, 16):
        raise ValueError(f"spherical_harmonics: {number} coefficients: expected 1, 4, 9 or 16 (degrees 0 to 3)")
    x, y, z = torch.nn.functional.normalize(directions, dim=-1).unbind(-1)
    basis = torch.stack([function(x, y, z) for function in _SH[:number]], -1)
    return (0.5 + torch.einsum("nk,nkc->nc", basis, coefficients)).clamp(min=0)


def camera_centre(viewmat: Tensor) -> Tensor:
    """Position (3) in the world of a camera with the world-to-camera matrix 4×4."""
    return -viewmat[:3, :3].T @ viewmat[:3, 3]


def ray_maps(
    projected: Tensor,
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    viewmat: Tensor,
    K: Tensor,
    next_means: Tensor,
    next_quats: Tensor,
    next_scales: Tensor,
    next_viewmat: Tensor,
    next_K: Tensor,
) -> Tensor:
    """The 21 numbers a Gaussian that :class:`GaussianRayFlow` reads, N×21.

    The point X of camera space where the Gaussian (mean t, covariance C) is densest along a ray d is
    d·(dᵀC⁻¹t)/(dᵀC⁻¹d); it moves with the Gaussian: X' = t' + R'·diag(s'/s)·Rᵀ·(X − t), rotations R in camera axes.
    All is written in pixels relative to the projected mean, which keeps float32 exact enough.
    """
    turn, next_turn = viewmat[:3, :3], next_viewmat[:3, :3]
    axes, next_axes = turn @ rotation_matrices(quats), next_turn @ rotation_matrices(next_quats)
    point, next_point = means @ turn.T + viewmat[:3, 3], next_means @ next_turn.T + next_viewmat[:3, 3]
    # A common factor of the inverse covariance drops out.
    inverse = axes * (scales.amin(1, keepdim=True) / scales).square()[:, None] @ axes.transpose(1, 2)
    move = next_axes * (next_scales / scales)[:, None] @ axes.transpose(1, 2)
    rest = next_point - (move @ point[..., None])[..., 0]
    near = torch.eye(3, dtype=means.dtype, device=means.device).repeat(len(means), 1, 1)
    near[:, :2, 2] = projected
    away = near.clone()
    away[:, :2, 2] = -projected
    ray, see = torch.linalg.inv(K) @ near, away @ next_K
    spread = ray.transpose(1, 2) @ inverse @ ray
    centre = (ray.transpose(1, 2) @ (inverse @ point[..., None]))[..., 0]
    row, column = torch.triu_indices(3, 3, device=means.device)
    shift = (see @ rest[..., None])[..., 0]
    return torch.cat((centre, spread[:, row, column], (see @ move @ ray).flatten(1), shift), 1)


def gaussian_rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    features: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    background: Tensor | None = None,
    *,
    next_frame: NextFrame | None = None,
    ray_flow: bool = False,
    antialiased: bool = False,
    near: float = 0.01,
    blur: float = 0.3,
    alpha_max: float = _ALPHA_MAX,
    alpha_min: float = _ALPHA_MIN,
    stop: float = _STOP,
) -> GaussianRender:
    """Render 3D Gaussians: colours or any other features, alpha, depths and, with a next frame, flow.

    The rules are those of :func:`project_gaussians` and :class:`GaussianComposite`. They have no radius beyond which a
    Gaussian is cut, unlike gsplat, which cuts at 3.33 standard deviations or at 3, clamps alpha elsewhere and does not
    name contributors; so that gsplat is no backend of this op.

    Args:
        means, quats, scales: N×3, N×4 (w, x, y, z), N×3, as of :func:`project_gaussians`.
        opacities: N, 0..1.
        features: N×C, such as the colours of :func:`spherical_harmonics`.
        viewmat: 4×4, world to camera; x right, y down, z forward.
        K: 3×3 intrinsics in pixels.
        width, height: of the image.
        background: C; None for 0.
        next_frame: where the Gaussians and the camera are next; the flow of one that is then not beyond the near plane
            means nothing.
        ray_flow: also composite the flow of surface points, for which it is exact where a thin Gaussian moves rigidly.
        antialiased: scale opacities by the share of the projected area that is not blur.
        near, blur: as of :func:`project_gaussians`.
        alpha_max, alpha_min, stop: as of :class:`GaussianComposite`.

    Returns:
        What the camera sees; gradients reach all floating arguments but K through image, alpha, depth, flow and
        next_depth.

    Raises:
        ValueError: shapes or constants are not as above, or ``ray_flow`` without a next frame.
    """
    number = len(means)
    for argument, tensor, shape in (
        ("means", means, (number, 3)),
        ("quats", quats, (number, 4)),
        ("scales", scales, (number, 3)),
        ("opacities", opacities, (number,)),
        ("viewmat", viewmat, (4, 4)),
        ("K", K, (3, 3)),
    ):
        if tuple(tensor.shape) != shape:
            raise ValueError(f"gaussian_rasterize: {argument} {tuple(tensor.shape)}: expected {shape}")
    if features.dim() != 2 or len(features) != number:
        raise ValueError(f"gaussian_rasterize: features {tuple(features.shape)}: expected {number}×C, as means")
    if ray_flow and next_frame is None:
        raise ValueError("gaussian_rasterize: ray_flow=True needs a next_frame")
    projection = project_gaussians(means, quats, scales, viewmat, K, width, height, near, blur)
    visible = projection.visible
    if antialiased:
        opacities = opacities * projection.contrast
    opacities = torch.where(visible, opacities, 0.0)
    depths = torch.where(visible, projection.depths, 0.0)
    channels = [features, depths[:, None]]
    if next_frame is not None:
        now = (means, quats, scales, viewmat, K)
        after = tuple(old if new is None else new for new, old in zip(next_frame, now, strict=True))
        following = project_gaussians(*after, width, height, near, blur)
        moved = torch.where(visible[:, None], following.means - projection.means, 0.0)
        channels += [moved, following.depths[:, None]]
    behind = features.new_zeros(sum(part.shape[1] for part in channels))
    if background is not None:
        behind = torch.cat((background.to(behind), behind[features.shape[1] :]))
    shape = (projection.means, projection.conics, opacities)
    rules = (height, width, alpha_max, alpha_min, stop)
    planes, alpha, contributors, median, top = gaussian_composite(
        *shape, torch.cat(channels, 1), depths, behind, *rules
    )
    image, depth, *others = planes.split([part.shape[1] for part in channels])
    flow, next_depth = others or (None, None)
    surface = None
    if ray_flow:
        with torch.no_grad():
            rays = ray_maps(projection.means, *now, *after)
        surface = gaussian_ray_flow(*shape, depths, rays, *rules)
    if number:
        depth_median = torch.where(median >= 0, depths[median.clamp(min=0).long()], 0.0)
    else:
        depth_median = torch.zeros_like(alpha)
    return GaussianRender(
        image,
        alpha,
        depth[0],
        depth_median,
        contributors,
        top,
        flow,
        surface,
        None if next_depth is None else next_depth[0],
        projection,
    )
