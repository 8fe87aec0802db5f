"""RIFE at golden parity, with and without a time."""

import pytest
import torch
from ffplug_ugsp.losses import LaplacianLoss, TeacherLoss

CLOSE = dict(atol=5e-5, rtol=0)
HALF = torch.tensor([0.5])


def scale(state):
    for key in state:
        if key.endswith("lastconv.weight"):
            state[key] *= 0.1
    state["unet.conv.weight"] *= 0.3


@pytest.mark.parametrize("name", ["IFNet", "IFNet_m"])
@torch.no_grad()
def test_parity(name, published, golden, drawn):
    network = published({"IFNet": "rife", "IFNet_m": "rife_m"}[name], f"rife/{name}_keys.json", scale)
    expected = golden(f"rife/{name}_case0.npz")
    # The published network sees blue first.
    frame0, frame1, target = (drawn(seed, (1, 3, 64, 96)).flip(1) for seed in (401, 402, 403))
    plain = network.outputs(frame0, frame1, HALF)
    torch.testing.assert_close(plain["frame"].flip(1), expected["pred"], **CLOSE)
    torch.testing.assert_close(plain["blend"], expected["mask"], **CLOSE)
    for place, flow in enumerate(plain["flows"]):
        if f"flow_{place}" in expected:
            torch.testing.assert_close(flow, expected[f"flow_{place}"], **CLOSE)
    for place, merged in enumerate(plain["merged"][:2]):
        if f"merged_{place}" in expected:
            torch.testing.assert_close(merged.flip(1), expected[f"merged_{place}"], **CLOSE)
    taught = network.outputs(frame0, frame1, HALF, target)
    torch.testing.assert_close(taught["teacher_flow"], expected["flow_teacher"], **CLOSE)
    torch.testing.assert_close(taught["teacher_frame"].flip(1), expected["merged_teacher"], **CLOSE)
    terms = TeacherLoss(distill=1.0)(taught, target, []) | LaplacianLoss()(taught, target, [])
    names = {"loss_distill": "loss_distill", "loss_teacher": "loss_lap_teacher", "loss_laplacian_frame": "loss_lap"}
    for ours, theirs in names.items():
        torch.testing.assert_close(terms[ours].double(), expected[theirs].double().reshape(()), rtol=1e-5, atol=0)
    if network.any_timestep:
        quarter = network(frame0, frame1, torch.tensor([0.25]))
        torch.testing.assert_close(quarter.flip(1), expected["pred_t025"], **CLOSE)
