"""The network at golden parity, its parts, and what else goes into their places."""

import sys

import pytest
import torch
from ffplug_fpnmaa.models import MultiTaskAffectHead, PyramidNeck
from ffplug_fpnmaa.models.backbone import build_backbone
from ffplug_fpnmaa.models.necks import mean_of_convolution
from ffplug_fpnmaa.registry import MODELS
from torch import nn

import ffplug
from ffplug.apis.converters import convert_state_dict
from ffplug.config import resolve_type
from ffplug.errors import ConfigError, DataError
from ffplug.testing.golden import image

pytest.importorskip("mmpretrain", reason="the backbones need onedl-mmpretrain")


@pytest.fixture(scope="module")
def model(published_state):
    model = ffplug.build_model("fpn_maa")
    state = convert_state_dict(published_state, "fpn_maa")
    assert not model.load_state_dict(state, strict=False).unexpected_keys
    model.eval()
    return model


@torch.no_grad()
def test_golden_parity(model, golden):
    images = torch.from_numpy(image(31, (2, 3, 128, 128), 0, 1))
    close = dict(rtol=1e-4, atol=2e-5)
    inputs = model.data_preprocessor.normalise(images)
    stages = model.backbone(inputs)
    torch.testing.assert_close(stages[0].mean(dim=(2, 3)), golden["c2_mean"], **close)
    torch.testing.assert_close(stages[3][:, :256], golden["c5"], **close)
    levels = model.neck(stages)
    torch.testing.assert_close(levels[0].mean(dim=(2, 3)), golden["p0_mean"], **close)
    torch.testing.assert_close(levels[3], golden["p3"], **close)
    torch.testing.assert_close(levels[4], golden["pool"], **close)
    means = model.neck.means(stages)
    torch.testing.assert_close(torch.cat(means, dim=1), golden["embedding"], **close)
    outputs = torch.cat(list(model.head(means).values()), dim=1)
    torch.testing.assert_close(outputs, golden["output"], **close)
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0  # the library of 2021
    torch.testing.assert_close(model(inputs), golden["output_eps0"], **close)
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-5


def test_what_is_frozen(model):
    count = sum(value.numel() for value in model.parameters())
    trainable = {name: value.numel() for name, value in model.named_parameters() if value.requires_grad}
    norms = sum(
        value.numel()
        for module in model.modules()
        if isinstance(module, nn.BatchNorm2d)
        for value in module.parameters()
    )
    assert round((count - norms) / 1e6, 2) == 26.83 and round(sum(trainable.values()) / 1e6, 2) == 26.60
    assert not any(name.startswith(("backbone.conv1", "backbone.layer1")) or ".bn" in name for name in trainable)


def test_teachers_and_newer_keys(published_state):
    body = {key.replace("_blocks.0.", "_blocks.0.0."): value for key, value in published_state.items()}
    teacher = {key: value for key, value in body.items() if "_head." not in key}
    teacher |= {f"head.linear.{key}": published_state[f"AU_head.linear.{key}"] for key in ("weight", "bias")}
    converted = convert_state_dict(teacher, "fpn_maa_au")
    assert converted["head.linear.au.weight"].shape == (12, 1280)
    assert torch.equal(converted["neck.lateral.0.bias"], published_state["backbone.fpn.inner_blocks.0.bias"])
    with pytest.raises(ffplug.errors.CheckpointError, match="unexpected keys"):
        convert_state_dict(teacher, "fpn_maa")


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 2), (7, 4)])
def test_the_mean_of_a_convolution_is_exact(size):
    torch.manual_seed(0)
    convolution = nn.Conv2d(3, 5, 3, padding=1).double()
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    expected = convolution(x).mean(dim=(2, 3))
    found = mean_of_convolution(convolution, x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    wanted = torch.autograd.grad(expected.square().sum(), (x, *convolution.parameters()))
    got = torch.autograd.grad(found.square().sum(), (x, *convolution.parameters()))
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_means_of_the_pyramid_are_those_of_its_maps():
    torch.manual_seed(0)
    neck = PyramidNeck([2, 3, 4], out_channels=5).double()
    stages = [torch.randn(2, c, *s, dtype=torch.float64) for c, s in ((2, (9, 7)), (3, (5, 4)), (4, (3, 2)))]
    maps = neck(stages)
    assert [tuple(level.shape[2:]) for level in maps] == [(9, 7), (5, 4), (3, 2), (2, 1)]
    for mean, level in zip(neck.means(stages), maps, strict=True):
        torch.testing.assert_close(mean, level.mean(dim=(2, 3)), rtol=0, atol=1e-13)
    drawn = PyramidNeck([2, 3], out_channels=5, extra="none", init="kaiming_a1")
    assert len(drawn(stages[:2][:0] + [stage.float() for stage in stages[:2]])) == 2
    assert not drawn.lateral[0].bias.any()


def test_gates_begin_as_none_and_levels_are_chosen():
    torch.manual_seed(0)
    plain = MultiTaskAffectHead((4, 4, 4), dict(au=12, va=2, expr=8))
    assert list(plain.tasks) == ["va", "expr", "au"]  # the order of the outputs is fixed
    gated = MultiTaskAffectHead((4, 4, 4), dict(va=2, expr=8, au=12), gates=True)
    gated.load_state_dict(plain.state_dict(), strict=False)
    means = [torch.randn(2, 4) for _ in range(3)]
    for task, output in gated(means).items():
        torch.testing.assert_close(output, plain(means)[task])
    with torch.no_grad():
        gated.gates["expr"].copy_(torch.tensor([9.0, 0.0, 0.0]))
    assert gated.level_weights()["expr"][0] > 0.99 > 0.5 > gated.level_weights()["va"][0]
    chosen = MultiTaskAffectHead((4, 8), dict(va=2, au=5), levels=dict(au=(1,)))
    assert chosen.linear["au"].in_features == 8 and chosen.linear["va"].in_features == 12
    for wrong in (dict(tasks=dict(valence=1)), dict(tasks=dict(va=3)), dict(tasks=dict(va=2), levels=dict(va=(2,)))):
        with pytest.raises(ConfigError):
            MultiTaskAffectHead((4, 4), **wrong)


def narrow(**changes):
    config = dict(
        type="ffplug_fpnmaa.AffectFPN",
        backbone=dict(type="mmpretrain.ResNet", depth=18, base_channels=4, stem_channels=4, out_indices=(0, 1, 2, 3)),
        neck=dict(type="ffplug_fpnmaa.PyramidNeck", in_channels=[4, 8, 16, 32], out_channels=8),
        head=dict(type="ffplug_fpnmaa.MultiTaskAffectHead", channels=(8,) * 5, tasks=dict(va=2, expr=7, au=12)),
    )
    model = MODELS.build({**config, **changes})
    model.eval()
    return model


@pytest.mark.parametrize(
    ("backbone", "neck", "channels"),
    [
        (
            dict(type="mmpretrain.MobileNetV2", out_indices=(1, 2, 4, 6), widen_factor=0.25),
            dict(type="ffplug_fpnmaa.PyramidNeck", in_channels=[8, 8, 24, 80], out_channels=8),
            (8,) * 5,
        ),
        (
            dict(type="mmpretrain.ResNet", depth=18, base_channels=4, stem_channels=4, out_indices=(0, 1, 2, 3)),
            dict(type="ffplug_fpnmaa.StageMeans", in_channels=[4, 8, 16, 32]),
            (4, 8, 16, 32),
        ),
        (
            dict(type="mmpretrain.ResNet", depth=18, base_channels=4, stem_channels=4),
            dict(type="mmpretrain.GlobalAveragePooling"),
            (32,),
        ),
        (
            dict(
                type="mmpretrain.ConvNeXt",
                arch=dict(depths=[1, 1, 1, 1], channels=[4, 8, 16, 32]),
                out_indices=(0, 1, 2, 3),
                gap_before_final_norm=False,
            ),
            dict(type="ffplug_fpnmaa.PyramidNeck", in_channels=[4, 8, 16, 32], out_channels=8),
            (8,) * 5,
        ),
        (
            dict(
                type="mmpretrain.VisionTransformer",
                arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=16),
                img_size=64,
                out_indices=(0, 1),
                out_type="featmap",
            ),
            None,
            (16, 16),
        ),
        (
            dict(type="mmpretrain.ResNet", depth=18, base_channels=4, stem_channels=4, out_indices=(0, 1, 2, 3)),
            dict(type="mmpretrain.HRFuseScales", in_channels=(4, 8, 16, 32), out_channels=24),
            (24,),
        ),
    ],
)
@torch.no_grad()
def test_other_backbones_and_necks(backbone, neck, channels):
    tasks = dict(va=2, expr=8)
    head = dict(type="ffplug_fpnmaa.MultiTaskAffectHead", channels=channels, tasks=tasks)
    model = narrow(backbone=backbone, neck=neck, head=head)
    told = model.analyse(torch.rand(2, 3, 64, 64), flip=True)
    assert told["expr"].shape == (2, 8) and list(told) == ["va", "expr"]
    torch.testing.assert_close(told["expr"].sum(dim=1), torch.ones(2))
    assert model.embed(torch.rand(1, 3, 64, 64)).shape == (1, sum(channels))


def test_the_encoder_of_latentface():
    pytest.importorskip("ffplug_latentface", reason="needs ffplug-latentface")
    encoder = dict(type="ffplug_latentface.LatentFaceEncoder", width=4, image_size=32, code=8, out_indices=(1, 2, 3))
    model = narrow(
        backbone=encoder,
        neck=dict(type="ffplug_fpnmaa.PyramidNeck", in_channels=[16, 32, 64], out_channels=8),
        head=dict(type="ffplug_fpnmaa.MultiTaskAffectHead", channels=(8,) * 4, tasks=dict(va=2, au=12)),
        data_preprocessor=dict(type="ffplug_fpnmaa.AffectPreprocessor", mean=(0, 0, 0), std=(1 / 255,) * 3),
        losses=[dict(type="ffplug_fpnmaa.MaskedMSE"), dict(type="ffplug_fpnmaa.MaskedBCE")],
    )
    seen = model.data_preprocessor.normalise(torch.full((1, 3, 4, 4), 255, dtype=torch.uint8))
    torch.testing.assert_close(seen, torch.full((1, 3, 4, 4), 255.0))  # the encoder normalises by itself
    batch = model.data_preprocessor(model.example_batch(2))
    sum(model(**batch, mode="loss").values()).backward()
    gradient = next(model.backbone.parameters()).grad
    assert gradient is not None and gradient.any()
    assert model.analyse(torch.rand(1, 3, 64, 64))["au"].shape == (1, 12)


def test_thresholds_are_checked():
    head = MultiTaskAffectHead((4,), dict(au=3), thresholds=0.4)
    assert head.thresholds == (0.4,) * 3
    for wrong in ((0.5, 0.5), (0.5, 0.5, 1.5)):
        with pytest.raises(ConfigError, match="one for each of 3 units"):
            MultiTaskAffectHead((4,), dict(au=3), thresholds=wrong)
    with pytest.raises(ConfigError, match="va_bins=20"):
        MultiTaskAffectHead((4,), dict(au=3), va_bins=20)


def test_what_does_not_fit_is_named():
    head = dict(type="ffplug_fpnmaa.MultiTaskAffectHead", channels=(8,) * 4, tasks=dict(va=2))
    with pytest.raises(ConfigError, match=r"head\.channels.*make them agree"):
        narrow(head=head)
    neck = dict(type="ffplug_fpnmaa.PyramidNeck", in_channels=[4, 8, 16, 64], out_channels=8)
    with pytest.raises(ConfigError, match=r"stages of \(4, 8, 16, 32\) channels"):
        narrow(neck=neck).analyse(torch.rand(1, 3, 64, 64))
    model = narrow()
    with pytest.raises(DataError, match="ResizeFace"):
        model.data_preprocessor(dict(inputs=[torch.zeros(3, 64, 64), torch.zeros(3, 32, 64)], data_samples=None))


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError("No module named 'torchvision'"), TypeError("NoneType takes no arguments")]
)
def test_a_mmpretrain_that_fails_to_import_says_what_to_do(monkeypatch, error):
    def fail(self, name, path=None, target=None):
        if name.startswith("mmpretrain."):
            raise error

    for name in [name for name in sys.modules if name.partition(".")[0] == "mmpretrain"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [type("Finder", (), {"find_spec": fail})(), *sys.meta_path])
    backbone = dict(type="mmpretrain.ResNet", depth=18)
    with pytest.raises(ConfigError, match=r"torchvision.*pip uninstall pycocotools"):
        build_backbone(backbone)
    with pytest.raises(ConfigError, match=r"torchvision.*pip uninstall pycocotools"):
        resolve_type("mmpretrain.ResNet", "model.backbone")
