"""The three ways to leave iterations out give the same; what is left out is left out."""

import copy
import dataclasses
import itertools

import pytest
import torch
from ffplug_iterpolicy.costs import count_flops, published_gflops, step_costs
from ffplug_iterpolicy.models import (
    MODES,
    ContextIterationPolicy,
    FixedSteps,
    RandomSkipping,
    UpdateThreshold,
)
from ffplug_iterpolicy.models.context_policy import spread
from ffplug_iterpolicy.models.skipping import MEMORY

import ffplug
from ffplug.config import load_config
from ffplug.errors import ConfigError
from ffplug.models.tiling import TiledFlowInference, tile_corners
from ffplug.plugin import plugins

INSTALLED = {plugin.name for plugin in plugins()}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = ffplug.build_model("iterpolicy_small")
    with torch.no_grad():  # steps that matter, and decisions that vary
        for parameter in model.decoder.update.flow_head[-1].parameters():
            parameter.mul_(20)
        model.decoder.policy.cell.decision.weight.mul_(60)
    return model


def predict(model, policy, frames, iterations, **inputs):
    model.decoder.policy = policy
    return model.predict_flow(*frames, iterations=iterations, inputs=inputs)


def balanced(policy, model, frames, iterations):
    """The policy with a bias that makes about half of the decisions on these frames 'keep'."""
    policy = copy.deepcopy(policy)
    policy.mode = "mask"
    model.decoder.policy = policy
    with torch.no_grad():
        states = model.run(*frames, iterations, every=True)["states"]
        logits = torch.stack([state.memory[MEMORY].details["logits"] for state in states])
        policy.cell.decision.bias[1] -= (logits[..., 0] - logits[..., 1]).median()
    return policy


def test_modes_give_the_same(model):
    learned, patterns = model.decoder.policy, set()
    for seed in range(3):
        torch.manual_seed(seed)
        count, iterations = 2 + seed, 5 + seed
        frames = torch.rand(2, count, 3, 64, 72 + 8 * seed) * 255
        frames[1] = 0.5 * frames[0] + 0.5 * frames[1]
        policy = balanced(learned, model, frames, iterations)
        found = {}
        for policy.mode in MODES:
            found[policy.mode] = predict(model, policy, frames, iterations, preference=torch.linspace(0.3, 1.1, count))
        steps = found["mask"]["steps"]
        patterns.update(steps.tolist())
        for mode in ("skip", "compact"):
            torch.testing.assert_close(found[mode]["steps"], steps)
            for key in ("flow", "flow_low"):
                torch.testing.assert_close(found[mode][key], found["mask"][key], atol=2e-4, rtol=1e-4)
    assert len(patterns) > 2, "the decisions have to vary for this test to mean anything"
    model.decoder.policy = learned


@pytest.mark.parametrize("mode", MODES)
def test_a_planned_number_of_steps_equals_running_so_many(model, mode):
    own, model.decoder.policy = model.decoder.policy, None
    frames = torch.rand(2, 4, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 255
    wanted = [3, 1, 5, 1]
    expected = [model.predict_flow(*frames[:, [i]], iterations=n)["flow"] for i, n in enumerate(wanted)]
    found = predict(model, FixedSteps(mode=mode), frames, 6, steps=torch.tensor(wanted))
    assert found["steps"].tolist() == wanted
    torch.testing.assert_close(found["flow"], torch.cat(expected), atol=2e-4, rtol=1e-4)
    model.decoder.policy = own


def test_every_tile_decides_and_the_mean_is_told(model, monkeypatch):
    own = model.decoder.policy
    frames = torch.rand(2, 2, 3, 64, 120, generator=torch.Generator().manual_seed(2)) * 255
    policy = balanced(own, model, frames, 5)
    monkeypatch.setattr(model, "tile", TiledFlowInference((64, 64), overlap=8, batch_size=3))
    fixed = predict(model, FixedSteps(), frames, 6, steps=torch.tensor([4, 1]))
    assert fixed["steps"].tolist() == [4, 1]
    found = predict(model, policy, frames, 5, preference=torch.tensor([0.6, 1.0]))
    monkeypatch.setattr(model, "tile", None)
    corners = tile_corners((64, 120), (64, 64), 8)
    cut = [[frame[..., x : x + 64] for frame in frames] for _, x in corners]
    alone = [predict(model, policy, pair, 5, preference=torch.tensor([0.6, 1.0]))["steps"] for pair in cut]
    torch.testing.assert_close(found["steps"], torch.stack(alone).float().mean(0))
    model.decoder.policy = own


def count_samples(model, policy, frames, iterations):
    """How many samples each call of the update block had."""
    seen = []
    handle = model.decoder.update.register_forward_hook(lambda module, args, result: seen.append(len(args[0])))
    predict(model, policy, frames, iterations)
    handle.remove()
    return seen


def test_samples_that_stopped_leave_the_work(model):
    own = model.decoder.policy
    frames = torch.rand(2, 4, 3, 64, 64) * 255
    rule = FixedSteps(mode="compact")
    rule.start = lambda encoded, state, iterations: {"planned": torch.tensor([1.0, 4.0, 4.0, 2.0])}
    assert count_samples(model, rule, frames, 6) == [4, 3, 2, 2]  # nobody runs the last two
    rule.mode = "skip"
    assert count_samples(model, rule, frames, 6) == [4, 4, 4, 4]
    rule.mode = "mask"
    assert count_samples(model, rule, frames, 6) == [4] * 6
    assert count_samples(model, RandomSkipping(0.0), frames, 5) == [4]
    assert len(count_samples(model, RandomSkipping(1.0), frames, 5)) == 5
    model.decoder.policy = own


def test_a_skipped_step_computes_the_hidden_part_alone(model):
    """What remains of a run of skipped steps is the convolution of the 17, here 7, hidden channels."""
    policy = model.decoder.policy
    height, width, iterations = 64, 96, 10
    costs = step_costs(model, height, width)
    channels, positions = policy.cell.channels, height // 4 * width // 4
    assert costs.rest == 2 * 9 * channels**2 * positions + 6 * channels < costs.decide / 5
    never = copy.deepcopy(policy)
    with torch.no_grad():
        never.cell.decision.bias[2] += 1e6
    found = {n: count_flops(model, height, width, never, n) for n in (2, iterations)}
    once = count_flops(model, height, width, FixedSteps(1), 2)
    assert found[iterations] - found[2] == (iterations - 2) * costs.rest
    embedding = found[2] - once - costs.decide
    assert 0 <= embedding < 1e6  # eight embeddings over three by three cells, whatever the frame's size


def test_half_of_the_work_is_counted_as_it_ran(model):
    policy = model.decoder.policy
    height, width, iterations = 64, 96, 8
    costs = step_costs(model, height, width)
    looked_up = 8 * 384 * 25  # four corners of bilinear sampling, cells, window
    for steps in (1, 5, iterations):
        ran = count_flops(model, height, width, FixedSteps(steps), iterations)
        assert ran + steps * looked_up == costs.flops(steps)
    assert costs.steps(costs.flops(3.5, iterations), iterations) == pytest.approx(3.5)
    assert model.decoder.policy is policy


@pytest.mark.parametrize(
    "base, size, iterations, expected",
    [
        ("raft_large", (440, 1024), 32, 729.8),
        ("raft_large", (376, 1248), 24, 594.6),
        ("gma", (440, 1024), 32, 813.2),
        ("gma", (376, 1248), 24, 660.0),
        ("flowformer", (432, 960), 32, 973.5),
    ],
)
def test_the_papers_accounting_gives_its_totals(base, size, iterations, expected):
    without_policy = published_gflops(base, *size, iterations, 1)
    assert without_policy == pytest.approx(expected, abs=0.35)


def test_rules_decide_as_they_say(model):
    own = model.decoder.policy
    frames = torch.rand(2, 3, 3, 64, 64) * 255
    frames[1, 1] = frames[0, 1]
    assert predict(model, UpdateThreshold(0.0), frames, 4)["steps"].tolist() == [4, 4, 4]
    assert predict(model, UpdateThreshold(1e6), frames, 4)["steps"].tolist() == [1, 1, 1]
    states = model.decoder.policy = None
    with torch.no_grad():
        states = model.run(*frames, 4, every=True)["states"]
    lows = [torch.zeros_like(states[0].flow), *(state.flow for state in states)]
    moved = torch.stack([8 * (b - a).norm(dim=1).mean(dim=(1, 2)) for a, b in itertools.pairwise(lows)], dim=1)
    threshold = float(moved[:, 1].median()) + 1e-4
    expected = [next((i + 1 for i, m in enumerate(row) if m < threshold), 4) for row in moved.tolist()]
    assert predict(model, UpdateThreshold(threshold), frames, 4)["steps"].tolist() == expected
    first = predict(model, RandomSkipping(0.5, seed=3), frames, 6)["steps"]
    assert torch.equal(first, predict(model, RandomSkipping(0.5, seed=3), frames, 6)["steps"])
    model.decoder.policy = own


def test_nothing_is_reported_or_lost_without_a_policy(model):
    own, model.decoder.policy = model.decoder.policy, None
    frames = torch.rand(2, 1, 3, 64, 64) * 255
    assert set(model.predict_flow(*frames, iterations=2)) == {"flow", "flow_low"}
    model.decoder.policy = own
    assert set(model.predict_flow(*frames, iterations=2)) == {"flow", "flow_low", "steps"}


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (3, 3), (7, 4)])
def test_the_embeddings_share_is_the_convolutions(size):
    cell = ContextIterationPolicy(hidden_channels=8).cell
    planes = cell.embedding[:, :, None, None].expand(-1, -1, *size)
    expected = torch.nn.functional.conv2d(planes, cell.share("embedding"), cell.convolution.bias, padding=1)
    torch.testing.assert_close(spread(cell.embed(*size), *size), expected)


def test_more_preference_runs_no_fewer_steps(model):
    policy = model.decoder.policy
    frames = torch.rand(2, 8, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 255
    policy = balanced(policy, model, frames, 8)
    with torch.no_grad():  # r scales the logits' part that sees the frames, so it must pull towards 'keep'
        policy.cell.decision.weight[1].abs_()
        policy.cell.decision.weight[2] = -policy.cell.decision.weight[1]
        policy.cell.decision.bias[1:] = torch.tensor([-1.0, 1.0])
    own, model.decoder.policy = model.decoder.policy, policy
    kept = [predict(model, policy, frames, 8, preference=torch.full((8,), r))["steps"].mean() for r in (0.05, 0.5, 1.2)]
    assert kept == sorted(kept) and kept[0] < kept[-1]
    model.decoder.policy = own


def with_policy(name, credibility=False):
    config = load_config(name).model
    policy = {"type": "ffplug_iterpolicy.ContextIterationPolicy", "credibility": credibility}
    policy["hidden_channels"] = config["update"].get("hidden_channels", 128)
    config.policy = policy
    return config


BASES = ["raft_small", "raft_large", "gma", "skflow", "flowformer_small", "samflow_tiny", "decflow"]


@pytest.mark.parametrize("name", BASES)
def test_any_base_takes_the_policy(name):
    plugin = f"ffplug-{name.partition('_')[0]}"
    if plugin in ("ffplug-samflow", "ffplug-decflow") and plugin not in INSTALLED:
        pytest.skip(f"{plugin} is not installed")
    config = with_policy(name)
    if name == "decflow":  # each decoder decides for itself
        config.decoders["head"]["policy"] = {"type": "ffplug_iterpolicy.FixedSteps", "steps": 1}
    model = ffplug.build_model(config)
    frames = torch.rand(2, 1, 3, 64, 64) * 255
    result = model.predict_flow(*frames, iterations=2)
    assert result["flow"].shape == (1, 2, 64, 64) and 1 <= result["steps"].item() <= 2
    if name == "decflow":
        assert result["head_steps"].item() == 1 and result["expression_flow"].shape == result["flow"].shape


def test_credibility_reaches_the_decision(model):
    policy = ContextIterationPolicy(model.decoder.policy.hidden_channels, credibility=True)
    own = model.decoder.policy
    frames = torch.rand(2, 2, 3, 64, 64) * 255
    with torch.no_grad():
        policy.cell.share("credibility").copy_(torch.randn_like(policy.cell.share("credibility")) * 100)
        policy.cell.decision.weight.mul_(1000)
    policy.mode = "mask"
    logits = []
    for value in (0.0, 1.0):
        model.decoder.policy = policy
        with torch.no_grad():
            states = model.run(*frames, 2, every=True, inputs={"credibility": torch.full((2, 1, 16, 16), value)})[
                "states"
            ]
        logits.append(states[0].memory[MEMORY].details["logits"])
    assert not torch.allclose(logits[0], logits[1], atol=1.0)
    with pytest.raises(ConfigError, match=r"credibility=True needs a credibility of .* there is none"):
        predict(model, policy, frames, 2)
    model.decoder.policy = own


def test_bad_arguments_are_named():
    with pytest.raises(ConfigError, match=r"policy.mode='compcat'.*did you mean 'compact'"):
        FixedSteps(mode="compcat")
    with pytest.raises(ConfigError, match=r"policy.preference=0"):
        ContextIterationPolicy(preference=0)
    for wrong in (lambda: FixedSteps(0), lambda: RandomSkipping(1.5), lambda: UpdateThreshold(-1)):
        with pytest.raises(ConfigError, match="expected"):
            wrong()
    config = with_policy("raft_small")
    config.policy["hidden_channels"] = 64
    with pytest.raises(ConfigError, match=r"policy.hidden_channels=64 and update.hidden_channels=96"):
        ffplug.build_model(config)


def test_a_state_is_selected_as_views_or_copies(model):
    frames = torch.rand(2, 3, 3, 64, 64) * 255
    model.decoder.policy, own = None, model.decoder.policy
    with torch.no_grad():
        (state,) = model.run(*frames, 1)["states"]
    part = state.select(slice(1, 3))
    assert part.hidden.data_ptr() == state.hidden[1].data_ptr()
    torch.testing.assert_close(state.select(torch.tensor([1, 2])).flow, part.flow)
    assert dataclasses.is_dataclass(part.cost)
    model.decoder.policy = own
