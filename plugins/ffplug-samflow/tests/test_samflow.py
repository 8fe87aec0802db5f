"""SAMFlow gives the published outputs, and keeps its frozen encoder frozen."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from ffplug_samflow.models import MobileSAMTinyViT, SAMViTEncoder
from ffplug_samflow.registry import MODELS

import ffplug
from ffplug.cli import cli, run
from ffplug.config import load_config
from ffplug.errors import CheckpointError, ConfigError
from ffplug.testing.golden import image, values

GOLDEN = Path(__file__).parent / "golden"
SCALES = {"flow_head.conv2.weight": 0.25, "flow_head.conv2.bias": 0.25, "pos_embed": 512.0}


def filled(keys):
    state = {}
    for key, shape in keys.items():
        if key.endswith(("num_batches_tracked", "rel_ind")):
            state[key] = torch.zeros(tuple(shape), dtype=torch.int64)
            continue
        factor = next((scale for ending, scale in SCALES.items() if key.endswith(ending)), 1.0)
        state[key] = torch.from_numpy(values(key, tuple(shape))) * factor
    return state


def frames(size=(96, 128)):
    return tuple(torch.from_numpy(image(seed, (1, 3, *size))) for seed in (100, 101))


@pytest.fixture(scope="module", params=["samflow_tiny", "samflow_b"])
def case(request):
    if request.param == "samflow_b":
        pytest.importorskip("mmpretrain", reason="SAM's ViT needs ffplug-samflow[vit]")
    keys = json.loads((GOLDEN / request.param / "keys.json").read_text())
    model = ffplug.build_model(request.param)
    model.load_state_dict(ffplug.convert_state_dict(filled(keys), request.param), strict=False)
    return model.eval(), np.load(GOLDEN / request.param / "case1.npz")


def close(tensor, array, atol):
    np.testing.assert_allclose(tensor.detach().numpy(), array, atol=atol, rtol=1e-4)


@torch.no_grad()
def test_context(case):
    model, golden = case
    first, _ = frames()
    encoder = model.context_encoder
    close(encoder.sam(first), golden["sam_feat"], 1e-4)
    fused = encoder.fused(first)
    close(fused, golden["context_cfm"], 1e-4)
    close(encoder.adapt(fused), golden["context_cam"], 1e-4)


@torch.no_grad()
def test_flow(case):
    model, golden = case
    outputs = model.run(*frames(), 8, every=True)
    low = torch.cat([state.flow for state in outputs["states"]])
    close(low, golden["flow_low"], 2e-4)
    close(outputs["flows"][0], golden["flow_up_first"], 2e-3)
    close(outputs["flows"][-1], golden["flow_up_last"], 2e-3)
    close(model.predict_flow(*frames(), iterations=8)["flow"], golden["flow_up_last"], 2e-3)


@torch.no_grad()
def test_cost_memory(case):
    model, golden = case
    encoded = model.encode(*frames())
    memory = model.cost.encode(model.cost.correlate(encoded.feature1, encoded.feature2), encoded.context)
    close(memory.flatten(0, 2)[::6][:32], golden["cost_memory_32"], 1e-4)


@pytest.mark.parametrize(
    ("size", "keys", "seed", "shape", "crop", "name"),
    [
        (256, "native_grid", 200, (256, 256), "center", "native_out"),
        (1024, "grid64", 201, (176, 240), "center", "crop_out"),
        (1024, "grid64", 201, (176, 240), "first", "crop_v0_out"),
    ],
)
def test_sam_vit(size, keys, seed, shape, crop, name):
    pytest.importorskip("mmpretrain", reason="SAM's ViT needs ffplug-samflow[vit]")
    listed = json.loads((GOLDEN / "sam_vit_b" / "keys.json").read_text())[keys]
    encoder = SAMViTEncoder(arch="base", rel_pos_crop=crop, image_size=size)
    state = encoder.rename(filled(listed))
    encoder.load_state_dict(state)
    normalised = torch.from_numpy(image(seed, (1, 3, *shape), -2, 2))
    with torch.no_grad():
        close(encoder.encode(normalised), np.load(GOLDEN / "sam_vit_b" / "case1.npz")[name], 1e-4)


TINY = dict(type="ffplug_samflow.MobileSAMTinyViT", embed_dims=(16, 32, 32, 64), depths=(1, 1, 1, 1), heads=(1, 1, 2))


def small_context(**changes):
    twins = dict(type="ffplug_flowformer.TwinsFeatures", embed_dims=(16, 32), heads=(1, 2))
    return {"type": "ffplug_samflow.SAMContextEncoder", "twins": twins, "sam": TINY, "width": 64, **changes}


def small_model(**changes):
    config = load_config("samflow_tiny").model
    config.encoder = dict(type="ffplug_flowformer.TwinsFeatures", embed_dims=(16, 32), heads=(1, 2))
    config.context_encoder = small_context(**changes)
    config.cost = dict(
        type="ffplug_flowformer.LatentCostMemory",
        feature_channels=32,
        context_channels=32,
        vertical_channels=16,
        tokens=4,
        channels=32,
        depth=1,
        patch_channels=16,
        query_channels=16,
    )
    config["update"].update(cost_channels=97, hidden_channels=32, input_channels=32, project_context=32)
    config.upsampler.hidden_channels = 32
    config.iterations = 2
    return ffplug.build_model(config)


def test_batch_equals_singles():
    torch.manual_seed(0)
    model = small_model()
    first, second = torch.rand(2, 2, 3, 96, 112) * 255
    together = model.predict_flow(first, second)["flow"]
    alone = torch.cat([model.predict_flow(a[None], b[None])["flow"] for a, b in zip(first, second, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)


def test_only_the_frozen_encoder_gets_no_gradient():
    torch.manual_seed(0)
    model = small_model().train()
    first, second = torch.rand(2, 2, 3, 64, 96) * 255
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    for step in range(2):
        flows = model.run(first, second, 2, every=True)["flows"]
        model.zero_grad()
        sum(flow.square().mean() for flow in flows).backward()
        adapted = [p.grad for p in model.context_encoder.adapt.parameters()]
        # The weight of the adapted context starts at 0: its module learns from the second step on.
        assert all(grad.abs().sum() == 0 for grad in adapted) == (step == 0)
        assert model.context_encoder.weight.grad[1] != 0
        optimizer.step()
    assert all(p.grad is None and not p.requires_grad for p in model.context_encoder.sam.parameters())
    assert not any(module.training for module in model.context_encoder.sam.modules())
    assert all(p.grad is not None for name, p in model.named_parameters() if ".sam." not in name)


def test_sizes_are_checked():
    encoder = MODELS.build(small_context())
    with pytest.raises(ValueError, match="multiples of 16"):
        encoder(torch.zeros(1, 3, 72, 96))
    encoder.max_size = 128
    with pytest.raises(ValueError, match=r"beyond the frozen encoder's 128 pixels.*TiledFlowInference"):
        encoder(torch.zeros(1, 3, 144, 96))


def test_training_round_trip_leaves_tiny_vit_as_it_was():
    torch.manual_seed(0)
    encoder = MODELS.build(TINY)
    frame = torch.rand(1, 3, 48, 80) * 255
    before = encoder(frame)
    encoder.train()
    encoder.eval()
    torch.testing.assert_close(encoder(frame), before)
    with torch.no_grad():
        for block in encoder.layers[1].blocks:
            block.attn.attention_biases.normal_()
    assert not torch.allclose(encoder(frame), before)


def save_public(encoder, path, prefix="image_encoder."):
    torch.save({f"{prefix}{key}": value for key, value in encoder.state_dict().items()}, path)


def test_weights_from_a_file(tmp_path):
    torch.manual_seed(0)
    source = MODELS.build(TINY)
    save_public(source, tmp_path / "mobile_sam.pt")
    loaded = MODELS.build({**TINY, "checkpoint": str(tmp_path / "mobile_sam.pt")})
    frame = torch.rand(1, 3, 32, 48) * 255
    torch.testing.assert_close(loaded(frame), source(frame))
    model = small_model(sam={**TINY, "checkpoint": str(tmp_path / "mobile_sam.pt")})
    assert model.checkpoint_exclude_prefixes() == ("context_encoder.sam.",)
    model.load_state_dict(small_model().state_dict())
    assert model.checkpoint_exclude_prefixes() == ()  # no longer those of the file
    assert small_model().checkpoint_exclude_prefixes() == ()  # random weights have no other home
    save_public(MODELS.build({**TINY, "embed_dims": (16, 32, 32, 32)}), tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt: not the weights"):
        MODELS.build({**TINY, "checkpoint": str(tmp_path / "other.pt")})


def test_missing_weights(tmp_path, caplog):
    path = str(tmp_path / "mobile_sam.pt")
    with pytest.raises(CheckpointError, match=r"mobile_sam\.pt are not there"):
        MODELS.build({**TINY, "checkpoint": path})
    assert MobileSAMTinyViT(checkpoint=path, missing_checkpoint="warn").from_file is False
    with pytest.raises(ConfigError, match="missing_checkpoint"):
        MobileSAMTinyViT(missing_checkpoint="ignore")


def test_feature_cache(tmp_path):
    torch.manual_seed(0)
    encoder = MODELS.build({**TINY, "feature_cache": str(tmp_path)})
    batch = (torch.rand(2, 3, 32, 48) * 255).round()
    first = encoder(batch)
    assert len(list(tmp_path.glob("*/*.npy"))) == 2
    runs = []
    original = encoder.encode
    encoder.encode = lambda x: runs.append(len(x)) or original(x)
    torch.testing.assert_close(encoder(batch), first)
    assert runs == []
    mixed = torch.cat((batch[:1], (torch.rand(1, 3, 32, 48) * 255).round()))
    torch.testing.assert_close(encoder(mixed)[:1], first[:1])
    assert runs == [1]
    torch.testing.assert_close(first, original((batch - encoder.pixel_mean) / encoder.pixel_std), atol=5e-3, rtol=1e-2)
    encoder.load_state_dict({k: 2 * v if k == "neck.0.weight" else v for k, v in encoder.state_dict().items()})
    assert encoder(batch).shape == first.shape and runs == [1, 2]  # other weights, other features


def test_converter_reports_missing_keys():
    keys = json.loads((GOLDEN / "samflow_tiny" / "keys.json").read_text())
    state = {f"model.{key}": value for key, value in filled(keys).items() if not key.startswith("up_layer8")}
    with pytest.raises(CheckpointError, match=r"2 missing keys \(context_encoder.reduce"):
        ffplug.convert_state_dict(state, "samflow_tiny")


@pytest.mark.parametrize("suffix", ["weight", "bias"])
def test_the_norm_under_two_keys_is_the_later_one(suffix):
    keys = json.loads((GOLDEN / "samflow_tiny" / "keys.json").read_text())
    state = filled(keys)
    converted = ffplug.convert_state_dict(state, "samflow_tiny")
    loaded = converted[f"context_encoder.fuse.0.shortcut.norm.{suffix}"]
    torch.testing.assert_close(loaded, state[f"CFM.0.downsample.1.{suffix}"])
    assert not torch.equal(loaded, state[f"CFM.0.norm3.{suffix}"])


def test_encoder_converters(tmp_path):
    keys = json.loads((GOLDEN / "samflow_tiny" / "keys.json").read_text())
    encoder = {key: value for key, value in filled(keys).items() if key.startswith("sam_encoder.")}
    public = {key.replace("sam_encoder.", "image_encoder."): value for key, value in encoder.items()}
    public["mask_decoder.iou_token.weight"] = torch.zeros(1, 256)
    MobileSAMTinyViT().load_state_dict(ffplug.convert_state_dict(public, "mobile_sam"))
    torch.save(public, tmp_path / "mobile_sam.pt")
    loaded = MobileSAMTinyViT(checkpoint=str(tmp_path / "mobile_sam.pt"))
    close(loaded(frames()[0]), np.load(GOLDEN / "samflow_tiny" / "case1.npz")["sam_feat"], 1e-4)
    public.pop("image_encoder.neck.0.weight")
    with pytest.raises(CheckpointError, match="1 keys missing"):
        ffplug.convert_state_dict(public, "mobile_sam")


def test_sam_vit_converter():
    pytest.importorskip("mmpretrain", reason="SAM's ViT needs ffplug-samflow[vit]")
    listed = json.loads((GOLDEN / "sam_vit_b" / "keys.json").read_text())["grid64"]
    public = {f"image_encoder.{key}": torch.empty(tuple(shape), device="meta") for key, shape in listed.items()}
    with torch.device("meta"):
        expected = SAMViTEncoder(arch="base").state_dict()
    assert ffplug.convert_state_dict(public, "sam_vit_b").keys() == expected.keys()
    with pytest.raises(CheckpointError, match="not the weights of this SAMViTEncoder"):
        ffplug.convert_state_dict(public, "sam_vit_l")


def test_training_starts_from_flowformer():
    torch.manual_seed(0)
    model = small_model()
    flowformer = small_model()
    flowformer.context_encoder = flowformer.context_encoder.twins
    result = model.load_state_dict(flowformer.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert {key.split(".")[1] for key in result.missing_keys} == {"adapt", "fuse", "reduce", "sam", "weight"}
    for key, value in flowformer.context_encoder.state_dict().items():
        torch.testing.assert_close(model.context_encoder.twins.state_dict()[key], value)


def test_convert_command_names_what_it_leaves_out(tmp_path, capsys):
    keys = json.loads((GOLDEN / "samflow_tiny" / "keys.json").read_text())
    torch.save({"state_dict": {f"model.{k}": v for k, v in filled(keys).items()}}, tmp_path / "SAMFlow-tiny.ckpt")
    out = tmp_path / "samflow_tiny.safetensors"
    assert run(cli, ["convert", str(tmp_path / "SAMFlow-tiny.ckpt"), str(out), "--from", "samflow_tiny"], "ffplug") == 0
    printed = capsys.readouterr().out
    for key in ("CFM.0.norm3.weight", "CAM.transformer.norm_final_attn.bias", "sam_encoder.head.weight"):
        assert key in printed
    model = ffplug.build_model("samflow_tiny", out)
    with torch.no_grad():
        close(model.context_encoder.sam(frames()[0]), np.load(GOLDEN / "samflow_tiny" / "case1.npz")["sam_feat"], 1e-4)
