"""A motion-vector prior, a policy that reads its credibility, and any base, from one config by inheritance."""

from __future__ import annotations

import pytest
import torch
from ffplug_iterpolicy.models import MODES
from ffplug_iterpolicy.models.skipping import MEMORY

import ffplug

CONFIG = """
from mmengine.config import read_base

with read_base():
    from {base} import *

model["prior"] = dict(type="ffplug_mvflow.MotionVectorPrior")
model["losses"] += [
    dict(type="ffplug_mvflow.MotionVectorLoss"),
    dict(type="ffplug_iterpolicy.IterationPolicyLoss"),
]
model["policy"] = dict(type="ffplug_iterpolicy.ContextIterationPolicy", credibility=True{policy})
"""
BASES = {"ffplug_iterpolicy.configs.iterpolicy_small_base": ", hidden_channels=32", "ffplug.configs.models.gma": ""}


@pytest.fixture(scope="module", params=BASES, ids=lambda base: base.rpartition(".")[2])
def model(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("combined") / "combined.py"
    path.write_text(CONFIG.format(base=request.param, policy=BASES[request.param]))
    torch.manual_seed(0)
    model = ffplug.build_model(path)
    with torch.no_grad():
        model.decoder.policy.cell.decision.weight.mul_(60)  # decisions that vary
    return model


def pairs(model, height=64, width=96):
    generator = torch.Generator().manual_seed(1)
    samples = [model.decoder.prior.example_inputs(height, width, generator) for _ in range(2)]
    inputs = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    image1, image2 = 255 * torch.rand(2, 2, 3, height, width, generator=generator)
    return (image1, image2), inputs


def logits(model, frames, inputs):
    model.decoder.policy.mode = "mask"
    with torch.no_grad():
        return model.run(*frames, 3, every=True, inputs=inputs)["states"][0].memory[MEMORY].details["logits"]


def test_the_policy_reads_the_priors_credibility(model):
    model.eval()
    frames, inputs = pairs(model)
    weight = model.decoder.policy.cell.convolution.weight
    seen = logits(model, frames, inputs)
    kept = weight.detach()[:, -1].clone()
    with torch.no_grad():
        weight[:, -1] = 0  # the last plane is the credibility
    blind = logits(model, frames, inputs)
    with torch.no_grad():
        weight[:, -1] = kept
    assert not torch.equal(seen, blind)


def test_all_modes_agree_with_a_prior(model):
    model.eval()
    frames, inputs = pairs(model)
    flows = {}
    for mode in MODES:
        model.decoder.policy.mode = mode
        flows[mode] = model.predict_flow(*frames, iterations=4, inputs=inputs)
    for mode in MODES:
        torch.testing.assert_close(flows[mode]["flow"], flows["mask"]["flow"], atol=1e-4, rtol=1e-4)
        assert torch.equal(flows[mode]["steps"], flows["mask"]["steps"])


def test_prior_and_policy_train_together(model):
    model.train()
    data = model.data_preprocessor(model.example_batch(2), training=True)
    losses = model(**data, mode="loss")
    sum(value for name, value in losses.items() if "loss" in name).backward()
    for part in (model.decoder.policy.cell, model.decoder.prior):
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())
    model.zero_grad()
