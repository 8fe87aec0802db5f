"""IFRNet at golden parity."""

import pytest
import torch


@pytest.fixture(scope="module", params=["IFRNet_S", "IFRNet", "IFRNet_L"])
def case(request, published, golden):
    def scale(state):
        state["decoder1.convblock.2.weight"] *= 0.2

    name = request.param
    return published(name.lower(), f"ifrnet/{name}_keys.json", scale), golden(f"ifrnet/{name}_case0.npz")


@torch.no_grad()
def test_frames_and_decoders(case, drawn):
    network, expected = case
    frames = drawn(301, (1, 3, 64, 96)), drawn(302, (1, 3, 64, 96))
    found = network.outputs(*frames, torch.tensor([0.5]))
    close = dict(atol=5e-5, rtol=0)
    torch.testing.assert_close(found["frame"], expected["pred_t050"], **close)
    for level, decoded in zip((4, 3, 2, 1), found["decoded"], strict=True):
        if f"decoder{level}_t050" in expected:
            torch.testing.assert_close(decoded, expected[f"decoder{level}_t050"], **close)
    torch.testing.assert_close(network(*frames, torch.tensor([0.25])), expected["pred_t025"], **close)
    network.scale = 0.5
    torch.testing.assert_close(network(*frames, torch.tensor([0.5])), expected["pred_t050_scale05"], **close)
    network.scale = 1.0


@torch.no_grad()
def test_losses(case, drawn):
    from ffplug_ugsp.losses import CensusLoss, CharbonnierLoss, FlowDistillationLoss, GeometryLoss
    from ffplug_ugsp.structures import InterpolationSample

    network, expected = case
    target, sample = drawn(303, (1, 3, 64, 96)), InterpolationSample()
    sample.gt_flow = drawn(304, (1, 4, 64, 96), -4, 4)[0]
    found = network.outputs(drawn(301, (1, 3, 64, 96)), drawn(302, (1, 3, 64, 96)), torch.tensor([0.5]), target)
    groups = {
        "loss_rec": (CharbonnierLoss(), CensusLoss()),
        "loss_geo": (GeometryLoss(),),
        "loss_dis": (FlowDistillationLoss(),),
    }
    for name, losses in groups.items():
        value = sum(sum(loss(found, target, [sample]).values()) for loss in losses)
        torch.testing.assert_close(value, expected[name].to(value.dtype).reshape(()), rtol=1e-5, atol=0)
