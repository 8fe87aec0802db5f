"""DecFlow gives the published network's outputs, loss and gradients under filled weights."""

from pathlib import Path

import numpy as np
import pytest
import torch

import ffplug
from ffplug.testing.golden import image

GOLDEN = Path(__file__).parent / "golden" / "decflow"


def frames():
    first, second = (torch.from_numpy(image(seed, (1, 3, 128, 160))) for seed in (101, 102))
    return first, second, torch.from_numpy(image(103, (1, 2, 16, 20), -2, 2))


def truth():
    targets = {}
    for name, flow_seed, valid_seed in (("", 104, 105), ("head_", 106, 107)):
        targets[f"{name}flow"] = torch.from_numpy(image(flow_seed, (1, 2, 128, 160), -20, 20))
        targets[f"{name}valid"] = torch.from_numpy((image(valid_seed, (1, 128, 160), 0, 1) > 0.3).astype(np.float32))
    targets["flow"][:, :, :8, :8] = 500
    return targets


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "case.npz")


@pytest.fixture(scope="module")
def model(published):
    model = ffplug.build_model("decflow_reference")
    state = {f"module.{key}": value for key, value in published.items()}
    result = model.load_state_dict(ffplug.convert_state_dict(state, "decflow"), strict=False)
    assert not result.unexpected_keys and all(key.endswith("num_batches_tracked") for key in result.missing_keys)
    return model.eval()


def close(tensor, array, atol, rtol=1e-4):
    np.testing.assert_allclose(tensor.detach().numpy(), array, atol=atol, rtol=rtol)


@torch.no_grad()
def test_features_attention_and_lookup(model, golden):
    first, second, flow_init = frames()
    encoded = model.encode(first, second)
    close(encoded.feature1[:, ::16], golden["fmap1"], 1e-3)
    close(model.context_encoder.context(first)[:, ::16], golden["cnet"], 1e-3)
    close(model.context_encoder.semantic(first)[:, ::32], golden["dad"], 1e-3)
    close(encoded.context[:, ::16], golden["fused"], 1e-3)
    lookup = model.cost.lookup(model.cost(encoded), flow_init)
    close(lookup[:, ::9], golden["corr"], 1e-3)
    constant = model.decoder.update.prepare(encoded.context)[1]
    beside = model.decoders["head"].update.prepare_beside(encoded.context, constant)[1]
    assert beside["attention"] is constant["attention"]
    close(constant["attention"][:, :, ::16], golden["attn"], 1e-6)


def test_flows(model, golden):
    first, second, flow_init = frames()
    close(model.predict_flow(first, second, iterations=1)["flow"], golden["facial_iter0"], 2e-3)
    result = model.predict_flow(first, second, iterations=6)
    close(result["flow"], golden["facial"], 2e-3)
    close(result["head_flow"], golden["head"], 2e-3)
    assert torch.equal(result["expression_flow"], result["flow"] - result["head_flow"])
    started = model.predict_flow(first, second, iterations=6, flow_init=flow_init)
    close(started["flow"], golden["facial_init"], 2e-3)
    close(started["head_flow"], golden["head_init"], 2e-3)


def test_loss_and_gradients(model, golden):
    first, second, _ = frames()
    model.zero_grad()
    terms = model.losses[0](model.run(first, second, 6, every=True), truth())
    loss = sum(value for name, value in terms.items() if "loss" in name)
    np.testing.assert_allclose(loss.item(), golden["loss"], rtol=1e-4)
    loss.backward()
    context, attention = model.context_encoder, model.decoder.update.attention
    modules = {
        "fnet": model.encoder,
        "cnet": context.context,
        "update_block": model.decoder,
        "update_block_head": model.decoders["head"],
        "att": attention,
        "change_dim": context.reduce,
        "dad_encoder": context.semantic,
        "res1": context.fuse,
    }
    assert set(modules) == set(map(str, golden["grad_norm_names"]))
    apart = {id(parameter) for parameter in attention.parameters()}
    for name, norm in zip(golden["grad_norm_names"], golden["grad_norms"], strict=True):
        parameters = [p for p in modules[str(name)].parameters() if name == "att" or id(p) not in apart]
        total = sum(float(p.grad.double().square().sum()) for p in parameters if p.grad is not None)
        np.testing.assert_allclose(total**0.5, norm, rtol=1e-4, err_msg=str(name))


def test_parameter_counts(model):
    def count(module, trained=False):
        return sum(p.numel() for p in module.parameters() if p.requires_grad or not trained)

    context = model.context_encoder
    unread_stage, position_tables, shared_attention = 8_543_296 - 1_444_928, 81_664, 32_768
    assert count(model) == 20_085_442 - unread_stage - position_tables
    assert count(context.semantic) == 1_444_928
    assert count(context.reduce) == 131_328 and count(context.fuse) == 1_902_080
    assert count(context.context) == 1_069_728 and count(model.encoder) == 1_066_848
    assert count(model.decoders["head"]) == 3_628_865 == count(model.decoder) - shared_attention
    assert count(model, trained=True) == 9_640_066 - position_tables
