"""Parity with the authors' networks: outputs, decisions, losses and gradients under the same weights and inputs.

The files in ``golden/iteration_policy`` were made by running the public code (Orange066/DFlow) under the deterministic
weights of ``ffplug.testing.golden``.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ffplug_iterpolicy.models import ContextIterationPolicy
from ffplug_iterpolicy.models.context_policy import iteration_bin, iteration_embedding
from ffplug_iterpolicy.models.skipping import MEMORY

import ffplug
from ffplug.config import load_config
from ffplug.errors import CheckpointError
from ffplug.structures import FlowDataSample
from ffplug.testing.golden import image, values

GOLDEN = Path(__file__).parent / "golden/iteration_policy"
SEED, SIZE = 11, (128, 160)
KEEP_BIAS = {"raft": 0.3, "gma": -2.2}
MODELS = {"raft": "raft_large_iterpolicy", "gma": "gma_iterpolicy"}


def state_dict(base):
    """The deterministic weights, with smaller steps and clearer decisions, as the golden run had them."""
    shapes = json.loads((GOLDEN / f"{base}_keys.json").read_text())
    state = {key: torch.from_numpy(values(key, tuple(shape))) for key, shape in shapes.items()}
    state["itr_embedding"] = iteration_embedding()[:, :, None, None]
    for key in [key for key in state if key.startswith("update_block.flow_head.conv2")]:
        state[key] = state[key] * 0.1
    state["update_block.iter_mask.iter_mask_1.2.weight"] *= 20
    state["update_block.iter_mask.iter_mask_1.2.bias"][1] += KEEP_BIAS[base]
    return state


def frames():
    first, second = (torch.from_numpy(image(SEED + i, (2, 3, *SIZE))) for i in (0, 1))
    first[1], second[1] = 0.3 * first[1] + 90, 0.3 * second[1] + 90
    return first, 0.25 * second + 0.75 * first.roll((2, 3), dims=(2, 3))


def build(base, **changes):
    model = ffplug.build_model(MODELS[base])
    model.load_state_dict(ffplug.convert_state_dict(state_dict(base), MODELS[base]), strict=False)
    return model


@pytest.fixture(scope="module", params=list(MODELS))
def network(request):
    return request.param, build(request.param)


@pytest.mark.parametrize(
    "case, preference, iterations", [("r030_i12", 0.3, 12), ("r070_i12", 0.7, 12), ("r104_i24", 1.04, 24)]
)
def test_decisions_and_flow_are_those_of_the_public_code(network, case, preference, iterations):
    base, model = network
    golden = {
        key.partition("/")[2]: value
        for key, value in np.load(GOLDEN / f"{base}_eval.npz").items()
        if key.startswith(case)
    }
    policy = model.decoder.policy
    policy.preference = preference
    policy.mode = "mask"
    with torch.no_grad():
        outputs = model.run(*frames(), iterations, every=True)
    memories = [state.memory[MEMORY] for state in outputs["states"]]
    close = dict(atol=1e-4, rtol=0)
    keep = torch.stack([memory.ran for memory in memories[1:]], dim=1)
    np.testing.assert_array_equal(keep, golden["keep"])
    np.testing.assert_allclose(torch.stack([m.details["logits"] for m in memories]), golden["logits"], **close)
    np.testing.assert_allclose(torch.stack([m.details["increment"] for m in memories]), golden["inc"], **close)
    np.testing.assert_allclose(memories[-1].details["hidden"], golden["hidden_last"], **close)
    means = torch.stack([flow.mean(dim=(2, 3)) for flow in outputs["flows"]])
    np.testing.assert_allclose(means, golden["flow_mean"], atol=2e-4)
    means = torch.stack([flow.mean(dim=(2, 3)) for flow in outputs["full_flows"]])
    np.testing.assert_allclose(means, golden["wo_skip_mean"], atol=2e-4)
    stride = SIZE[0] // golden["flow_up"].shape[2]
    np.testing.assert_allclose(outputs["flows"][-1][:, :, ::stride, ::stride], golden["flow_up"], atol=2e-4)
    for mode in ("skip", "compact"):
        policy.mode = mode
        found = model.predict_flow(*frames(), iterations=iterations)
        np.testing.assert_array_equal(found["steps"], 1 + golden["keep"].sum(1))
        np.testing.assert_allclose(found["flow"][:, :, ::stride, ::stride], golden["flow_up"], atol=2e-4)


class GivenNoise(ContextIterationPolicy):
    """A policy whose uniform numbers are given, and whose preference does not vary."""

    def __init__(self, uniform, preference):
        super().__init__()
        self.uniform, self.fixed = list(uniform), preference

    def draw_uniform(self, logits):
        return self.uniform.pop(0)

    def _preference(self, encoded, count):
        return torch.full((count,), self.fixed)


def test_training_gives_the_losses_and_gradients_of_the_public_code():
    golden = dict(np.load(GOLDEN / "raft_train.npz"))
    iterations = 6
    uniform = np.random.RandomState(SEED + 4).uniform(0.001, 0.999, (iterations, 2, 2, 1, 1)).astype(np.float32)
    config = load_config(MODELS["raft"]).model
    config.iterations = iterations
    config.policy = GivenNoise(torch.from_numpy(uniform).flatten(2), 0.35)
    model = ffplug.registry.MODELS.build(config)
    model.load_state_dict(ffplug.convert_state_dict(state_dict("raft"), MODELS["raft"]), strict=False)
    model.train()
    policy = model.decoder.policy
    policy.temperature = 0.7
    first, second = frames()
    truth = image(SEED + 2, (2, 2, *SIZE), -4, 4)
    truth[:, :, 0, 0] = 500
    valid = (image(SEED + 3, (2, *SIZE), 0, 1) > 0.3).astype(np.float32)
    samples = [FlowDataSample() for _ in range(2)]
    for sample, flow, mask in zip(samples, torch.from_numpy(truth), torch.from_numpy(valid), strict=True):
        sample.gt_flow, sample.gt_valid = flow, mask
    terms = model(torch.stack((first, second), 1), samples, mode="loss")
    total = terms["loss"] + terms["loss_budget"] + terms["loss_increment"]
    for term, name in (("loss", "flow_loss"), ("loss_increment", "inc_loss"), ("keep", "keep_mean")):
        np.testing.assert_allclose(terms[term].detach(), golden[name], atol=1e-4)
    np.testing.assert_allclose(total.detach(), golden["loss"], atol=1e-4)
    total.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {
        f"decoder.policy.cell.{part}.{name}" for part in ("convolution", "decision") for name in ("weight", "bias")
    }
    cell = policy.cell
    for key, parameter in (("iter_mask_0.0", cell.convolution), ("iter_mask_1.2", cell.decision)):
        for name in ("weight", "bias"):
            expected = golden[f"grad/update_block.iter_mask.{key}.{name}"]
            found = getattr(parameter, name).grad.numpy().reshape(expected.shape)
            np.testing.assert_allclose(found, expected, atol=1e-4 * abs(expected).max(), rtol=0)


def test_the_embedding_covers_the_way_in_equal_shares():
    assert [iteration_bin(i, 12, 8) for i in range(12)] == [0, 0, 1, 2, 2, 3, 4, 4, 5, 6, 6, 7]
    assert [iteration_bin(i, 24, 8) for i in range(24)] == [i // 3 for i in range(24)]


def test_a_checkpoint_without_its_whole_policy_is_refused():
    state = state_dict("raft")
    del state["update_block.iter_mask.iter_mask_0.0.bias"]
    with pytest.raises(CheckpointError, match=r"policy tensors missing: iter_mask\.iter_mask_0\.0\.bias"):
        ffplug.convert_state_dict(state, "raft_large_iterpolicy")
    bare = {key: value for key, value in state.items() if "iter_mask" not in key}
    with pytest.raises(CheckpointError, match="the base alone is converted with --from raft_large"):
        ffplug.convert_state_dict(bare, "raft_large_iterpolicy")
    with pytest.raises(CheckpointError, match="not a 'gma' state dict"):
        ffplug.convert_state_dict(state_dict("raft"), "gma_iterpolicy")
    state = state_dict("raft")
    state["itr_embedding"] = state["itr_embedding"] + 1
    with pytest.raises(CheckpointError, match="not the published iteration embedding"):
        ffplug.convert_state_dict(state, "raft_large_iterpolicy")
