"""SKFlow gives the outputs of its published implementation."""

import numpy as np
import pytest
import torch
from golden_cases import GOLDEN, filled

import ffplug
from ffplug.ops import use_backend
from ffplug.testing.golden import image

SCALES = {
    "att.to_qk.weight": 6.0,
    "aggregator.gamma": 10.0,
    "flow_head.ffn2.2.weight": 0.02,
    "flow_head.ffn2.2.bias": 0.02,
}


@pytest.fixture(scope="module", params=["torch", "auto"])
def backend(request):
    with use_backend(request.param):
        yield request.param


@pytest.fixture(scope="module")
def model(backend):
    network = ffplug.build_model("skflow")
    state = filled(GOLDEN / "skflow" / "keys.json", SCALES)
    network.load_state_dict(ffplug.convert_state_dict(state, "skflow"), strict=False)
    return network.eval()


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "skflow" / "case.npz")


@pytest.fixture(scope="module")
def frames():
    return tuple(torch.from_numpy(image(seed, (1, 3, 128, 160))) for seed in (7, 8))


def close(tensor, array, atol):
    np.testing.assert_allclose(tensor[0].detach().numpy(), array, atol=atol, rtol=0)


def test_every_iteration(model, golden, frames):
    with torch.no_grad():
        outputs = model.run(*frames, 4, every=True)
    close(outputs["flows"][0], golden["flow_first"], 5e-4)
    close(outputs["flows"][-1], golden["flow_final"], 2e-3)
    low = [torch.zeros(1, 2, 16, 20), *(state.flow for state in outputs["states"])]
    close(low[-1], golden["flow_low_final"], 2e-3)
    for index, delta in enumerate(golden["delta_flow"]):
        close(low[index + 1] - low[index], delta, 2e-4 * abs(golden["delta_flow"]).max())


def test_intermediates(model, golden, frames):
    with torch.no_grad():
        encoded = model.encode(*frames)
        hidden, constant = model.decoder.update.prepare(encoded.context)
        flow = torch.zeros(1, 2, 16, 20)
        cost = model.cost.lookup(model.cost(encoded), flow)
        motion = model.decoder.update.motion_encoder(cost, flow)
        hidden, _ = model.decoder.update(hidden, cost, flow, constant)
    for name, tensor in (
        ("fmap1", encoded.feature1),
        ("cnet", encoded.context),
        ("motion_iter1", motion),
        ("net_iter1", hidden),
    ):
        close(tensor[:, :16], golden[name], 2e-4 * abs(golden[name]).max())


def test_it_trains(backend):
    network = ffplug.build_model("skflow").train()
    first, second = torch.rand(2, 1, 3, 64, 72) * 255
    flows = network.run(first, second, 2, every=True)["flows"]
    sum(flow.abs().mean() for flow in flows).backward()
    without = [name for name, p in network.named_parameters() if p.grad is None]
    assert not without and all(torch.isfinite(p.grad).all() for p in network.parameters())
    assert sum(p.numel() for p in network.parameters()) == 6_273_149 - 2 * 319 * 128
