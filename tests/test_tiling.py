"""Tiled inference against the published corners, weights and blend, and against what must hold exactly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ffplug.errors import ConfigError
from ffplug.models.tiling import TiledFlowInference, blending_weights, tile_corners, tile_starts

GOLDEN = Path(__file__).parent / "golden" / "tiling"


class TinyFlow(nn.Module):
    """A real, small, shift-invariant flow network of stride 8; its receptive field is a few pixels."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 2, 3, padding=1))
        self.calls: list[torch.Size] = []

    @torch.no_grad()
    def predict_flow(
        self, image1: Tensor, image2: Tensor, iterations: int | None = None, flow_init: Tensor | None = None
    ) -> dict[str, Tensor]:
        self.calls.append(image1.shape)
        flow = self.layers(torch.cat([image1, image2], dim=1) / 255)
        if flow_init is not None:
            flow = flow + 8 * nn.functional.interpolate(flow_init, size=flow.shape[-2:])
        return {"flow": flow, "flow_low": nn.functional.avg_pool2d(flow, 8, ceil_mode=True) / 8}


def frames(height: int, width: int, batch: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return tuple(255 * torch.rand(batch, 3, height, width, generator=generator) for _ in range(2))


@pytest.mark.parametrize(
    "case",
    [
        "436x1024|432x960|20",
        "432x1242|432x960|20",
        "376x1242|376x720|20",
        "384x1242|384x720|20",
        "20x33|16x24|4",
        "1080x1920|432x960|20",
    ],
)
def test_corners_are_the_published_ones_each_once(case: str) -> None:
    published = json.loads((GOLDEN / "case1.json").read_text())[case]
    size, tile, overlap = case.split("|")
    size, tile = (tuple(int(n) for n in text.split("x")) for text in (size, tile))
    corners = tile_corners(size, tile, int(overlap))
    assert len(set(corners)) == len(corners)
    assert corners == sorted({(y, x) for y, x in published})


@pytest.mark.parametrize("size", range(16, 90))
@pytest.mark.parametrize("overlap", [0, 4, 15])
def test_tiles_cover_every_pixel_and_stay_inside(size: int, overlap: int) -> None:
    starts = tile_starts(size, 16, overlap)
    covered = np.zeros(size, int)
    for start in starts:
        assert 0 <= start <= size - 16
        covered[start : start + 16] += 1
    assert covered.min() >= 1
    torch.testing.assert_close(blending_weights(size, 16, starts, 0.05).sum(dim=0), torch.ones(size))


def test_blend_equals_the_reference() -> None:
    golden = np.load(GOLDEN / "case1.npz")
    tiles = iter(torch.from_numpy(golden["tile_flows"]).split(1))

    def predict(image1: Tensor, image2: Tensor, **_: object) -> dict[str, Tensor]:
        return {"flow": next(tiles)}

    tiled = TiledFlowInference(size=(16, 24), overlap=4)
    flow = tiled(predict, *frames(20, 33))["flow"].numpy()
    error = np.abs(flow - golden["tile_blend"]) / (np.abs(golden["tile_blend"]) + 1e-3)
    assert error[..., 3:-3, 3:-3].max() < 1e-4
    assert error.max() < 2e-2


def test_weights_are_the_published_gaussian() -> None:
    golden = np.load(GOLDEN / "case1.npz")["tile_weight0"][0, 0]
    rows = blending_weights(20, 16, tile_starts(20, 16, 4), 0.05)
    columns = blending_weights(33, 24, tile_starts(33, 24, 4), 0.05)
    # In the middle of tile 0, where all four overlap, shares relate as the plain weights of the shifted tiles do.
    y, x = 9, 14
    share = (rows[0, y] * columns[0, x]).item()
    plain = {(dy, dx): golden[y - dy, x - dx] for dy in (0, 4) for dx in (0, 9)}
    assert share == pytest.approx(plain[0, 0] / sum(plain.values()), rel=1e-4)


@pytest.mark.parametrize("size", [(20, 33), (16, 24), (1, 1), (7, 40), (40, 7), (61, 53)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_constant_flow_stays_constant_up_to_the_corners(size: tuple[int, int], dtype: torch.dtype) -> None:
    def predict(image1: Tensor, image2: Tensor, **_: object) -> dict[str, Tensor]:
        assert image1.shape[-2:] == (16, 24)
        return {"flow": image1.new_tensor([3.25, -7.5]).view(1, 2, 1, 1).expand(len(image1), 2, 16, 24)}

    image1, image2 = (image.to(dtype) for image in frames(*size, batch=2))
    for batch_size in (1, 3):
        result = TiledFlowInference(size=(16, 24), overlap=4, batch_size=batch_size)(predict, image1, image2)
        expected = torch.tensor([3.25, -7.5]).view(1, 2, 1, 1).expand(2, 2, *size)
        assert result["flow"].dtype == torch.float32
        torch.testing.assert_close(result["flow"], expected, rtol=1e-6, atol=1e-6)
        cells = expected[..., : -(-size[0] // 8), : -(-size[1] // 8)] / 8
        torch.testing.assert_close(result["flow_low"], cells, rtol=1e-6, atol=1e-6)


def test_one_tile_is_the_direct_call() -> None:
    model, images = TinyFlow(), frames(48, 64)
    direct = model.predict_flow(*images)["flow"]
    tiled = TiledFlowInference(size=(48, 64))(model.predict_flow, *images)["flow"]
    assert torch.equal(tiled, direct)
    assert model.calls == [(1, 3, 48, 64)] * 2


def test_frame_smaller_than_a_tile_is_padded_at_the_bottom_and_right() -> None:
    model, images = TinyFlow(), frames(40, 50)
    for padding, mode in (("zeros", "constant"), ("replicate", "replicate")):
        padded = [nn.functional.pad(image, (0, 14, 0, 8), mode=mode) for image in images]
        expected = model.predict_flow(*padded)["flow"][..., :40, :50]
        assert torch.equal(TiledFlowInference((48, 64), padding=padding)(model.predict_flow, *images)["flow"], expected)


def test_batched_tiles_equal_single_tiles_and_none_is_run_twice() -> None:
    model, images = TinyFlow(), frames(70, 100, batch=2)
    single = TiledFlowInference((32, 40), overlap=8)(model.predict_flow, *images)["flow"]
    count = len(model.calls)
    assert count == len(tile_corners((70, 100), (32, 40), 8))
    model.calls.clear()
    batched = TiledFlowInference((32, 40), overlap=8, batch_size=5)(model.predict_flow, *images)["flow"]
    assert sum(shape[0] for shape in model.calls) == 2 * count
    assert max(shape[0] for shape in model.calls) == 10
    torch.testing.assert_close(batched, single, rtol=1e-5, atol=1e-5)


def test_seams_do_not_show() -> None:
    model, images = TinyFlow(), frames(90, 120)
    whole = model.predict_flow(*images)["flow"]
    tiled = TiledFlowInference((48, 64), overlap=20)(model.predict_flow, *images)["flow"]
    # Only a tile's own rim, 2 pixels of zero padding, differs, and the Gaussian gives it next to no weight.
    torch.testing.assert_close(tiled, whole, rtol=1e-3, atol=1e-3)


def test_flow_init_reaches_each_tile() -> None:
    model, images = TinyFlow(), frames(64, 96)
    init = torch.randn(1, 2, 1, 1).expand(1, 2, 8, 12)
    tiled = TiledFlowInference((32, 40), overlap=8)
    shifted = tiled(model.predict_flow, *images, flow_init=init)["flow"]
    plain = tiled(model.predict_flow, *images)["flow"]
    torch.testing.assert_close(shifted - plain, (8 * init[..., :1, :1]).expand_as(plain), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(size=(0, 10)),
        dict(size=(16, 16), overlap=16),
        dict(sigma=0.0),
        dict(batch_size=0),
        dict(padding="reflect"),
        dict(size=(4, 4, 4)),
    ],
)
def test_values_out_of_range_are_refused(arguments: dict) -> None:
    with pytest.raises(ConfigError, match="tile"):
        TiledFlowInference(**arguments)
