"""Motion vectors on cells: conformance, two H.264 clips, clipping, overlaps, bad tables."""

import numpy as np
import pytest
import torch
from golden_cases import GOLDEN

from ffplug.ops import (
    motion_vector_field,
    motion_vector_flow,
    motion_vector_rasterize,
    motion_vector_table,
    reference_distances,
)
from ffplug.testing.ops import OpConformance, available_backends, on_backend

BACKENDS = ["torch", *available_backends(motion_vector_rasterize)]


def random_table(make, rows, frames, side):
    """Blocks of 8 and 16 pixels, some across the border, some over others."""
    columns = [
        make.integers(rows, high=frames),
        make.integers(rows, high=2) * 2 - 1,
        make.integers(rows, low=1, high=3) * 8,
        make.integers(rows, low=1, high=3) * 8,
        make.integers(rows, low=-12, high=side + 12),
        make.integers(rows, low=-12, high=side + 12),
        make.integers(rows, low=-200, high=200),
        make.integers(rows, low=-200, high=200),
        make.integers(rows, low=1, high=9),
    ]
    return torch.stack(columns, dim=1)


class TestMotionVectorRasterize(OpConformance):
    op = motion_vector_rasterize
    cases = {
        "random": lambda make: (random_table(make, 40, 3, 40), 3, 37, 41, make.integers(3, 2, low=-3, high=4)),
        "crowded": lambda make: (random_table(make, 600, 2, 30), 2, 30, 24),
        "small_cells": lambda make: (random_table(make, 30, 1, 20), 1, 20, 20, None, 4),
        "no_vectors": lambda make: (random_table(make, 0, 2, 20), 2, 20, 20),
        "no_frames": lambda make: (random_table(make, 0, 1, 20), 0, 20, 20),
    }


def row(**changes):
    values = dict(frame=0, source=-1, w=16, h=16, dst_x=8, dst_y=8, motion_x=6, motion_y=-3, motion_scale=4)
    return list((values | changes).values())


@pytest.mark.parametrize("clip", ["p_only", "b_frames"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_clips(clip, backend):
    vectors, dense = (np.load(GOLDEN / "mvflow" / f"{clip}_{part}.npz") for part in ("mvs", "dense"))
    table, distances = motion_vector_table(vectors["table"]), reference_distances(vectors["types"].tolist())
    with on_backend(backend) as device:
        found = motion_vector_rasterize(table.to(device), 12, 200, 264, distances.to(device))
    flow, valid, distance, size = (value.cpu().numpy() for value in found)
    assert flow.dtype == np.float32
    assert np.array_equal(flow, dense["flow"])
    assert np.array_equal(valid, dense["valid"])
    assert np.array_equal(distance, dense["dist"])
    assert set(np.unique(size)) == {0, 8, 16} and np.array_equal(size.min(axis=2) > 0, valid)


def test_arrays_of_frames_make_the_same_table():
    whole = np.load(GOLDEN / "mvflow" / "b_frames_mvs.npz")["table"]
    names = [name for name in whole.dtype.names if name != "frame"]
    frames = [whole[whole["frame"] == index][names] for index in range(12)]
    frames[0] = None
    table = motion_vector_table(frames)
    assert table.dtype == torch.int32
    order = np.argsort(whole["frame"], kind="stable")
    assert torch.equal(table, motion_vector_table(whole)[order])
    assert motion_vector_table([None, None]).shape == (0, 9)
    with pytest.raises(ValueError, match="frame 1 lack w, motion_scale"):
        motion_vector_table([None, frames[1][[n for n in names if n not in ("w", "motion_scale")]]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_blocks_are_cut_at_the_frame_and_later_rows_win(backend):
    table = torch.tensor(
        [
            row(),
            row(w=8, h=8, dst_x=12, dst_y=4, motion_x=9),  # over the upper right of the first
            row(source=1, dst_x=24, dst_y=24, motion_scale=3),  # beyond 20×20 pixels but for one cell
            row(frame=1, dst_x=200),
        ]
    )
    with on_backend(backend) as device:
        found = motion_vector_rasterize(table.to(device), 2, 20, 20, torch.tensor([[-2, 5], [-2, 5]], device=device))
    flow, valid, distance, size = (value.cpu() for value in found)
    assert flow[0, 0, 0].tolist() == [[1.5, 2.25, 0], [1.5, 1.5, 0], [0, 0, 0]]
    assert flow[0, 0, 1].tolist() == [[-0.75, -0.75, 0], [-0.75, -0.75, 0], [0, 0, 0]]
    assert size[0, 0, 0].tolist() == [[16, 8, 0], [16, 16, 0], [0, 0, 0]]
    assert valid[0, 1].nonzero().tolist() == [[2, 2]] and flow[0, 1, :, 2, 2].tolist() == [2, -1]
    assert not valid[1].any()
    assert distance.tolist() == [[-2, 5], [-2, 0]]  # the vector of frame 1 lies outside, but its list is there


@pytest.mark.parametrize(
    "changes", [{"frame": 2}, {"frame": -1}, {"source": 0}, {"w": -8}, {"h": 0}, {"w": 12}, {"motion_scale": 0}]
)
def test_bad_rows(changes):
    with pytest.raises(ValueError, match=rf"row 1 of the table .*{next(iter(changes))} {next(iter(changes.values()))}"):
        motion_vector_rasterize(torch.tensor([row(), row(**changes)]), 2, 20, 20)


@pytest.mark.parametrize("backend", BACKENDS)
def test_bad_rows_are_dropped_where_values_are_not_checked(backend):
    bad = [row(frame=2), row(source=0), row(w=-8), row(h=12), row(motion_scale=0)]
    with on_backend(backend) as device:
        table, distances = torch.tensor([row(), *bad], device=device), torch.tensor([[-1, 1]] * 2, device=device)
        found = motion_vector_rasterize._torch_op(table, 2, 20, 20, distances, 8)
        wanted = motion_vector_rasterize._torch_op(table[:1], 2, 20, 20, distances, 8)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_bad_arguments():
    table = torch.tensor([row()])
    with pytest.raises(ValueError, match="expected M×9 integers"):
        motion_vector_rasterize(table[:, :8], 1, 20, 20)
    with pytest.raises(ValueError, match="expected 1×2 integers"):
        motion_vector_rasterize(table, 1, 20, 20, torch.zeros(2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="cell 0"):
        motion_vector_rasterize(table, 1, 20, 20, cell=0)
    with pytest.raises(ValueError, match="types X"):
        reference_distances("IPX")


def test_distances():
    assert reference_distances("IBBPBP").tolist() == [[0, 0], [-1, 2], [-2, 1], [-3, 0], [-1, 1], [-2, 0]]


def structures(table):
    """Rows of a table (of one frame) as FFmpeg's structures, M×10 int32."""
    vectors = np.zeros(len(table), dtype=np.dtype(AV_MOTION_VECTOR, align=True))
    for column, name in enumerate(("source", "w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")):
        vectors[name] = table[:, column + 1]
    return torch.from_numpy(vectors.view(np.int32).reshape(-1, 10))


AV_MOTION_VECTOR = [
    ("source", "i4"), ("w", "u1"), ("h", "u1"), ("src_x", "i2"), ("src_y", "i2"), ("dst_x", "i2"), ("dst_y", "i2"),
    ("flags", "u8"), ("motion_x", "i4"), ("motion_y", "i4"), ("motion_scale", "u2"),
]  # fmt: skip


def field_case(rows, height, width, steps=(-1, 1), penalty=0.0, cell=8, crop=(0, 0)):
    def make_case(make):
        records = structures(random_table(make, rows, 1, max(height, width)))
        count = len(steps) + 1 if len(steps) > 2 else 0
        pictures = [make.integers(height, width, high=256).to(torch.uint8) for _ in range(count)]
        spans = [abs(step) / 2 for step in steps]
        return records, height, width, steps, spans, (pictures or [None])[0], pictures[1:], *crop, penalty, cell

    return make_case


class TestMotionVectorField(OpConformance):
    op = motion_vector_field
    cases = {
        "plain": field_case(40, 37, 41),
        "several": field_case(120, 80, 96, (-1, -2, -3, -4, 1, 3), 0.5),
        "future": field_case(60, 30, 41, (-2, 1, 2)),
        "small_cells": field_case(60, 13, 18, (-1, -2, 1), 0.1, 4),
        "cropped": field_case(60, 40, 40, crop=(16, 8)),
        "no_vectors": field_case(0, 20, 20),
    }


@pytest.mark.parametrize("clip", ["p_only", "b_frames"])
@pytest.mark.parametrize("backend", available_backends(motion_vector_field))
def test_fields_of_clips(clip, backend):
    vectors, dense = (np.load(GOLDEN / "mvflow" / f"{clip}_{part}.npz") for part in ("mvs", "dense"))
    table, distances = motion_vector_table(vectors["table"]), reference_distances(vectors["types"].tolist())
    for index in range(12):
        steps = [int(step) or side for step, side in zip(distances[index], (-1, 1), strict=True)]
        with on_backend(backend):
            records = structures(table[table[:, 0] == index].numpy())
            flow, valid, distance, span, area = motion_vector_field(records, 200, 264, steps, [1.0, 2.0])
        assert np.array_equal(flow, dense["flow"][index]) and np.array_equal(valid, dense["valid"][index])
        assert torch.equal(distance, valid * torch.tensor(steps).view(2, 1, 1))
        assert torch.equal(span, valid * torch.tensor([1.0, 2.0]).view(2, 1, 1))
        assert set(area.unique().tolist()) <= {0, 64, 128, 256} and torch.equal(area > 0, valid)


@pytest.mark.parametrize("backend", [*available_backends(motion_vector_field), "torch"])
def test_references_are_known_by_their_looks(backend):
    scene = torch.randint(0, 256, (60, 80), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    image, other = scene[4:44, 6:54], torch.zeros(40, 48, dtype=torch.uint8)
    seen = scene[5:45, 4:52]  # what is at (x, y) here is at (x + 2, y - 1) there
    rows = [row(w=8, h=8, dst_x=x, dst_y=y, motion_x=8, motion_y=-4) for y in range(12, 40, 8) for x in range(4, 48, 8)]
    records = structures(np.array(rows))

    def found(*candidates, penalty=0.0):
        steps = [*range(-1, -1 - len(candidates), -1), 1]
        spans = [1.0] * len(steps)
        distance = motion_vector_field(
            records, 40, 48, steps, spans, image, [*candidates, other], penalty=penalty, cell=8
        )[2]
        assert not distance[0, 0].any() and not distance[1].any()
        return set(distance[0, 1:].unique().tolist())

    with on_backend(backend):
        assert found(other, seen) == {-2} and found(seen, other) == {-1} and found(seen, seen) == {-1}
        assert found(other, other, seen) == {-3} and found(other, seen, penalty=255.0) == {-1}


def flow_case(rows, columns, thrown, scale=12):
    def make_case(make):
        valid = make.integers(2, rows, columns, high=4) > 0
        span = make.integers(2, rows, columns, low=1, high=4) * valid
        area = make.integers(2, rows, columns, low=1, high=4) * 64 * valid
        return make(2, 2, rows, columns, scale=scale) * valid[:, None], valid, span, area, thrown

    return make_case


class TestMotionVectorFlow(OpConformance):
    op = motion_vector_flow
    cases = {
        "back": flow_case(5, 9, False),
        "thrown": flow_case(11, 13, True),
        "far": flow_case(6, 7, True, 300),
        "empty": flow_case(0, 4, True),
    }


def test_bad_fields():
    records, image = torch.zeros(1, 10, dtype=torch.int32), torch.zeros(16, 16, dtype=torch.uint8)
    with pytest.raises(ValueError, match="expected M×10 int32"):
        motion_vector_field(records.float(), 16, 16)
    with pytest.raises(ValueError, match="of the past and then the future"):
        motion_vector_field(records, 16, 16, [1, -1], [1.0, 1.0])
    with pytest.raises(ValueError, match="multiples of the cell"):
        motion_vector_field(records, 16, 16, left=4)
    for references in ([], [image, image, image[:8]], [image.float()] * 3):
        with pytest.raises(ValueError, match="told apart by looks"):
            motion_vector_field(records, 16, 16, [-1, -2, 1], [1.0, 1.0, 1.0], image, references)
    with pytest.raises(ValueError, match="expected 2×2×h×w"):
        motion_vector_flow(torch.zeros(2, 2, 3, 3), *[torch.zeros(2, 3, 3)] * 3)
