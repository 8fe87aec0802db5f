"""The two stages, the probe, the backbone, the pipeline and the converters."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from ffplug_latentface.converters import read_public_checkpoint
from ffplug_latentface.models.denoiser import build_denoiser, current_unet_keys, unet_to_mlp
from ffplug_latentface.models.factors import BORDER, Factors, Renderer, depth_of
from ffplug_latentface.models.pipeline import LatentFacePipeline, load_pipeline
from ffplug_latentface.models.schedulers import build_scheduler, sample_codes
from ffplug_latentface.structures import FaceSample
from mmengine.registry import DefaultScope

from ffplug.apis.models import build_model
from ffplug.cli.convert import command as convert
from ffplug.datasets.procedural import Recipe
from ffplug.datasets.procedural.writers import write_procedural
from ffplug.errors import CheckpointError, ConfigError, DataError
from ffplug.registry import DATASETS, METRICS, MODELS


def widened(key: str, shape: list[int], factor: int) -> list[int]:
    """The shape of a denoiser's tensor with as many times its channels, but for the codes'."""
    fixed = {"conv_in.weight": 1, "conv_out.weight": 0, "conv_out.bias": 0}.get(key)
    return [side * factor if side >= 128 and axis != fixed else side for axis, side in enumerate(shape)]


@pytest.fixture(scope="module")
def images(model: torch.nn.Module) -> torch.Tensor:
    return model.autoencoder.data_preprocessor(model.autoencoder.example_batch(2))["inputs"]


def test_depth_is_level_and_has_a_border() -> None:
    depth = depth_of(torch.randn(2, 1, 8, 8) + 5)
    assert torch.equal(depth[..., :2], torch.full((2, 8, 2), BORDER))
    assert 0.9 < float(depth[..., 2:-2].min()) < 1 < float(depth[..., 2:-2].max()) < 1.1


def test_an_unturned_face_is_the_canonical_one() -> None:
    depth = 1 + 0.02 * torch.rand(1, 16, 16)
    albedo = torch.rand(1, 3, 16, 16)
    factors = Factors(depth, albedo, torch.tensor([[1.0, 0, 0, 0]]), torch.zeros(1, 6))
    picture, seen = Renderer(16).render(factors)
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    assert torch.allclose(picture[inner], albedo[inner], atol=1e-3)
    assert torch.allclose(seen[:, 1:-1, 1:-1], depth[:, 1:-1, 1:-1], atol=1e-5)
    with pytest.raises(ConfigError, match="inverse_warp"):
        Renderer(16, reconstruct="warp")


def test_identity_and_expression_add_up_to_the_codes(model: torch.nn.Module, images: torch.Tensor) -> None:
    with torch.no_grad():
        codes, both = model.embed(images, "codes"), model.embed(images, "both")
        expression, identity = model.embed(images, "expression"), model.embed(images)
    first, second = both.chunk(2, 1)
    assert torch.allclose(first + second, codes, atol=1e-6)
    albedo, depth = codes.chunk(2, 1)
    assert torch.equal(expression[:, 16:32], albedo) and torch.equal(identity[:, 48:], depth)
    assert torch.equal(identity[:, :16], first[:, :16])


def test_the_unet_and_the_perceptron_are_the_same() -> None:
    torch.manual_seed(0)
    unet, mlp = build_denoiser(8, 16, "unet").eval(), build_denoiser(8, 16).eval()
    mlp.load_state_dict(unet_to_mlp(unet.state_dict()))
    sample, steps = torch.randn(3, 16, 1, 1), torch.tensor([0, 10, 999])
    assert torch.allclose(unet(sample, steps).sample, mlp(sample, steps).sample, atol=1e-5)
    old = {key.replace("to_q", "query").replace("to_out.0", "proj_attn"): v for key, v in unet.state_dict().items()}
    assert set(current_unet_keys(old)) == set(unet.state_dict())


def test_every_sampler_finds_what_a_perfect_denoiser_knows() -> None:
    class Perfect(torch.nn.Module):
        def forward(self, both: torch.Tensor, step: torch.Tensor) -> object:
            return type("Output", (), {"sample": 2 * both[:, 4:]})

    observed = 3 * torch.rand(2, 4)
    for sampler in ("ddim", "dpm"):
        found = sample_codes(Perfect(), build_scheduler(sampler), observed, torch.randn(2, 4))
        assert torch.allclose(found, 2 * observed, atol=1e-4), sampler
    cut = sample_codes(Perfect(), build_scheduler("legacy"), observed, torch.randn(2, 4))
    assert torch.allclose(cut, (2 * observed).clamp(-1, 1))
    with pytest.raises(ConfigError, match="did you mean 'ddim'"):
        build_scheduler("dimm")


def test_leave_one_out_leaves_out_the_frame(narrow: dict, images: torch.Tensor) -> None:
    torch.manual_seed(0)
    model = MODELS.build({**narrow, "target": "leave_one_out", "weighting": "uniform"})
    seen = []
    model.scheduler.add_noise = lambda clean, noise, steps: seen.append(clean) or clean
    model._loss(images[None])
    codes = model.autoencoder.codes(images)
    assert torch.allclose(seen[0], codes[[1, 0], :16], atol=1e-5)


@pytest.mark.parametrize("size", [32, 128])
def test_other_sizes(size: int) -> None:
    torch.manual_seed(0)
    sizes = dict(image_size=size, width=8, code=16)
    for kind in ("LatentFaceAutoencoder", "PlainAutoencoder"):
        model = MODELS.build(dict(type=f"ffplug_latentface.{kind}", **sizes))
        batch = model.data_preprocessor(model.example_batch(2))
        losses = model(**batch, mode="loss")
        sum(losses.values()).backward()
        assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters() if p.requires_grad), kind
        sample = model(**batch, mode="predict")[0]
        assert sample.pred_image.shape == (3, size, size)


def test_without_confidence_differences_are_plain(images: torch.Tensor) -> None:
    torch.manual_seed(0)
    config = dict(type="ffplug_latentface.LatentFaceAutoencoder", width=8, code=16, confidence=False)
    model = MODELS.build(dict(config, mirrored_weight=0.0))
    assert not [key for key in model.state_dict() if key.startswith("confidence")]
    losses = model(images, mode="loss")
    picture, depth = model.render(model.factors(images))
    twin = model.render(model.factors(images).with_mirrored())[1][len(images) :]
    mask = ((depth < 1.2) & (twin < 1.2))[:, None].expand_as(images)
    expected = float((picture - images).abs()[mask].mean().detach())
    assert float(losses["loss_photometric"]) == pytest.approx(expected, rel=1e-4)
    assert float(losses["loss_photometric_mirrored"]) == 0


def test_signals_keep_their_spread(images: torch.Tensor) -> None:
    spreads = {}
    for spread in (False, True):
        torch.manual_seed(0)
        model = MODELS.build(dict(type="ffplug_latentface.PlainAutoencoder", width=16, code=32, spread=spread))
        with torch.no_grad():
            spreads[spread] = float(model.codes(torch.cat((images, images.flip(2), -images))).std())
    assert spreads[False] < 0.15 and 0.4 < spreads[True] < 2, spreads


@torch.no_grad()
def test_scaled_codes_decode_to_the_same(narrow: dict, images: torch.Tensor) -> None:
    models = []
    for scale in ((1.0, 1.0), (0.5, 4.0)):
        torch.manual_seed(0)
        models.append(MODELS.build({**narrow, "code_scale": scale}).autoencoder)
    plain, scaled = models
    codes = plain.codes(images)
    factors = torch.tensor([0.5, 4.0]).repeat_interleave(16)
    assert torch.allclose(scaled.codes(images), factors * codes, rtol=1e-5)
    for first, second in zip(plain.shape_and_colour(codes), scaled.shape_and_colour(factors * codes), strict=True):
        assert torch.allclose(first, second, atol=1e-5)
    with pytest.raises(ConfigError, match="code_scale"):
        MODELS.build({**narrow, "code_scale": (1.0, 0.0)})


def test_what_does_not_fit_is_named(model: torch.nn.Module, narrow: dict) -> None:
    with pytest.raises(DataError, match="64×64"):
        model.autoencoder.codes(torch.zeros(1, 3, 32, 32))
    with pytest.raises(DataError, match="two or more frames"):
        model(torch.zeros(1, 3, 64, 64), mode="loss")
    with pytest.raises(ConfigError, match="leave_one_out"):
        MODELS.build({**narrow, "target": "median"})
    with pytest.raises(ConfigError, match="128"):
        MODELS.build(dict(type="ffplug_latentface.LatentFaceAutoencoder", image_size=96))


def test_the_backbone_gives_the_codes_and_maps(model: torch.nn.Module, images: torch.Tensor, tmp_path: Path) -> None:
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    config = dict(type="ffplug_latentface.LatentFaceEncoder", width=8, code=16, out_indices=(0, 3))
    backbone = MODELS.build({**config, "checkpoint": str(tmp_path / "weights.pth"), "frozen": True})
    pictures = (images + 1) * 127.5
    assert torch.allclose(backbone.codes(pictures), model.embed(images, "codes"), atol=1e-5)
    maps = backbone(pictures)
    assert [tuple(each.shape) for each in maps] == [(2, 16, 32, 32), (2, 128, 4, 4)]
    assert backbone.out_channels == (16, 128)
    with pytest.raises(CheckpointError, match="width"):
        MODELS.build({**config, "width": 16, "checkpoint": str(tmp_path / "weights.pth")})


def test_probes_of_three_tasks(narrow: dict, images: torch.Tensor) -> None:
    torch.manual_seed(0)
    config = dict(type="ffplug_latentface.LinearProbe", encoder=narrow, tasks=dict(au=12, expr=7, va=2))
    probe = MODELS.build(config)
    known, other = FaceSample(), FaceSample(metainfo=dict(sample_id="b", dataset="Set"))
    known.gt_expr, known.gt_au = torch.tensor(3), torch.ones(12)
    before = {name: value.clone() for name, value in probe.encoder.state_dict().items()}
    optimizer = torch.optim.Adam(probe.parameters(), 0.05)
    for _ in range(12):
        losses = probe(images, [known, other], mode="loss")
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert float(losses["loss_va"]) == 0 and float(losses["loss_expr"].detach()) < 0.5
    assert all(torch.equal(value, before[name]) for name, value in probe.encoder.state_dict().items())
    first, _ = probe(images, [known, other], mode="predict")
    assert int(first.pred_expr) == 3 and float(first.pred_expr_probability.sum()) == pytest.approx(1)
    assert bool((first.pred_au > 0.5).all()) and first.pred_va.shape == (2,)
    with pytest.raises(DataError, match="to train on: b"):
        probe(images[:1].expand(2, -1, -1, -1), [other, other], mode="loss")
    known.gt_expr = torch.tensor(7)
    with pytest.raises(DataError, match="gt_expr"):
        probe(images, [known, other], mode="loss")
    for tasks in ({}, dict(expression=7), dict(va=3)):
        with pytest.raises(ConfigError, match="tasks="):
            MODELS.build({**config, "tasks": tasks})
    tuned = MODELS.build({**config, "finetune": True, "tasks": dict(expr=8)})
    tuned(images, [known, known], mode="loss")["loss_expr"].backward()
    assert bool(tuned.encoder.autoencoder.networks.depth.encoder[0].weight.grad.any())


@pytest.mark.parametrize("recipe", ["latentface_probe_affectnet", "latentface_probe_affwild2"])
def test_recipes_of_affect(recipe: str, narrow: dict, tmp_path: Path) -> None:
    pytest.importorskip("ffplug_fpnmaa")
    from ffplug.config import load_config

    config = load_config(recipe)
    layout = "affectnet" if "affectnet" in recipe else "affwild2"
    root = tmp_path / "set"
    write_procedural(Recipe(layout, scenes=2, frames=8, size=(32, 32), textures="analytic"), root)
    faces = DATASETS.build({**config.train_dataloader.dataset, "data_root": str(root), "thin": None})
    probe = MODELS.build({**config.model, "encoder": narrow}).train()
    batch = dict(
        zip(
            ("inputs", "data_samples"),
            zip(*((faces[k]["inputs"], faces[k]["data_samples"]) for k in range(4)), strict=True),
            strict=True,
        )
    )
    batch = probe.data_preprocessor(batch, training=True)
    losses = probe(batch["inputs"], list(batch["data_samples"]), mode="loss")
    assert set(losses) == {f"loss_{task}" for task in config.model.tasks} and all(map(torch.isfinite, losses.values()))
    probe.eval()
    metric = METRICS.build(config.val_evaluator)
    metric.process(None, probe(batch["inputs"], list(batch["data_samples"]), mode="predict"))
    figures = metric.evaluate(4)
    assert {"affect/CCC_V", "affect/EXPR_F1"} <= set(figures)


def test_the_encoder_serves_a_classifier_of_mmpretrain() -> None:
    pytest.importorskip("mmpretrain")
    from mmpretrain.structures import DataSample

    torch.manual_seed(0)
    # The scope that a run leaves, from which the head's default loss is not found.
    with DefaultScope.overwrite_default_scope("mmengine"):
        classifier = build_model(
            dict(
                type="mmpretrain.ImageClassifier",
                data_preprocessor=dict(type="mmpretrain.ClsDataPreprocessor", mean=[0] * 3, std=[1] * 3, to_rgb=False),
                backbone=dict(type="ffplug_latentface.LatentFaceEncoder", width=8, code=16),
                neck=dict(type="mmpretrain.GlobalAveragePooling"),
                head=dict(
                    type="mmpretrain.LinearClsHead",
                    num_classes=7,
                    in_channels=128,
                    loss=dict(type="mmpretrain.CrossEntropyLoss"),
                ),
            )
        )
    pictures = [torch.randint(256, (3, 64, 64), dtype=torch.uint8) for _ in range(2)]
    samples = [DataSample().set_gt_label(label) for label in (1, 5)]
    batch = classifier.data_preprocessor(dict(inputs=pictures, data_samples=samples), training=True)
    classifier(**batch, mode="loss")["loss"].backward()
    assert float(classifier.backbone.depth[0].weight.grad.abs().sum()) > 0
    assert classifier(**batch, mode="predict")[0].pred_score.shape == (7,)


@pytest.fixture(scope="module")
def folder(model: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipeline") / "saved"
    LatentFacePipeline.of(model).save_pretrained(path)
    return path


@pytest.mark.parametrize("sampler", ["ddim", "legacy", "dpm"])
def test_a_pipeline_saved_and_loaded_gives_the_same(
    model: torch.nn.Module, images: torch.Tensor, folder: Path, tmp_path: Path, sampler: str
) -> None:
    before = LatentFacePipeline.of(model)
    before.scheduler = build_scheduler(sampler)
    before.save_pretrained(tmp_path)
    after = load_pipeline(tmp_path)
    found, again = (each(images, generator=torch.Generator().manual_seed(1)) for each in (before, after))
    assert torch.equal(found.identity, again.identity) and torch.equal(found.expression, again.expression)
    assert type(after.scheduler) is type(before.scheduler)
    plain = LatentFacePipeline.from_pretrained(tmp_path)(images, generator=torch.Generator().manual_seed(1))
    assert torch.equal(plain.identity, found.identity)
    with torch.no_grad():
        noise = model.noise(found.identity)
        expected = load_pipeline(folder)(images, noise=noise).identity
        assert torch.allclose(model.embed(images, "both")[:, :32], expected, atol=1e-6)


def _edited(folder: Path, target: Path, name: str, **changes: object) -> Path:
    shutil.copytree(folder, target)
    path = target / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return target


def test_folders_of_something_else_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="save_pretrained"):
        load_pipeline(tmp_path)
    unknown = dict(scheduler=["diffusers", "DDMIScheduler"])
    with pytest.raises(CheckpointError, match="did you mean 'DDIMScheduler'"):
        load_pipeline(_edited(folder, tmp_path / "a", "model_index.json", **unknown))
    with pytest.raises(CheckpointError, match=r"os\.system"):
        load_pipeline(_edited(folder, tmp_path / "b", "model_index.json", encoder=["os", "system"]))
    with pytest.raises(CheckpointError, match="StableDiffusionPipeline"):
        load_pipeline(_edited(folder, tmp_path / "c", "model_index.json", _class_name="StableDiffusionPipeline"))
    with pytest.raises(CheckpointError, match=r"does not load|lengths"):
        load_pipeline(_edited(folder, tmp_path / "d", "rdm_depth/config.json", code=8))
    with pytest.raises(CheckpointError, match="does not load"):
        load_pipeline(_edited(folder, tmp_path / "e", "encoder/config.json", width=16))
    for target, damage in (("f", lambda file: file.write_bytes(file.read_bytes()[:300])), ("g", Path.unlink)):
        shutil.copytree(folder, tmp_path / target)
        damage(next((tmp_path / target / "rdm_albedo").glob("*.safetensors")))
        with pytest.raises(CheckpointError, match=f"{target}: does not load"):
            load_pipeline(tmp_path / target)
    with pytest.raises(CheckpointError, match="not a pipeline's index"):
        shutil.copytree(folder, tmp_path / "h")
        (tmp_path / "h" / "model_index.json").write_text("[1, 2")
        load_pipeline(tmp_path / "h")


class Evil:
    """What a checkpoint must not be able to run."""

    def __reduce__(self) -> tuple:
        return exec, ("raise SystemExit('ran')",)


@pytest.mark.parametrize("zipped", [True, False])
def test_public_checkpoints_are_read_without_running_them(tmp_path: Path, zipped: bool) -> None:
    weight = torch.rand(2, 3)
    content = {"netD": {"network.0.weight": weight}, "metrics_trace": Evil(), "epoch": 30}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    assert torch.equal(read_public_checkpoint(tmp_path / "a.pth")["netD.network.0.weight"], weight)
    (tmp_path / "b.pth").write_bytes((tmp_path / "a.pth").read_bytes()[:200])
    with pytest.raises(CheckpointError, match=r"b\.pth"):
        read_public_checkpoint(tmp_path / "b.pth")
    torch.save({"model": 3}, tmp_path / "c.pth")
    with pytest.raises(CheckpointError, match="netD"):
        read_public_checkpoint(tmp_path / "c.pth")


def test_converters_fit_the_models(tmp_path: Path) -> None:
    from ffplug.apis.converters import convert_state_dict

    shapes = json.loads((Path(__file__).parent / "golden" / "keys64.json").read_text())
    state = {f"{net}.{key}": torch.empty(shape) for net, keys in shapes.items() for key, shape in keys.items()}
    converted = convert_state_dict(state, "latentface")
    assert converted["autoencoder.networks.depth.decoder.29.weight"] is state["netD.network2.29.weight"]
    older = {}
    for key, value in state.items():
        net, part, rest = key.split(".", 2)
        if part == "network2":
            layer, _, last = rest.partition(".")
            rest = f"{int(layer) + 13}.{last}"
        if net not in ("netEA", "netED"):
            older[f"{net}.{'network' if part.startswith('network') else part}.{rest}"] = value
    first = convert_state_dict(older, "unsup3d")
    assert all(converted[f"autoencoder.{key}"] is value for key, value in first.items())
    with pytest.raises(CheckpointError, match="missing"):
        convert_state_dict({key: value for key, value in older.items() if "netC" not in key}, "unsup3d")
    nested: dict = {"metrics_trace": Evil(), "epoch": 30}
    for key, value in older.items():
        net, _, rest = key.partition(".")
        nested.setdefault(net, {})[rest] = torch.zeros(1).expand(value.shape)  # of one number on disk
    torch.save(nested, tmp_path / "checkpoint030.pth")
    arguments = [str(tmp_path / "checkpoint030.pth"), str(tmp_path / "out.safetensors"), "--from", "unsup3d"]
    done = CliRunner().invoke(convert, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and f"{len(first)} tensors" in done.output, done.output
    model = build_model("latentface_autoencoder", tmp_path / "out.safetensors")
    assert float(model.networks.depth.decoder[29].weight.abs().sum()) == 0


def test_denoisers_of_another_width_are_converted() -> None:
    from ffplug.apis.converters import find_converter

    shapes = json.loads((Path(__file__).parent / "golden" / "keys64.json").read_text())
    state = {
        f"{net}.{key}": torch.zeros(1).expand(widened(key, shape, 8) if net in ("netEA", "netED") else shape)
        for net, keys in shapes.items()
        for key, shape in keys.items()
    }
    converted = find_converter("latentface")(state)
    assert converted["denoisers.1.first.weight"].shape == (1024, 512)
