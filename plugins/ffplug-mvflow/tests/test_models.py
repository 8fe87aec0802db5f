"""The priors: at first the network without them, in every base, with every kind of input; and their loss."""

import numpy as np
import pytest
import torch
from ffplug_mvflow.models.median import fill
from ffplug_mvflow.models.motion import median

import ffplug

NARROW = dict(
    encoder=dict(out_channels=32, widths=(8, 16, 24)),
    context_encoder=dict(out_channels=40, widths=(8, 16, 24)),
    cost=dict(levels=2, radius=2),
    update=dict(
        cost_channels=50, hidden_channels=24, input_channels=16, motion_channels=22, head_width=16,
        cost_widths=(16,), flow_widths=(16, 8),
    ),
)  # fmt: skip
PRIOR = dict(type="ffplug_mvflow.MotionVectorPrior", width=16)
LOSSES = [dict(type="ffplug.SequenceLoss"), dict(type="ffplug_mvflow.MotionVectorLoss")]


def small(prior=PRIOR, losses=LOSSES, **changes):
    config = ffplug.load_config("raft_small").model
    for name, values in NARROW.items():
        config[name].update(values)
    config.update(prior=prior, losses=losses, iterations=3, test_iterations=3, **changes)
    torch.manual_seed(0)
    return ffplug.build_model(config)


@pytest.fixture(scope="module")
def pair():
    generator = torch.Generator().manual_seed(1)
    image1, image2 = torch.randint(0, 256, (2, 2, 3, 64, 80), generator=generator).float()
    model = small()
    samples = [model.decoder.prior.example_inputs(64, 80, generator) for _ in range(2)]
    return image1, image2, {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}


def weights_of(model, plain):
    missing = plain.load_state_dict(model.state_dict(), strict=False)
    assert not missing.missing_keys and all(".prior." in key for key in missing.unexpected_keys)


def test_starts_as_the_network_without_it(pair):
    image1, image2, inputs = pair
    model, plain = small(), small(prior=None, losses=LOSSES[:1])
    weights_of(model, plain)
    model.eval(), plain.eval()
    with torch.no_grad():
        first = model.run(image1, image2, 1, inputs=inputs)["states"][0].memory["first_flow"]
    assert first.abs().mean() > 0.05
    found = model.predict_flow(image1, image2, inputs=inputs)["flow"]
    wanted = plain.predict_flow(image1, image2, flow_init=first)["flow"]
    assert torch.equal(found, wanted)
    assert torch.equal(model.predict_flow(image1, image2)["flow"], plain.predict_flow(image1, image2)["flow"])


def test_a_trained_prior_leaves_pairs_without_vectors_alone(pair):
    image1, image2, inputs = pair
    model, plain = small(), small(prior=None, losses=LOSSES[:1])
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.decoder.prior.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    weights_of(model, plain)
    mixed = {name: value.clone() for name, value in inputs.items()}
    for value in mixed.values():
        value[1] = 0
    found = model.predict_flow(image1, image2, inputs=mixed)["flow"]
    without = plain.predict_flow(image1, image2)["flow"]
    assert torch.equal(found[1], without[1])
    assert (found[0] - without[0]).abs().mean() > 0.01
    state = model.run(image1, image2, 1, inputs=mixed)["states"][0]
    credibility = state.memory["credibility"]
    assert credibility.shape == (2, 1, 8, 10) and not credibility[1].any()
    assert bool((credibility[0, :, :, :7] > 0).all()) and not credibility[0, :, :, 8:].any()


def test_every_parameter_learns_and_the_vectors_are_padded_with_the_frames():
    model = small()
    batch = model.example_batch(2)
    with torch.no_grad():  # what starts at zero lets nothing through to what lies before it
        for parameter in model.decoder.prior.parameters():
            parameter += 0.01
    data = model.data_preprocessor(batch, training=True)
    terms = model(**data, mode="loss")
    assert {"loss", "first_loss", "credibility_loss", "first_epe"} <= terms.keys()
    sum(value for name, value in terms.items() if "loss" in name).backward()
    silent = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert not silent
    prior = model.decoder.prior
    seen = []
    prior.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0]))
    model(**data, mode="predict")
    assert seen[0].inputs["motion_flow"].shape[-2:] == seen[0].image1.shape[-2:] == (96, 128)
    assert not seen[0].inputs["motion_valid"][:, :3].any() and seen[0].inputs["motion_valid"][:, 3, 2:5].all()


def test_a_warm_start_serves_where_the_vectors_do_not(pair):
    image1, image2, inputs = pair
    model = small()
    given = torch.full((2, 2, 8, 10), 7.0)
    cases = {0.0: False, 2.0: True}
    for threshold, everywhere in cases.items():
        model.decoder.prior.warm_below = threshold
        start = model.decoder.start(*_encoded(model, image1, image2, inputs), given)
        assert bool((start.flow == 7).all()) == everywhere


def _encoded(model, image1, image2, inputs):
    encoded = model.encode(image1, image2, inputs)
    cost = model.cost(encoded)
    return encoded, lambda flow: model.cost.lookup(cost, flow)


def test_tiles_take_their_part_of_the_vectors(pair):
    image1, image2, inputs = pair
    whole, tiled = small(), small(tile=dict(size=(64, 80), overlap=0))
    tiled.load_state_dict(whole.state_dict())
    both = [torch.cat((image, image.flip(-1)), dim=-1) for image in (image1, image2)]
    wide = {name: torch.cat((value, torch.zeros_like(value)), dim=-1) for name, value in inputs.items()}
    found = tiled.predict_flow(*both, inputs=wide)["flow"]
    left = whole.predict_flow(image1, image2, inputs=inputs)["flow"]
    torch.testing.assert_close(found[..., :40], left[..., :40], rtol=0, atol=1e-3)


def test_median_prior_needs_no_weights(pair):
    image1, image2, inputs = pair
    model, plain = small(dict(type="ffplug_mvflow.MedianMotionPrior"), LOSSES[:1]), small(None, LOSSES[:1])
    plain.load_state_dict(model.state_dict())
    start = model.decoder.start(*_encoded(model, image1, image2, inputs), None)
    found = model.predict_flow(image1, image2, inputs=inputs)["flow"]
    assert torch.equal(found, plain.predict_flow(image1, image2, flow_init=start.flow)["flow"])
    assert torch.equal(model.predict_flow(image1, image2)["flow"], plain.predict_flow(image1, image2)["flow"])
    assert set(start.memory) == {"credibility"}


def test_median_and_filling_by_hand():
    flow = torch.zeros(1, 2, 3, 4)
    flow[0, 0] = torch.tensor([[1.0, 2, 9, 0], [1, 2, 9, 0], [5, 2, 9, 0]])
    valid = (torch.arange(4) < 3).float().expand(1, 1, 3, 4)
    found = median(flow, valid, 3)
    values = sorted([1, 2, 9, 1, 2, 9, 5, 2, 9])
    assert found[0, 0, 1, 1] == values[4] and found[0, 0, 0, 3] == 9 and not found[:, 1].any()
    filled = fill(flow * valid, valid)
    assert torch.equal(filled[..., :3], flow[..., :3]) and torch.equal(filled[0, 0, :, 3], torch.full((3,), 9.0))
    assert torch.equal(fill(torch.zeros(1, 2, 3, 4), torch.zeros(1, 1, 3, 4)), torch.zeros(1, 2, 3, 4))


def test_exact_vectors_are_trusted_and_wrong_ones_smoothed(pair):
    """With the module's first weights an outlier among equal vectors moves most of the way to its neighbours."""
    image1, image2, inputs = pair
    model = small().eval()
    even = {name: torch.ones_like(value) for name, value in inputs.items()}
    even["motion_flow"] = torch.full_like(inputs["motion_flow"], 4.0)
    start = model.decoder.start(*_encoded(model, image1, image2, even), None)
    torch.testing.assert_close(start.flow[..., 1:-1, 1:-1], torch.full((2, 2, 6, 8), 0.5), rtol=0, atol=0.05)
    holed = {name: value.clone() for name, value in even.items()}
    for value in holed.values():
        value[..., 16:40, 16:40] = 0
    start = model.decoder.start(*_encoded(model, image1, image2, holed), None)
    assert start.flow[..., 2:5, 2:5].min() > 0.45


def test_loss_by_hand():
    loss = ffplug.registry.MODELS.build(dict(type="ffplug_mvflow.MotionVectorLoss", gamma=0.5, weight=1.0))
    valid = torch.tensor([[[[1.0, 1.0, 0.0]]]])
    memory = {
        "first_flow": torch.full((1, 2, 1, 3), 0.25),
        "motion_flow": torch.tensor([[[[0.25, 0.5, 0.0]], [[0.0, 0.0, 0.0]]]]),
        "motion_valid": valid,
        "credibility": torch.tensor([[[[0.9, 0.2, 0.0]]]]),
    }
    state = type("State", (), {"memory": memory})
    truth = torch.zeros(1, 2, 8, 24)
    truth[:, 0] = 2.0
    outputs = {"states": [state], "flows": [None, None], "padding": (0, 0, 0, 0)}
    terms = loss(outputs, {"flow": truth, "valid": torch.ones(1, 8, 24)})
    assert terms["first_loss"] == pytest.approx(0.25 * 1.0)  # (0 + 2) / 2 pixels, of two iterations ago
    assert terms["first_epe"] == pytest.approx(2.0)
    wanted = np.exp([0.0, -1.0])  # the second vector is 2 px off
    entropy = -(wanted * np.log([0.9, 0.2]) + (1 - wanted) * np.log([0.1, 0.8]))
    assert terms["credibility_loss"] == pytest.approx(entropy.mean(), rel=1e-5)


BASES = {
    "raft_large": {},
    "gma": {},
    "skflow": {},
    "flowformer": "ffplug_flowformer",
    "samflow_tiny": "ffplug_samflow",
    "decflow": "ffplug_decflow",
}


@pytest.mark.parametrize("base", BASES)
def test_any_recurrent_estimator_takes_it(base):
    if BASES[base]:
        pytest.importorskip(BASES[base])
    config = ffplug.load_config(base).model
    _without_files(config)
    config["prior"] = PRIOR
    for decoder in config.get("decoders", {}).values():
        decoder["prior"] = dict(type="ffplug_mvflow.MedianMotionPrior")
    torch.manual_seed(0)
    model = ffplug.build_model(config).eval()
    generator = torch.Generator().manual_seed(0)
    image1, image2 = torch.randint(0, 256, (2, 1, 3, 128, 128), generator=generator).float()
    inputs = {k: v[None] for k, v in model.decoder.prior.example_inputs(128, 128, generator).items()}
    with_vectors = model.predict_flow(image1, image2, iterations=1, inputs=inputs)["flow"]
    without = model.predict_flow(image1, image2, iterations=1)["flow"]
    assert with_vectors.shape == (1, 2, 128, 128) and bool(with_vectors.isfinite().all())
    assert (with_vectors - without).abs().mean() > 0.1


def _without_files(config):
    """Random weights in the place of files that are got by hand."""
    for key, value in list(config.items()):
        if key == "checkpoint" and isinstance(value, str):
            config[key] = None
        elif isinstance(value, dict):
            _without_files(value)
