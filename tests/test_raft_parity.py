"""RAFT and GMA give the outputs, losses and gradients of their published implementations."""

import itertools

import numpy as np
import pytest
import torch
from golden_cases import GOLDEN, filled, raft_inputs, raft_truth

import ffplug
from ffplug.ops import use_backend

GMA_SCALES = {"att.to_qk.weight": 3.0, "aggregator.gamma": 10.0}
CASES = {
    "raft_large": (GOLDEN / "raft_large", {}, 2e-3),
    "raft_small": (GOLDEN / "raft_small", {}, 4e-3),
    "gma": (GOLDEN / "gma", GMA_SCALES, 2e-3),
}
STEPS = {"raft_large": (8, 8, 9), "raft_small": (4, 4, 7), "gma": (16, 16, 9)}


@pytest.fixture(
    scope="module",
    params=itertools.product(CASES, ("torch", "auto"), (False, True)),
    ids=lambda found: f"{found[0]}-{found[1]}-{'on_demand' if found[2] else 'stored'}",
)
def case(request):
    name, backend, on_demand = request.param
    folder, scales, tolerance = CASES[name]
    model = ffplug.build_model(name)
    model.cost.on_demand = on_demand
    model.load_state_dict(ffplug.convert_state_dict(filled(folder / "keys.json", scales), name), strict=False)
    with use_backend(backend):
        yield name, model, np.load(folder / "case.npz"), tolerance


def close(tensor, array, atol, rtol=1e-4):
    np.testing.assert_allclose(tensor.detach().numpy(), array, atol=atol, rtol=rtol)


def test_flows(case):
    _, model, golden, tolerance = case
    first, second, flow_init = raft_inputs()
    result = model.predict_flow(first, second, iterations=6)
    close(result["flow"], golden["flow_up"], tolerance)
    close(result["flow_low"], golden["flow_low"], tolerance)
    close(model.predict_flow(first, second, iterations=1)["flow"], golden["flow_up_iter0"], tolerance)
    started = model.predict_flow(first, second, iterations=6, flow_init=flow_init)
    close(started["flow"], golden["flow_up_init"], tolerance)
    close(started["flow_low"], golden["flow_low_init"], tolerance)


def test_features_and_lookup(case):
    name, model, golden, _ = case
    feature_step, context_step, lookup_step = STEPS[name]
    first, second, flow_init = raft_inputs()
    with torch.no_grad():
        encoded = model.encode(first, second)
        lookup = model.cost.lookup(model.cost(encoded), flow_init)
    close(encoded.feature1[:, ::feature_step], golden["fmap1"], 1e-3)
    close(encoded.context[:, ::context_step], golden["cnet"], 1e-3)
    close(lookup[:, ::lookup_step], golden["corr"], 1e-3)


def test_loss_and_gradients(case):
    name, model, golden, _ = case
    first, second, _ = raft_inputs()
    flow, valid = raft_truth()
    model.zero_grad()
    outputs = model.run(first, second, 6, every=True)
    loss = model.losses[0](outputs, {"flow": flow, "valid": valid})["loss"]
    loss.backward()
    np.testing.assert_allclose(loss.item(), golden["loss"], rtol=1e-4)
    modules = {
        "fnet": [model.encoder],
        "cnet": [model.context_encoder],
        "update_block": [model.decoder],
        "att": [getattr(model.decoder.update, "attention", None)],
    }
    for reference, norm in zip(golden["grad_norm_names"], golden["grad_norms"], strict=True):
        parameters = [p for module in modules[str(reference)] for p in module.parameters()]
        attention = [] if reference == "att" else {id(p) for part in modules["att"] if part for p in part.parameters()}
        total = sum(float(p.grad.double().square().sum()) for p in parameters if id(p) not in attention)
        np.testing.assert_allclose(total**0.5, norm, rtol=1e-4, err_msg=f"{name}: {reference}")


@pytest.mark.parametrize(
    ("name", "keys", "array"),
    [
        ("gma_position_only", "keys_posonly.json", "flow_low_posonly"),
        ("gma_position_and_content", "keys_poscontent.json", "flow_low_poscontent"),
        ("gma_heads4", "keys_heads4.json", "flow_low_heads4"),
    ],
)
def test_gma_variants(name, keys, array):
    model = ffplug.build_model(name)
    state = filled(GOLDEN / "gma" / keys, GMA_SCALES)
    model.load_state_dict(ffplug.convert_state_dict(state, name), strict=False)
    first, second, _ = raft_inputs()
    golden = np.load(GOLDEN / "gma" / "case.npz")
    close(model.predict_flow(first, second, iterations=6)["flow_low"], golden[array], 2e-3)


def test_gma_attention():
    model = ffplug.build_model("gma")
    state = filled(GOLDEN / "gma" / "keys.json", GMA_SCALES)
    model.load_state_dict(ffplug.convert_state_dict(state, "gma"), strict=False)
    first, _, _ = raft_inputs()
    with torch.no_grad():
        _, constant = model.decoder.update.prepare(model.context_encoder(first))
    golden = np.load(GOLDEN / "gma" / "case.npz")
    close(constant["attention"][:, :, ::16], golden["attn"], 1e-6)


@pytest.mark.parametrize(("name", "size"), [("raft_large", (136, 152)), ("raft_small", (128, 200))])
def test_equals_torchvision(name, size):
    optical_flow = pytest.importorskip("torchvision.models.optical_flow")
    torch.manual_seed(0)
    theirs = getattr(optical_flow, name)(weights=None).eval()
    ours = ffplug.build_model(name)
    ours.load_state_dict(ffplug.convert_state_dict(theirs.state_dict(), "torchvision"), strict=False)
    first, second = torch.rand(2, 2, 3, *size) * 255
    with torch.no_grad():
        expected = theirs(first / 127.5 - 1, second / 127.5 - 1, num_flow_updates=5)[-1]
    close(ours.predict_flow(first, second, iterations=5)["flow"], expected.numpy(), 2e-3)


def test_on_demand_correlation_is_the_same():
    name = "raft_large"
    from ffplug.config import load_config

    config = load_config(name).model
    config.cost.on_demand = True
    on_demand = ffplug.build_model(config)
    config.cost.on_demand = False
    stored = ffplug.build_model(config)
    on_demand.load_state_dict(stored.state_dict())
    first, second = torch.rand(2, 2, 3, 72, 88) * 255
    a = stored.predict_flow(first, second, iterations=3)["flow"]
    b = on_demand.predict_flow(first, second, iterations=3)["flow"]
    torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-4)


def test_select_takes_samples_out_of_a_batch():
    model = ffplug.build_model("gma")
    first, second = torch.rand(2, 3, 3, 64, 72) * 255
    with torch.no_grad():
        (state,) = model.run(first, second, 2)["states"]
        part = state.select(torch.tensor([2]))
        lookup = model.cost.lookup(part.cost, part.flow)
        hidden, _ = model.decoder.update(part.hidden, lookup, part.flow, part.constant)
        whole, _ = model.decoder.update(
            state.hidden, model.cost.lookup(state.cost, state.flow), state.flow, state.constant
        )
    torch.testing.assert_close(hidden, whole[2:], atol=1e-5, rtol=1e-4)
