"""The plugin's recipes."""

import pytest
import torch

import ffplug
from ffplug.apis.weights import known_weights
from ffplug.config import load_config, validate_config

STAGES = {
    # iterations, batch, accumulation, weight decay, gamma, crop, tile, iterations in tests
    "things": (120_000, 6, 1, 1e-4, 0.8, (432, 960), (432, 960), 32),
    "sintel": (240_000, 3, 2, 1e-5, 0.85, (432, 960), (432, 960), 32),
    "kitti": (50_000, 6, 1, 1e-5, 0.85, (400, 720), (384, 720), 24),
}
VARIANTS = {"tiny": "weighted", "b": "weighted", "l": "weighted", "h": "add"}
RECIPES = [f"samflow_{variant}_{stage}" for variant in VARIANTS for stage in STAGES]


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_hold_the_published_settings(name):
    variant, stage = name.removeprefix("samflow_").split("_")
    iterations, batch, accumulated, decay, gamma, crop, tile, test_iterations = STAGES[stage]
    config = load_config(name)
    validate_config(config)
    dataset = config.train_dataloader.dataset
    parts = [dataset] if "pipeline" in dataset else dataset.datasets
    assert {tuple(part.pipeline[1].crop_size) for part in parts} == {crop}
    assert (config.train_cfg.max_iters, config.train_dataloader.batch_size) == (iterations, batch)
    assert config.optim_wrapper.get("accumulative_counts", 1) == accumulated
    assert (config.param_scheduler.eta_max, config.param_scheduler.total_steps) == (1.25e-4, iterations + 100)
    assert config.optim_wrapper.optimizer.weight_decay == decay
    model = config.model
    assert (model.losses[0].gamma, tuple(model.tile["size"]), model.test_iterations) == (gamma, tile, test_iterations)
    assert tuple(model.data_preprocessor.noise) == (0, 5)
    assert model.context_encoder.fusion == VARIANTS[variant]
    assert known_weights()[model.context_encoder.sam.checkpoint].plugin == "ffplug-samflow"
    if stage == "sintel":
        assert list(dataset.times) == [200, 200, 400, 10, 1]


@pytest.mark.parametrize(("name", "total"), [("samflow_tiny", 28.4), ("samflow_b", 112.0), ("samflow_h", 659.4)])
def test_the_published_number_of_parameters(name, total):
    if name != "samflow_tiny":
        pytest.importorskip("mmpretrain", reason="SAM's ViT needs ffplug-samflow[vit]")
    with torch.device("meta"):
        model = ffplug.build_model(name)
    flowformer = 2 * 2 * 1024 + 2 * 319 * 128  # norms of Twins' last stage, GMA's position tables
    adaption = 3 * (256 * 128 + 128) + (128 * 256 + 256) + 2 * 256  # the last attention of SAM's decoder, and its norm
    classifier = 320 * 1000 + 1000 + 2 * 320 if name == "samflow_tiny" else 0
    counts = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    assert round((sum(counts) + flowformer + adaption) / 1e6, 1) == 22.4
    frozen = sum(parameter.numel() for parameter in model.parameters()) - sum(counts) + classifier
    assert round((sum(counts) + flowformer + adaption + frozen) / 1e6, 1) == total
