"""What makes a short training gain: the balanced start, squared errors, borders, and a warning of dead parts."""

import logging
import math

import pytest
import torch
from ffplug_stss.liveliness import DeadActivationHook
from ffplug_stss.losses import ReshadingLoss
from ffplug_stss.models import STSSNet
from ffplug_stss.models.network import enlarge
from ffplug_stss.warping import repeat_edge
from mmengine.logging import MMLogger

import ffplug
from ffplug.errors import ConfigError


def test_a_balanced_start_keeps_the_signal_alive(network_inputs):
    inputs = network_inputs(1)
    sizes = {}
    for balanced in (False, True):
        torch.manual_seed(0)
        network = STSSNet(dict(type="ffplug_stss.EfficientReshading"), balanced=balanced)
        found = []
        network.down[2].register_forward_hook(lambda _, __, output, found=found: found.append(output.std()))
        with torch.no_grad():
            frame = network(*inputs)
        sizes[balanced] = float(found[0])
        assert torch.equal(frame, enlarge(inputs[0][:, :3])) == balanced
    assert sizes[True] > 0.1 > 3 * sizes[False]


def test_widths():
    network = ffplug.build_model("stss_small").network
    assert sum(parameter.numel() for parameter in network.parameters()) < 417_241 / 3
    with pytest.raises(ConfigError, match="expected two numbers of channels"):
        STSSNet(widths=(24,))


def test_squared_errors():
    target, mask = torch.zeros(1, 3, 8, 8), torch.ones(1, 1, 4, 4)
    mask[..., :2] = 0
    terms = ReshadingLoss(hole_weight=0.5, norm="l2")(target + 0.1, target, mask)
    assert terms["loss_l2"] == pytest.approx(0.2) and terms["loss_hole"] == pytest.approx(0.1)
    with pytest.raises(ConfigError, match="norm='l3'"):
        ReshadingLoss(norm="l3")


def test_each_sample_counts_alike_by_its_logarithm():
    target, mask = torch.zeros(2, 3, 8, 8), torch.ones(2, 1, 4, 4)
    mask[1, ..., :2] = 0
    prediction = torch.tensor([0.1, 0.4])[:, None, None, None].expand_as(target).clone().requires_grad_()
    terms = ReshadingLoss(hole_weight=0.5, norm="log")(prediction, target, mask)
    assert terms["loss_log"].item() == pytest.approx((math.log(0.0101) + math.log(0.1601)) / 2, abs=1e-4)
    assert terms["loss_hole"].item() == pytest.approx(0.5, abs=1e-3)
    terms["loss_log"].backward()
    (one, other) = prediction.grad.flatten(1).sum(dim=1).tolist()
    assert one == pytest.approx(4 * other, rel=0.02)


def test_edges_are_repeated():
    image = torch.arange(12.0).view(1, 3, 4)
    missing = torch.zeros(3, 4, dtype=torch.bool)
    missing[:, 3] = True
    missing[0, :] = True
    found = repeat_edge(image, missing)
    assert found[0].tolist() == [[4, 5, 6, 6], [4, 5, 6, 6], [8, 9, 10, 10]]
    assert repeat_edge(image, torch.ones(3, 4, dtype=torch.bool)) is image


class Runner:
    iter = 0

    def __init__(self, model):
        self.model = model


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


def test_dead_parts_are_told():
    model = ffplug.build_model("stss_small")
    batch = model.data_preprocessor(model.example_batch(1))
    hook, runner, kept = DeadActivationHook(interval=1), Runner(model), Kept()

    def step():
        hook.before_train_iter(runner, 0)
        with torch.no_grad():
            model(batch["inputs"], mode="tensor")
        hook.after_train_iter(runner, 0)

    logger = MMLogger.get_current_instance()
    logger.addHandler(kept)
    try:
        step()
        assert not kept.lines
        torch.nn.init.constant_(model.network.up[2].convolutions[1].bias, -1e3)
        step()
    finally:
        logger.removeHandler(kept)
    assert "its ReLUs may be dead" in kept.lines[0]
    with pytest.raises(ConfigError, match=r"no part 'network.up.4'; did you mean"):
        DeadActivationHook("network.up.4", interval=1).before_train_iter(runner, 0)
