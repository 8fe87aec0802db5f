import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from ffplug_decflow.models import FacialSemanticEncoder, SemanticContextEncoder
from ffplug_decflow.torchscript import read_torchscript
from torch import nn

import ffplug
from ffplug.config import load_config
from ffplug.errors import CheckpointError, ConfigError, DataError


def small_config():
    """The small network with batch norm in its context, as the full one has."""
    model = load_config("decflow_small").model
    model.context_encoder.context.norm = "batch"
    return model


def small(**changes):
    return ffplug.build_model({**small_config(), **changes})


def semantic(**changes):
    return dict(type="ffplug_decflow.FacialSemanticEncoder", width=8, depths=(1, 1), **changes)


def statistics(module):
    return {name: value.clone() for name, value in module.named_buffers() if "running" in name}


def step(model):
    model.train()
    batch = model.data_preprocessor(model.example_batch(2), training=True)
    loss, _ = model.parse_losses(model(**batch, mode="loss"))
    loss.backward()
    return loss


def test_what_is_frozen_keeps_weights_and_statistics():
    torch.manual_seed(0)
    model = small()
    encoder = model.context_encoder
    before = {name: statistics(getattr(encoder, name)) for name in ("context", "semantic", "fuse")}
    assert torch.isfinite(step(model))
    for name in ("context", "semantic"):
        assert all(torch.equal(before[name][key], value) for key, value in statistics(getattr(encoder, name)).items())
    assert not any(torch.equal(before["fuse"][key], value) for key, value in statistics(encoder.fuse).items())
    assert all(parameter.grad is None for parameter in encoder.semantic.parameters())
    for part in (encoder.fuse, encoder.reduce, encoder.context, model.decoder, model.decoders["head"]):
        assert all(parameter.grad is not None for parameter in part.parameters())


def test_the_published_training_lets_statistics_drift_and_never_trains_the_fusion():
    torch.manual_seed(0)
    context = dict(small_config().context_encoder)
    model = small(context_encoder={**context, "freeze_fusion": True, "fixed_statistics": False})
    encoder = model.context_encoder
    before = {name: statistics(getattr(encoder, name)) for name in ("context", "semantic", "fuse")}
    step(model)
    for name, old in before.items():
        assert not any(torch.equal(old[key], value) for key, value in statistics(getattr(encoder, name)).items()), name
    assert all(parameter.grad is None for parameter in encoder.fuse.parameters())
    assert all(parameter.grad is not None for parameter in encoder.reduce.parameters())


def test_stage_two_trains_the_head_decoder_and_the_reduction():
    model = load_config("decflow_ffn_stage2").model
    model.context_encoder.semantic.checkpoint = None
    model = ffplug.build_model(model).train()
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {re.match(r"decoders\.head|context_encoder\.reduce|.*", name)[0] for name in trained} == {
        "decoders.head",
        "context_encoder.reduce",
    }
    assert sum(model.get_parameter(name).numel() for name in trained) == 3_760_193
    assert not any(m.training for m in model.decoder.modules()) and model.decoders["head"].training


def test_two_grids_do_not_fit():
    encoder = FacialSemanticEncoder(width=8, depths=(1, 1))
    other = FacialSemanticEncoder(width=8, depths=(1, 1))
    other.stride = 16
    with pytest.raises(ConfigError, match=r"context\.stride=8 and semantic\.stride=16"):
        SemanticContextEncoder(encoder, other)


def test_samples_without_head_flow_are_refused():
    model = small().train()
    batch = model.example_batch(1)
    del batch["data_samples"][0].gt_head_flow
    with pytest.raises(DataError, match="no true head_flow: DecomposedLoss needs"):
        model(**model.data_preprocessor(batch), mode="loss")


def test_gma_s_weights_start_both_decoders(published):
    other = ("dad_encoder.", "res1.", "change_dim.", "update_block_head.")
    gma = {key: value for key, value in published.items() if not key.startswith(other)}
    started = ffplug.convert_state_dict(gma, "decflow_from_gma")
    model = ffplug.build_model("decflow")
    result = model.load_state_dict(started, strict=False)
    assert not result.unexpected_keys
    missing = {".".join(key.split(".")[:2]) for key in result.missing_keys if not key.endswith("num_batches_tracked")}
    assert missing == {f"context_encoder.{part}" for part in ("semantic", "reduce", "fuse")}
    facial, head = model.decoder.state_dict(), model.decoders["head"].state_dict()
    assert set(facial) - set(head) == {"update.attention.query_key.weight"}
    assert all(torch.equal(facial[key], value) for key, value in head.items())
    with pytest.raises(CheckpointError, match="not a 'gma' state dict"):
        ffplug.convert_state_dict(published, "decflow_from_gma")


@pytest.mark.parametrize("prefix", ["encoder.model.", "dad_encoder.model.", "module.encoder."])
def test_the_semantic_encoder_loads_from_a_file(tmp_path, published, prefix):
    named = {"0": "init_block", "1": "stage1", "2": "stage2", "3": "stage3"}
    own = "dad_encoder.model."
    inner = {key.removeprefix(own): value for key, value in published.items() if key.startswith(own)}
    state = {f"{prefix}{named[key[0]]}{key[1:]}": value for key, value in inner.items()}
    torch.save(state, tmp_path / "dad.pth")
    encoder = FacialSemanticEncoder(checkpoint=str(tmp_path / "dad.pth"))
    loaded = encoder.state_dict()
    torch.testing.assert_close(loaded["stem.conv.weight"], state[f"{prefix}init_block.conv.conv.weight"])
    key = "stage2.unit1.identity_conv.bn.running_mean"
    torch.testing.assert_close(loaded["stages.1.0.shortcut.norm.running_mean"], state[f"{prefix}{key}"])
    del state[f"{prefix}{key}"]
    torch.save(state, tmp_path / "dad.pth")
    with pytest.raises(CheckpointError, match=r"1 tensors missing or of another shape \(stages\.1\.0\.shortcut"):
        FacialSemanticEncoder(checkpoint=str(tmp_path / "dad.pth"))


class Unit(nn.Module):
    """One bottleneck of pytorchcv's ResNet, as far as names and shapes go."""

    def __init__(self, inputs, width, first):
        super().__init__()

        def block(a, b, size):
            return nn.Sequential(OrderedDict(conv=nn.Conv2d(a, b, size, bias=False), bn=nn.BatchNorm2d(b)))

        sizes = {"conv1": (inputs, width, 1), "conv2": (width, width, 3), "conv3": (width, 4 * width, 1)}
        self.body = nn.Sequential(OrderedDict((name, block(*size)) for name, size in sizes.items()))
        if first:
            self.identity_conv = block(inputs, 4 * width, 1)

    def forward(self, x):
        return self.body(x)


class Published(nn.Module):
    """A scripted network around an encoder, with other attributes that are of no use here."""

    def __init__(self):
        super().__init__()
        stem = nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 8, 7, bias=False), bn=nn.BatchNorm2d(8)))
        stages = OrderedDict(
            init_block=nn.Sequential(OrderedDict(conv=stem)),
            stage1=nn.Sequential(OrderedDict(unit1=Unit(8, 8, True))),
            stage2=nn.Sequential(OrderedDict(unit1=Unit(32, 16, True))),
        )
        self.encoder = nn.Sequential(OrderedDict(model=nn.Sequential(stages)))
        self.labels = ["a", "b"]
        self.sizes = [1, 2]
        self.head = nn.Linear(3, 2)
        for buffer in self.buffers():
            if buffer.is_floating_point():
                buffer.uniform_(1, 2)

    def forward(self, x):
        return self.encoder(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive_is_read_and_not_run(tmp_path, monkeypatch):
    torch.manual_seed(0)
    network = Published()
    path = tmp_path / "dad.trcd"
    torch.jit.script(network).save(str(path))
    monkeypatch.setattr(torch.jit, "load", None)
    tensors = read_torchscript(path)
    state = network.state_dict()
    assert state.keys() <= tensors.keys()
    assert all(torch.equal(tensors[key], value) for key, value in state.items())
    encoder = FacialSemanticEncoder(width=8, depths=(1, 1), checkpoint=str(path))
    loaded = encoder.state_dict()
    for ours, theirs in (
        ("stem.norm.running_var", "init_block.conv.bn.running_var"),
        ("stages.1.0.layers.1.conv.weight", "stage2.unit1.body.conv2.conv.weight"),
        ("stages.0.0.shortcut.norm.bias", "stage1.unit1.identity_conv.bn.bias"),
    ):
        assert torch.equal(loaded[ours], state[f"encoder.model.{theirs}"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_archive_with_other_names_is_refused(tmp_path):
    good, bad = tmp_path / "good.trcd", tmp_path / "bad.trcd"
    torch.jit.script(nn.Linear(2, 2)).save(str(good))

    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    for content, said in ((pickle.dumps(Evil()), "could run code, and is refused"), (b"\x80\x02", "damaged")):
        with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
            for name in source.namelist():
                target.writestr(name, content if name.endswith("/data.pkl") else source.read(name))
        with pytest.raises(CheckpointError, match=said):
            FacialSemanticEncoder(checkpoint=str(bad))
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("FFPLUG_WEIGHTS", str(tmp_path))
    with pytest.raises(CheckpointError, match=r"dad_3dheads\.trcd are not there; .*DAD-3DHeads"):
        FacialSemanticEncoder(width=8, depths=(1, 1), checkpoint="dad_3dnet")
    FacialSemanticEncoder(width=8, depths=(1, 1), checkpoint="dad_3dnet", missing_checkpoint="warn")
    with pytest.raises(ConfigError, match="missing_checkpoint='ignore'"):
        FacialSemanticEncoder(missing_checkpoint="ignore")
    with pytest.raises(ConfigError, match=r"depths=\(3,\)"):
        FacialSemanticEncoder(depths=(3,))


def head_decoder(update, **changes):
    """A further decoder for the head flow beside an update block, with attention of its own."""
    return {"head": {"update": {**update, **changes}, "upsampler": dict(type="ffplug.ConvexUpsampler")}}


@pytest.mark.parametrize("name", ["raft_large", "gma", "flowformer", "samflow_tiny"])
def test_the_decomposed_decoder_goes_with_other_encoders(name):
    if name not in ffplug.list_models():
        pytest.skip(f"the plugin of {name} is not installed")
    config = load_config(name).model
    config.update(
        decoders=head_decoder(config["update"]),
        differences=dict(expression=("", "head")),
        losses=[dict(type="ffplug_decflow.DecomposedLoss")],
        iterations=1,
        tile=None,
    )
    if name != "samflow_tiny":
        config.context_encoder = dict(
            type="ffplug_decflow.SemanticContextEncoder", context=config.context_encoder, semantic=semantic()
        )
    torch.manual_seed(0)
    model = ffplug.build_model(config)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    before = model.decoders["head"].update.flow_head[1].weight.detach().clone()
    assert torch.isfinite(step(model))
    optimizer.step()
    assert not torch.equal(before, model.decoders["head"].update.flow_head[1].weight)
    result = model.predict_flow(*torch.rand(2, 1, 3, 128, 128) * 255, iterations=1)
    assert torch.equal(result["expression_flow"], result["flow"] - result["head_flow"])
