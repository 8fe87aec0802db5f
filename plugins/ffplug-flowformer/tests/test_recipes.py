"""The plugin's recipes, and training from ImageNet weights."""

from __future__ import annotations

import pytest
import torch
from ffplug_flowformer.models import TwinsFeatures
from safetensors.torch import save_file
from timm.models.twins import Twins

import ffplug
from ffplug.config import load_config, validate_config
from ffplug.errors import CheckpointError

PUBLISHED = {
    # steps, batch, peak rate, weight decay, gamma, crop, log2 scales, iterations in tests
    "flowformer_chairs": (120_000, 8, 2.5e-4, 1e-4, 0.8, (368, 496), (-0.1, 1.0), 32),
    "flowformer_things": (120_000, 6, 1.25e-4, 1e-4, 0.8, (432, 960), (-0.4, 0.8), 32),
    "flowformer_things_kitti": (120_000, 6, 1.25e-4, 1e-4, 0.8, (400, 720), (-0.4, 0.8), 24),
    "flowformer_sintel": (120_000, 6, 1.25e-4, 1e-5, 0.85, (432, 960), (-0.2, 0.6), 32),
    "flowformer_kitti": (50_000, 6, 1.25e-4, 1e-5, 0.85, (432, 960), (-0.2, 0.4), 24),
}


SIZES = {"embed_dims": (16, 32), "heads": (2, 4)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes_hold_the_published_settings(name):
    steps, batch, rate, decay, gamma, crop, scales, iterations = PUBLISHED[name]
    config = load_config(name)
    validate_config(config)
    dataset = config.train_dataloader.dataset
    augment = (dataset if "pipeline" in dataset else dataset.datasets[0]).pipeline[1]
    assert (config.train_cfg.max_iters, config.train_dataloader.batch_size) == (steps, batch)
    assert (config.param_scheduler.eta_max, config.param_scheduler.total_steps) == (rate, steps + 100)
    assert config.optim_wrapper.optimizer.weight_decay == decay
    assert config.model.losses[0].gamma == gamma
    assert (tuple(augment.crop_size), (augment.min_scale, augment.max_scale)) == (crop, scales)
    assert config.model.test_iterations == iterations
    assert tuple(config.model.data_preprocessor.noise) == (0, 5)


def test_the_published_number_of_parameters():
    network = ffplug.build_model("flowformer")
    unread = 2 * 2 * 1024 + 2 * 319 * 128  # norms of Twins' last stage, GMA's position tables
    assert sum(parameter.numel() for parameter in network.parameters()) + unread == 16_168_113


class TestImageNetWeights:
    @pytest.fixture
    def whole(self) -> Twins:
        """A Twins of four stages, of which the encoder is the first two."""
        torch.manual_seed(0)
        return Twins(
            embed_dims=(16, 32, 32, 32),
            num_heads=(2, 4, 4, 4),
            depths=(2, 2, 1, 1),
            wss=(7, 7, 7, 7),
            num_classes=5,
        ).eval()

    def test_features_are_those_of_the_second_stage(self, whole, tmp_path):
        save_file(whole.state_dict(), tmp_path / "twins.safetensors")
        encoder = TwinsFeatures(**SIZES, weights=str(tmp_path / "twins.safetensors")).eval()
        encoder.init_weights()
        picture = torch.rand(1, 3, 64, 96) * 255
        with torch.no_grad():
            expected = whole.forward_intermediates(picture / 127.5 - 1, indices=[1], intermediates_only=True)[0]
            torch.testing.assert_close(encoder(picture), expected, atol=1e-5, rtol=1e-5)

    def test_weights_of_another_size_are_refused(self, whole, tmp_path):
        save_file(whole.state_dict(), tmp_path / "twins.safetensors")
        encoder = TwinsFeatures(embed_dims=(16, 64), heads=(2, 4), weights=str(tmp_path / "twins.safetensors"))
        with pytest.raises(CheckpointError, match=r"embed_dims=\(16, 64\)"):
            encoder.init_weights()

    def test_a_missing_file_is_named(self, tmp_path):
        encoder = TwinsFeatures(**SIZES, weights=str(tmp_path / "none.safetensors"))
        with pytest.raises(CheckpointError, match=r"none\.safetensors"):
            encoder.init_weights()


def test_every_part_of_the_sintel_mixture_is_cropped_alike():
    parts = load_config("flowformer_sintel").train_dataloader.dataset.datasets
    assert {tuple(part.pipeline[1].crop_size) for part in parts} == {(432, 960)}
