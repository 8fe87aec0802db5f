"""The renderer against gsplat (Apache-2.0): its PyTorch functions anywhere, its kernels on a GPU."""

import pytest
import torch
from ffplug_face.models import ProceduralHead
from ffplug_face.sequences import SequenceOptions
from ffplug_srflownet.scenes import SplatScene, head_scene

from ffplug.ops.gaussians import (
    NextFrame,
    camera_centre,
    gaussian_rasterize,
    project_gaussians,
    rotation_matrices,
    spherical_harmonics,
)

pytest.importorskip("gsplat", reason="gsplat is not installed: nothing to compare with")


@pytest.fixture(scope="module")
def scene() -> SplatScene:
    options = SequenceOptions(frames=(4,), size=(96, 80))
    return head_scene(ProceduralHead(rows=32, columns=48), 1, 2, options)


def test_projection_and_colours_are_gsplat_s(scene: SplatScene):
    from gsplat.cuda._torch_impl import _fully_fused_projection, _spherical_harmonics

    means, quats, scales, viewmat, intrinsics = scene.view(1).cloud()
    turns = rotation_matrices(quats)
    covariances = turns * scales[:, None].square() @ turns.transpose(1, 2)
    _, theirs, depths, conics, contrast = _fully_fused_projection(
        means, covariances, viewmat[None], intrinsics[None], 80, 96, calc_compensations=True
    )
    ours = project_gaussians(means, quats, scales, viewmat, intrinsics, 80, 96)
    assert ours.visible.all()
    torch.testing.assert_close(ours.means, theirs[0], rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(ours.depths, depths[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.conics, conics[0], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours.contrast, contrast[0], rtol=1e-2, atol=1e-3)
    sh = torch.randn(len(means), 16, 3, generator=torch.Generator().manual_seed(0))
    towards = means - camera_centre(viewmat)
    expected = (_spherical_harmonics(3, towards, sh) + 0.5).clamp(min=0)
    torch.testing.assert_close(spherical_harmonics(sh, towards), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU: gsplat's kernels run nowhere else")
def test_pictures_and_flow_are_gsplat_s(scene: SplatScene):
    """gsplat on the GPU against our path on the CPU: colour, alpha, depth and the flow of centres."""
    from gsplat import rasterization

    now, then = scene.view(1), scene.view(2)
    cloud, after = now.cloud(), then.cloud()
    colours = now.splats.colours(camera_centre(cloud[3]))
    ours = gaussian_rasterize(
        *cloud[:3], now.splats.opacities, colours, *cloud[3:], 80, 96, next_frame=NextFrame(*after)
    )
    first, second = (project_gaussians(*part, 80, 96) for part in (cloud, after))
    moved = second.means - first.means
    features = torch.cat((colours, first.depths[:, None], moved), 1)
    means, quats, scales, opacities, features, viewmat, intrinsics = (
        part.cuda() for part in (*cloud[:3], now.splats.opacities, features, *cloud[3:])
    )
    planes, alpha, _ = rasterization(
        means, quats, scales, opacities, features, viewmat[None], intrinsics[None], 80, 96, packed=False
    )
    theirs = torch.cat((planes[0], alpha[0]), -1).permute(2, 0, 1).cpu()
    expected = torch.cat((ours.image, ours.depth[None], ours.flow, ours.alpha[None]))
    # gsplat leaves out what lies beyond 3.33 deviations, where at most 1/255 is left.
    scale = expected.flatten(1).abs().amax(1)[:, None, None]
    assert ((theirs - expected).abs() / scale).amax() < 0.03
    assert ((theirs - expected).abs() / scale).mean() < 1e-3
