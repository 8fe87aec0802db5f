"""FlowFormer against outputs of the public code, and against itself: batches, sizes, chunks, checkpoints, gradients."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ffplug_flowformer.models import LatentCostMemory, TwinsFeatures
from ffplug_flowformer.models.attention import from_windows, grid_embedding, to_windows
from ffplug_flowformer.models.group_transformer import ThinnedAttention, WindowAttention

import ffplug
from ffplug.errors import CheckpointError, ConfigError
from ffplug.models.parts import DecoderState, Encoded
from ffplug.testing.golden import image, values

GOLDEN = Path(__file__).parent / "golden" / "flowformer"

TINY_TWINS = {"type": "ffplug_flowformer.TwinsFeatures", "embed_dims": (16, 32), "heads": (2, 4)}
TINY_COST = {
    "feature_channels": 32,
    "context_channels": 32,
    "vertical_channels": 8,
    "tokens": 3,
    "channels": 16,
    "depth": 2,
    "patch_channels": 8,
    "query_channels": 16,
    "heads": 4,
}


def draw(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """The state dict behind the golden outputs: every tensor follows from its key, and the flow stays in the frame."""
    state = {}
    for key, shape in shapes.items():
        if key.endswith("rel_ind"):
            state[key] = torch.zeros(shape, dtype=torch.int64)
        else:
            scale = 0.25 if "flow_head.conv2" in key else 1
            state[key] = torch.from_numpy(values(key, tuple(shape))) * scale
    return state


def reference_state() -> dict[str, torch.Tensor]:
    """The full variant's state dict, by the keys of the public code."""
    return draw(json.loads((GOLDEN / "keys.json").read_text()))


def tiny_config(**cost) -> dict:
    return {
        "type": "ffplug.RecurrentFlowEstimator",
        "encoder": dict(TINY_TWINS),
        "context_encoder": dict(TINY_TWINS),
        "cost": {"type": "ffplug_flowformer.LatentCostMemory", **TINY_COST, **cost},
        "update": {
            "type": "ffplug.GMAUpdate",
            "cost_channels": 16 + 81,
            "hidden_channels": 16,
            "input_channels": 16,
            "cost_widths": (24, 16),
            "flow_widths": (16, 8),
            "motion_channels": 16,
            "head_width": 16,
            "project_context": 32,
        },
        "upsampler": {"type": "ffplug.ConvexUpsampler", "hidden_channels": 16, "width": 16},
        "iterations": 2,
    }


def tiny_model(**cost) -> torch.nn.Module:
    torch.manual_seed(0)
    return ffplug.build_model(tiny_config(**cost))


def tiny_cost(**settings) -> LatentCostMemory:
    torch.manual_seed(0)
    return LatentCostMemory(**{**TINY_COST, **settings})


def frames(count: int, height: int = 64, width: int = 72) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    first, second = torch.rand(2, count, 3, height, width, generator=generator) * 255
    return first, second


def encoded(cost: LatentCostMemory, count: int = 2, height: int = 9, width: int = 11) -> Encoded:
    generator = torch.Generator().manual_seed(5)
    first, second = torch.randn(2, count, cost.feature_channels, height, width, generator=generator)
    context = torch.randn(count, cost.context_channels or 32, height, width, generator=generator)
    picture = torch.zeros(count, 3, 8 * height, 8 * width)
    return Encoded(picture, picture, first, second, context)


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    network = ffplug.build_model("flowformer")
    network.load_state_dict(ffplug.convert_state_dict(reference_state(), "flowformer"))
    return network


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(array) for name, array in np.load(GOLDEN / "case1.npz").items()}


@pytest.fixture(scope="module")
def golden_frames() -> tuple[torch.Tensor, torch.Tensor]:
    return tuple(torch.from_numpy(image(seed, (1, 3, 96, 128))) for seed in (100, 101))


class TestParity:
    def test_every_intermediate(self, model, golden, golden_frames):
        cost = model.cost
        with torch.no_grad():
            features = model.encode(*golden_frames)
            volume = cost.correlate(features.feature1, features.feature2)
            maps = volume.view(-1, 1, 12, 16)
            memory = cost.encode(volume, features.context).flatten(0, 2)
            outputs = model.run(*golden_frames, 8, every=True)
            matching = cost.channel_convertor(features.feature1.movedim(1, 3)).movedim(3, 1)
            tokens = cost.patch_embed(maps[::24][:8])
        low = torch.cat([state.flow for state in outputs["states"]])
        for name, ours, tolerance in (
            ("context_twins", features.context, 1e-4),
            ("fmap1_64", matching[:, :64], 1e-4),
            ("cost_maps_8", maps[::24][:8], 5e-3),
            ("cost_tokens_8", tokens, 1e-5),
            ("cost_memory_32", memory[::6][:32], 3e-5),
            ("flow_low", low, 2e-4),
            ("flow_up_first", outputs["flows"][0], 2e-3),
            ("flow_up_last", outputs["flows"][-1], 2e-3),
        ):
            torch.testing.assert_close(ours, golden[name], atol=tolerance, rtol=0, msg=lambda m, n=name: f"{n}: {m}")

    def test_predict_flow_gives_the_last_iteration(self, model, golden, golden_frames):
        result = model.predict_flow(*golden_frames, iterations=8)
        torch.testing.assert_close(result["flow"], golden["flow_up_last"], atol=2e-3, rtol=0)
        torch.testing.assert_close(result["flow_low"], golden["flow_low"][-1:], atol=2e-4, rtol=0)

    def test_the_look_up_starts_from_flow_init(self, model, golden, golden_frames):
        start = golden["flow_low"][3:4]
        warm = model.predict_flow(*golden_frames, iterations=1, flow_init=start)["flow_low"]
        cold = model.predict_flow(*golden_frames, iterations=1)["flow_low"]
        torch.testing.assert_close(cold, golden["flow_low"][:1], atol=2e-4, rtol=0)
        assert (warm - start - cold).abs().max() > 1e-2


class TestConverter:
    def test_drops_only_what_is_never_read(self):
        state = reference_state()
        converted = ffplug.convert_state_dict(state, "flowformer")
        unread = sum(v.numel() for k, v in state.items() if ".svt.norm." in k or ".att.pos_emb." in k)
        assert sum(v.numel() for v in converted.values()) == sum(v.numel() for v in state.values()) - unread

    def test_takes_the_prefix_of_a_parallel_model(self, model):
        state = {f"module.{key}": value for key, value in reference_state().items()}
        converted = ffplug.convert_state_dict(state, "flowformer")
        own = model.state_dict()
        assert converted.keys() == own.keys()
        assert all(torch.equal(converted[key], own[key]) for key in own)

    @pytest.mark.parametrize(
        ("key", "problem"),
        [
            ("memory_encoder.cost_perceiver_encoder.latent_tokens", "missing"),
            ("context_encoder.svt.blocks.0.0.attn.qkv.weight", "missing"),
            ("memory_decoder.update_block.gru.convz1.weight", "missing"),
        ],
    )
    def test_a_missing_key_is_named(self, key, problem):
        state = reference_state()
        del state[key]
        with pytest.raises(CheckpointError, match=problem):
            ffplug.convert_state_dict(state, "flowformer")

    def test_an_unexpected_key_is_named(self):
        state = reference_state() | {"memory_encoder.extra.weight": torch.zeros(1)}
        with pytest.raises(CheckpointError, match=r"unexpected.*memory_encoder\.extra\.weight"):
            ffplug.convert_state_dict(state, "flowformer")

    def test_a_tensor_of_another_shape_is_named(self):
        state = reference_state()
        state["memory_decoder.decoder_layer.cross_attend.q.weight"] = torch.zeros(3, 64)
        with pytest.raises(CheckpointError, match=r"cost\.query\.q\.weight"):
            ffplug.convert_state_dict(state, "flowformer")

    def test_the_full_checkpoint_is_not_the_small_one(self):
        with pytest.raises(CheckpointError, match="flowformer_small"):
            ffplug.convert_state_dict(reference_state(), "flowformer_small")

    def test_small_variant(self):
        state = small_reference_state()
        converted = ffplug.convert_state_dict(state, "flowformer-small")
        network = ffplug.build_model("flowformer_small")
        network.load_state_dict(converted)
        first, second = frames(1)
        flow = network.predict_flow(first, second, iterations=2)["flow"]
        assert flow.shape == (1, 2, 64, 72)
        assert flow.isfinite().all()
        del state["memory_encoder.channel_convertor.weight"]
        with pytest.raises(CheckpointError, match="channel_convertor"):
            ffplug.convert_state_dict(state, "flowformer_small")


def small_reference_state() -> dict[str, torch.Tensor]:
    """A state dict with the keys and shapes of the public small variant."""
    shapes: dict[str, tuple[int, ...]] = {}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = shape[:1]

    for encoder in ("memory_encoder.feat_encoder", "context_encoder"):
        layer(f"{encoder}.conv1", 64, 3, 7, 7)
        inputs = 64
        for stage, width in enumerate((64, 96, 128), start=1):
            for block in range(2):
                layer(f"{encoder}.layer{stage}.{block}.conv1", width, inputs, 3, 3)
                layer(f"{encoder}.layer{stage}.{block}.conv2", width, width, 3, 3)
                if block == 0 and stage > 1:
                    layer(f"{encoder}.layer{stage}.0.downsample.0", width, inputs, 1, 1)
                inputs = width
        layer(f"{encoder}.conv2", 256, 128, 1, 1)
    layer("memory_encoder.channel_convertor", 256, 256, 1, 1, bias=False)
    perceiver = "memory_encoder.cost_perceiver_encoder"
    shapes[f"{perceiver}.latent_tokens"] = (1, 4, 32)
    for index, (before, after) in zip((0, 2, 4), ((1, 16), (16, 32), (32, 64)), strict=True):
        layer(f"{perceiver}.patch_embed.proj.{index}", after, before, 6, 6)
    layer(f"{perceiver}.patch_embed.ffn_with_coord.0", 128, 128, 1, 1)
    layer(f"{perceiver}.patch_embed.ffn_with_coord.2", 128, 128, 1, 1)
    layer(f"{perceiver}.patch_embed.norm", 128)
    for name, source in (("input_layer", 128), ("encoder_layers.0", 32)):
        for part, shape in {
            "norm1": (32,),
            "norm2": (32,),
            "q": (32, 32),
            "k": (32, source),
            "v": (32, source),
        }.items():
            layer(f"{perceiver}.{name}.{part}", *shape)
        for part in ("proj", "ffn.0", "ffn.3"):
            layer(f"{perceiver}.{name}.{part}", 32, 32)
    for block in ("local_block", "global_block"):
        name = f"{perceiver}.vertical_encoder_layers.0.{block}"
        for part in ("norm1", "norm2"):
            layer(f"{name}.{part}", 32)
        for part in ("q", "k", "v", "proj"):
            layer(f"{name}.attn.{part}", 32, 32)
        layer(f"{name}.mlp.fc1", 128, 32)
        layer(f"{name}.mlp.fc2", 32, 128)
    layer(f"{perceiver}.vertical_encoder_layers.0.global_block.attn.sr", 32, 32, 4, 4)
    layer(f"{perceiver}.vertical_encoder_layers.0.global_block.attn.norm", 32)
    for key, shape in json.loads((GOLDEN / "keys.json").read_text()).items():
        if key.startswith("memory_decoder."):
            narrow = key.endswith(("cross_attend.k.weight", "cross_attend.v.weight"))
            shapes[key] = (64, 32) if narrow else tuple(shape)
    return draw(shapes)


def plain_attention(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, heads: int) -> torch.Tensor:
    """Softmax attention head by head: L×C, M×C, M×C -> L×C."""
    read = []
    for q, k, v in zip(*(part.chunk(heads, dim=1) for part in (query, key, value)), strict=True):
        read.append((q @ k.T / q.shape[1] ** 0.5).softmax(dim=1) @ v)
    return torch.cat(read, dim=1)


class TestBatches:
    @staticmethod
    def deviation(network: torch.nn.Module) -> float:
        """Largest difference between a batch of two pairs and the pairs alone, in pixels."""
        first, second = (torch.from_numpy(image(seed, (2, 3, 64, 72))) for seed in (7, 8))
        both = network.predict_flow(first, second, iterations=4)["flow"]
        alone = [network.predict_flow(first[n : n + 1], second[n : n + 1], iterations=4)["flow"] for n in range(2)]
        return float((both - torch.cat(alone)).abs().max())

    def test_two_samples_equal_two_runs(self, model):
        assert self.deviation(model) < 2e-4

    def test_published_order_mixes_the_samples_contexts(self, model, monkeypatch):
        monkeypatch.setattr(model.cost, "batch_order", "published")
        assert self.deviation(model) > 2e-3

    def test_two_samples_equal_two_runs_in_the_small_variant(self):
        network = ffplug.build_model("flowformer_small")
        network.load_state_dict(ffplug.convert_state_dict(small_reference_state(), "flowformer_small"))
        assert self.deviation(network) < 2e-4

    def test_published_order_is_the_public_codes(self):
        cost = tiny_cost(batch_order="published")
        context = encoded(cost).context
        # The public code tiles the batch and reads the result as tokens ordered sample·K + token.
        tiled = context.repeat(cost.tokens, 1, 1, 1).unflatten(0, (2, cost.tokens))
        torch.testing.assert_close(cost._per_token(context), tiled.permute(0, 3, 4, 1, 2))


class TestSizes:
    @pytest.mark.parametrize("size", [(96, 128), (112, 144), (224, 224)])
    def test_window_attention_is_the_padded_one_of_plain_pytorch(self, size):
        height, width = size[0] // 8, size[1] // 8
        torch.manual_seed(1)
        layer = WindowAttention(16, 12, 8, heads=4).double()
        tokens = torch.randn(1, height, width, 2, 16, dtype=torch.float64)
        context = torch.randn(1, height, width, 1, 12, dtype=torch.float64)
        guide = layer.context_proj(context).expand(-1, -1, -1, 2, -1)
        both = F.pad(torch.cat((tokens, guide), dim=-1), (0, 0, 0, 0, 0, -width % 7, 0, -height % 7))
        expected = torch.zeros_like(both[..., :16])
        position = grid_embedding((7, 7), 24, tokens).double()
        for token in range(2):
            for top in range(0, both.shape[1], 7):
                for left in range(0, both.shape[2], 7):
                    cells = both[0, top : top + 7, left : left + 7, token].reshape(49, 24)
                    keyed = cells + position
                    read = plain_attention(layer.q(keyed), layer.k(keyed), layer.v(cells[:, :16]), heads=4)
                    expected[0, top : top + 7, left : left + 7, token] = layer.proj(read).view(7, 7, 16)
        torch.testing.assert_close(layer(tokens, context), expected[:, :height, :width], atol=1e-6, rtol=1e-6)

    @pytest.mark.parametrize("size", [(8, 12), (9, 11), (3, 2)])
    @pytest.mark.parametrize("vertical", [8, 0])
    def test_thinned_attention_is_strided_convolution_and_attention(self, size, vertical):
        height, width = size
        torch.manual_seed(2)
        layer = ThinnedAttention(16, 12 if vertical else 0, vertical, heads=4).double()
        tokens = torch.randn(1, height, width, 3, 16, dtype=torch.float64)
        context = torch.randn(1, height, width, 1, 12, dtype=torch.float64) if vertical else None
        expected = []
        for token in range(3):
            both = tokens[:, :, :, token]
            if vertical:
                both = torch.cat((both, layer.context_proj(context[:, :, :, 0])), dim=-1)
            query = both[0].reshape(height * width, -1)
            query = query + grid_embedding(size, 16 + vertical, tokens).double()
            padded = F.pad(both.permute(0, 3, 1, 2), (0, -width % 4, 0, -height % 4))
            value = layer.norm(layer.thin_value(padded[:, :16]).flatten(2).transpose(1, 2))[0]
            key = layer.norm(layer.thin_key(padded).flatten(2).transpose(1, 2))[0] if vertical else value
            key = key + grid_embedding((-(-height // 4), -(-width // 4)), 16, tokens, step=4).double()
            read = plain_attention(layer.q(query), layer.k(key), layer.v(value), heads=4)
            expected.append(layer.proj(read).view(1, height, width, 16))
        torch.testing.assert_close(layer(tokens, context), torch.stack(expected, dim=3), atol=1e-6, rtol=1e-6)

    def test_windows_round_trip(self):
        grid = torch.randn(2, 9, 15, 3, 4)
        assert torch.equal(from_windows(to_windows(grid, 7), (9, 15), 7), grid)

    @pytest.mark.parametrize("size", [(8, 8), (16, 40), (24, 264), (65, 33), (1, 1)])
    def test_any_size_of_frame(self, size):
        flow = tiny_model().predict_flow(*frames(1, *size))["flow"]
        assert flow.shape == (1, 2, *size)
        assert flow.isfinite().all()


class TestMemoryAndGradients:
    @pytest.mark.parametrize("chunk", [1, 7, 99])
    def test_chunks_change_nothing(self, chunk):
        whole, parts = tiny_cost(), tiny_cost(chunk=chunk)
        part = encoded(whole)
        volume = whole.correlate(part.feature1, part.feature2)
        torch.testing.assert_close(
            parts.encode(volume, part.context), whole.encode(volume, part.context), atol=1e-5, rtol=1e-5
        )

    def test_recomputing_activations_gives_the_same_gradients(self):
        gradients = []
        for checkpointing in (False, True):
            network = tiny_model(checkpointing=checkpointing, chunk=20).train()
            outputs = network.run(*frames(1), 2, every=True)
            sum(flow.abs().mean() for flow in outputs["flows"]).backward()
            gradients.append({name: parameter.grad for name, parameter in network.named_parameters()})
        plain, recomputed = gradients
        for name in plain:
            torch.testing.assert_close(recomputed[name], plain[name], atol=1e-6, rtol=1e-4)

    @pytest.mark.parametrize("vertical", [True, False])
    def test_every_parameter_gets_a_gradient(self, vertical):
        network = tiny_model(**({} if vertical else {"context_channels": 0, "vertical_channels": 0})).train()
        with torch.no_grad():
            network.decoder.update.aggregator.weight.fill_(0.5)  # it starts at zero, which hides what it weighs
        outputs = network.run(*frames(2), 2, every=True)
        sum(flow.abs().mean() for flow in outputs["flows"]).backward()
        silent = [
            name
            for name, parameter in network.named_parameters()
            if parameter.grad is None or not parameter.grad.abs().sum() > 0
        ]
        assert silent == []

    def test_no_gradient_flows_through_the_flow_that_is_looked_up(self):
        cost = tiny_cost()
        flow = torch.zeros(2, 2, 9, 11, requires_grad=True)
        looked_up = cost.lookup(cost(encoded(cost)), flow)
        looked_up.sum().backward()
        assert flow.grad is None

    def test_state_dict_round_trip(self, tmp_path):
        network = tiny_model()
        torch.save(network.state_dict(), tmp_path / "weights.pth")
        torch.manual_seed(9)
        other = ffplug.build_model(tiny_config())
        before = other.predict_flow(*frames(1))["flow"]
        other.load_state_dict(torch.load(tmp_path / "weights.pth", weights_only=True))
        after = other.predict_flow(*frames(1))["flow"]
        assert not torch.equal(before, after)
        assert torch.equal(after, network.predict_flow(*frames(1))["flow"])

    def test_samples_can_leave_the_batch(self):
        cost = tiny_cost()
        flow = torch.randn(2, 2, 9, 11, generator=torch.Generator().manual_seed(1))
        whole = cost.lookup(cost(encoded(cost)), flow)
        state = DecoderState(whole, flow, None, cost(encoded(cost))).select(torch.tensor([1]))
        torch.testing.assert_close(cost.lookup(state.cost, state.flow), whole[1:], atol=1e-5, rtol=1e-5)


def test_a_reduced_network_learns_a_shift():
    network = tiny_model().train()
    optimiser = torch.optim.AdamW(network.parameters(), lr=2e-3)
    texture = F.interpolate(torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(0)) * 255, scale_factor=4)
    first, second = texture[..., :64, 8:80], texture[..., :64, 4:76]  # what is at x in frame 1 is at x + 4 in frame 2
    truth = torch.tensor([4.0, 0.0]).view(1, 2, 1, 1)
    errors = []
    for _ in range(80):
        flows = network.run(first, second, 2, every=True)["flows"]
        errors.append(float((flows[-1] - truth).norm(dim=1).mean()))
        optimiser.zero_grad()
        sum((flow - truth).abs().mean() for flow in flows).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
    assert errors[0] > 3
    assert sorted(errors[-20:])[10] < 0.5  # single steps are noisy


class TestTiles:
    def test_a_frame_of_one_tile_is_a_direct_call(self):
        network = ffplug.build_model(tiny_config())
        tiled = ffplug.build_model({**tiny_config(), "tile": {"size": (64, 72)}})
        tiled.load_state_dict(network.state_dict())
        torch.testing.assert_close(
            tiled.predict_flow(*frames(1))["flow"], network.predict_flow(*frames(1))["flow"], atol=1e-4, rtol=0
        )

    def test_several_tiles_cover_the_frame(self):
        tiled = ffplug.build_model({**tiny_config(), "tile": {"size": (64, 72)}})
        flow = tiled.predict_flow(*frames(1, 80, 100))["flow"]
        assert flow.shape == (1, 2, 80, 100)
        assert flow.isfinite().all()


class TestArguments:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"channels": 18}, "channels=18"),
            ({"query_channels": 10}, "query_channels=10"),
            ({"vertical_channels": 6}, "vertical_channels=6"),
            ({"context_channels": 0}, "vertical_channels=8"),
            ({"patch_size": 6}, "patch_size=6"),
            ({"chunk": 0}, "chunk=0"),
            ({"batch_order": "mixed"}, "batch_order='mixed'"),
        ],
    )
    def test_a_wrong_setting_is_named(self, settings, message):
        with pytest.raises(ConfigError, match=message):
            tiny_cost(**settings)

    def test_encoders_settings_are_checked(self):
        with pytest.raises(ConfigError, match="heads"):
            TwinsFeatures(embed_dims=(16, 30), heads=(2, 4))
        with pytest.raises(ConfigError, match="embed_dims"):
            TwinsFeatures(embed_dims=(16,))

    @pytest.mark.parametrize("patch_size", [4, 8])
    def test_patch_sizes(self, patch_size):
        cost = tiny_cost(patch_size=patch_size)
        tokens = cost.patch_embed(torch.randn(5, 1, 9, 11))
        assert tokens.shape == (5, (-(-9 // patch_size)) * (-(-11 // patch_size)), 16)

    def test_one_latent_token(self):
        cost = tiny_cost(tokens=1)
        assert cost.encode(torch.randn(1, 99, 99), torch.randn(1, 32, 9, 11)).shape == (1, 9, 11, 1, 16)
