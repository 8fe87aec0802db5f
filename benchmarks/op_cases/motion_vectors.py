"""Motion vectors of decoded frames on cells."""

from __future__ import annotations

import torch
from harness import BenchCase

from ffplug.ops import motion_vector_field, motion_vector_flow, motion_vector_rasterize


def block_by_block(table: torch.Tensor, frames: int, height: int, width: int) -> torch.Tensor:
    """The usual way: a loop over the blocks, each written as a rectangle of pixels; the flow alone."""
    flow = torch.zeros(frames, 2, 2, height, width, device=table.device)
    for frame, source, w, h, x, y, motion_x, motion_y, scale in table.tolist():
        left, top = max(x - w // 2, 0), max(y - h // 2, 0)
        block = flow[frame, int(source > 0), :, top : y + h // 2, left : x + w // 2]
        block[0] = motion_x / scale
        block[1] = motion_y / scale
    return flow


def _case(label: str, frames: int, height: int, width: int) -> BenchCase:
    def make(maker):
        y, x = torch.meshgrid(torch.arange(8, height, 16), torch.arange(8, width, 16), indexing="ij")
        centres = torch.stack((x, y), dim=-1).view(1, -1, 2).expand(frames, -1, 2).reshape(-1, 2)
        rows, per_frame = len(centres), len(centres) // frames
        frame = torch.arange(frames).repeat_interleave(per_frame)[:, None]
        source, size = torch.full((rows, 1), -1), torch.full((rows, 2), 16)
        motion = maker.integers(rows, 2, low=-200, high=200).cpu()
        table = torch.cat((frame, source, size, centres, motion, torch.full((rows, 1), 4)), dim=1)
        return table.to(maker.device), frames, height, width

    cells = frames * 2 * -(-height // 8) * -(-width // 8)
    return BenchCase(
        op=motion_vector_rasterize,
        label=f"{frames}×{label}",
        make=make,
        bytes=cells * 13 + frames * (height // 16) * (width // 16) * 72,
        flops=cells * 2,
        rival=("a loop over blocks", block_by_block),
    )


CASES = [_case("436x1024", 1, 436, 1024), _case("1080p", 8, 1080, 1920), _case("4K", 8, 2160, 3840)]


def _search(label: str, height: int, width: int, references: int) -> BenchCase:
    def make(maker):
        pictures = [maker.integers(height, width, high=256).to(torch.uint8) for _ in range(references + 2)]
        y, x = torch.meshgrid(torch.arange(8, height, 16), torch.arange(8, width, 16), indexing="ij")
        records = torch.zeros(x.numel(), 10, dtype=torch.int32)
        records[:, 0], records[:, 1], records[:, 8] = -1, 16 | 16 << 8, 4
        records[:, 2], records[:, 3] = x.flatten() << 16, y.flatten()
        records[:, 6:8] = maker.integers(len(records), 2, low=-40, high=40)
        steps = [*range(-1, -1 - references, -1), 1]
        spans = [float(abs(step)) for step in steps]
        return records, height, width, steps, spans, pictures[0], pictures[1:], 0, 0, 0.02

    return BenchCase(
        op=motion_vector_field,
        label=f"{references}×{label}",
        make=make,
        bytes=height * width * (references + 1),
        flops=height * width * references * 12,
    )


def _flow(label: str, height: int, width: int) -> BenchCase:
    grid = -(-height // 8), -(-width // 8)

    def make(maker):
        valid = torch.ones(2, *grid, dtype=torch.bool, device=maker.device)
        return maker(2, 2, *grid, scale=12), valid, valid.float(), 64 * valid.float(), True

    cells = grid[0] * grid[1]
    return BenchCase(op=motion_vector_flow, label=label, make=make, bytes=cells * 54, flops=cells * 80)


CASES += [_search("436x1024", 436, 1024, 4), _search("1080p", 1080, 1920, 4), _flow("436x1024", 436, 1024)]
