"""The streaming class against the records that the renderer makes of the same scene, and what it refuses."""

import dataclasses
import functools

import pytest
import torch
from ffplug_stss.channels import unpack
from ffplug_stss.datasets.records import decode
from ffplug_stss.rendering import Renderer
from ffplug_stss.scenes import SceneOptions, draw_scene
from ffplug_stss.sequences import Sequence
from ffplug_stss.supersampler import GBuffer, SpaceTimeSupersampler

import ffplug
from ffplug.errors import ConfigError, DataError

SIZE = (40, 72)


class Recorder(torch.nn.Module):
    """Keeps what the network would be given, and gives the bilinear frame."""

    def forward(self, inputs, mode):
        self.inputs = inputs
        return torch.nn.functional.interpolate(inputs[:, :3], scale_factor=2, mode="bilinear")


@pytest.fixture(scope="module")
def sequence():
    scene = draw_scene(2, 0, SceneOptions(style="field", speed=1.5, samples=1, objects=(5, 5), poles=(1, 1)))
    return Sequence(Renderer(scene, SIZE))


@functools.cache
def shaded_of(sequence, time):
    return sequence.shaded(time)[0]


@functools.cache
def buffers_of(sequence, time, label=True):
    found = sequence.buffers(time)
    return GBuffer(
        motion=sequence.renderer.motion(found, time, time - 1)[0],
        **{key: getattr(found, key)[0] for key in ("normal", "depth", "roughness", "metallic", "base_color")},
        label=found.label[0] if label else None,
    )


def play(sequence, times, model=None, **options):
    stream = SpaceTimeSupersampler(model or Recorder(), **options)
    frames = []
    for time in times:
        if time % 2:
            frames.append(stream.extrapolate(buffers_of(sequence, time)))
        else:
            frames.append(stream.push(shaded_of(sequence, time), buffers_of(sequence, time)))
    return stream, frames


@pytest.mark.parametrize("last", [10, 11])
def test_it_builds_what_the_records_hold(sequence, last):
    stream, _ = play(sequence, range(6, last + 1))
    found = unpack(stream.model.inputs)
    expected, _ = decode(sequence.record(last))
    agree = found.mask[0] == expected.mask
    assert float(agree.float().mean()) > 0.97
    torch.testing.assert_close(found.feature[0], expected.feature, rtol=0, atol=1e-2)
    error = (found.x[0] - expected.x).abs()
    assert float(error.mean()) < 0.01
    both = (found.history[0, :, 3] * expected.history[:, 3]) > 0
    assert float(both.float().mean()) > 0.6
    # Composed vectors are interpolated, so they differ a little from the exact ones over several frames.
    assert float((found.history[0, :, :3] - expected.history[:, :3]).abs().mean(dim=1)[both].mean()) < 0.02


def test_a_history_of_more_than_three_keeps_the_last(sequence):
    long, _ = play(sequence, range(2, 11))
    short, _ = play(sequence, range(6, 11))
    assert torch.equal(long.model.inputs, short.model.inputs)


def test_after_a_cut_nothing_of_before_is_left(sequence):
    stream, _ = play(sequence, range(4, 8))
    stream.push(shaded_of(sequence, 30), buffers_of(sequence, 30), cut=True)
    after = stream.model.inputs
    fresh = SpaceTimeSupersampler(Recorder())
    fresh.push(shaded_of(sequence, 30), buffers_of(sequence, 30))
    assert torch.equal(after, fresh.model.inputs)
    history = unpack(after).history[0]
    assert history[:2, 3].max() == 0 and history[2, 3].min() == 1
    for earlier in history[:2, :3]:
        torch.testing.assert_close(earlier, shaded_of(sequence, 30))
    stream.reset()
    with pytest.raises(DataError, match="no shaded frame to extrapolate from"):
        stream.extrapolate(buffers_of(sequence, 31))


@pytest.fixture(scope="module")
def elsewhere():
    """Another place, where all is fast."""
    scene = draw_scene(9, 4, SceneOptions(style="hall", speed=12, samples=1, objects=(4, 4), poles=(0, 0)))
    return Sequence(Renderer(scene, SIZE))


def test_cuts_are_found_and_fast_motion_is_none(sequence, elsewhere):
    stream, _ = play(sequence, range(6, 9))
    assert not stream.found_cut
    frame = shaded_of(elsewhere, 20), buffers_of(elsewhere, 20)
    stream.push(*frame)
    assert stream.found_cut
    fresh = SpaceTimeSupersampler(Recorder())
    fresh.push(*frame)
    assert torch.equal(stream.model.inputs, fresh.model.inputs)
    stream.extrapolate(buffers_of(elsewhere, 21))
    assert float(buffers_of(elsewhere, 21).motion.abs().amax()) > 5 and not stream.found_cut
    trusting, _ = play(sequence, range(6, 9), cuts=None)
    trusting.push(*frame)
    assert not trusting.found_cut and not torch.equal(trusting.model.inputs, fresh.model.inputs)


def test_a_cut_before_a_frame_that_was_not_shaded(sequence, elsewhere):
    stream, _ = play(sequence, range(6, 9))
    for time, found in ((21, True), (22, False)):
        stream.extrapolate(buffers_of(elsewhere, time))
        inputs = unpack(stream.model.inputs)
        assert stream.found_cut == found
        assert inputs.mask.max() == 0 and inputs.history[:, :, 3].max() == 0
    frame = shaded_of(elsewhere, 23), buffers_of(elsewhere, 23)
    stream.push(*frame)
    fresh = SpaceTimeSupersampler(Recorder())
    fresh.push(*frame)
    assert torch.equal(stream.model.inputs, fresh.model.inputs)


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (lambda motion: motion * torch.tensor([1.0, -1.0])[:, None, None], "motion: with y negated the vectors fit"),
        (lambda motion: -motion, "motion: with both negated the vectors fit"),
        (lambda motion: motion.flip(0), "motion: with x and y swapped the vectors fit"),
    ],
)
def test_turned_vectors_are_told(elsewhere, turn, message):
    stream, _ = play(elsewhere, (20,))
    buffers = buffers_of(elsewhere, 21)
    with pytest.raises(DataError, match=message):
        stream.extrapolate(dataclasses.replace(buffers, motion=turn(buffers.motion)))
    stream.extrapolate(buffers)


@pytest.mark.parametrize("rule", ["exact", "published"])
def test_motion_over_many_frames(sequence, rule):
    """More vectors than are joined at once; the picture moves by one pixel a frame."""
    still = dataclasses.replace(buffers_of(sequence, 6), label=torch.ones(1, *SIZE))
    moving = dataclasses.replace(still, motion=torch.tensor([-1.0, 0.0])[:, None, None].expand(2, *SIZE))
    color = shaded_of(sequence, 6)
    stream = SpaceTimeSupersampler(Recorder(), compose=rule, cuts=None)
    stream.push(color, still)
    for _ in range(11):
        stream.extrapolate(moving)
    inputs = unpack(stream.model.inputs)
    # Below and to the right the published rule meets vectors from outside of the frame, and adds nothing.
    kept = inputs.x[0, 3:, :-1, 11:-1]
    torch.testing.assert_close(kept, color[:, :-1, : kept.shape[-1]])


def test_odd_sizes_and_real_network():
    torch.manual_seed(0)
    scene = draw_scene(0, 0, SceneOptions(objects=(2, 2), poles=(0, 0), samples=1))
    _, frames = play(Sequence(Renderer(scene, (19, 29))), (4, 5), ffplug.build_model("stss"))
    assert [tuple(frame.shape) for frame in frames] == [(3, 38, 58)] * 2
    assert all(bool(frame.isfinite().all()) for frame in frames)


def test_without_labels_depth_tells_surfaces(sequence):
    stream = SpaceTimeSupersampler(Recorder())
    stream.push(shaded_of(sequence, 6), buffers_of(sequence, 6, label=False))
    stream.extrapolate(buffers_of(sequence, 7, label=False))
    expected, _ = decode(sequence.record(7))
    assert float((unpack(stream.model.inputs).mask[0] == expected.mask).float().mean()) > 0.9
    with pytest.raises(DataError, match="label: given with some frames only"):
        stream.extrapolate(buffers_of(sequence, 8))


def spoiled(buffers, **changes):
    changed = {}
    for name, value in changes.items():
        tensor = getattr(buffers, name).clone()
        tensor[0, 3, 5] = value
        changed[name] = tensor
    return dataclasses.replace(buffers, **changed)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda b: spoiled(b, normal=float("nan")), "normal: 1 values are NaN or infinite"),
        (lambda b: spoiled(b, motion=float("inf")), "motion: 1 values are NaN or infinite"),
        (lambda b: spoiled(b, motion=1e7), r"motion: up to 1e\+07 pixels"),
        (lambda b: spoiled(b, depth=3.0), r"depth: values lie in .*\.\.3, expected 0\.\.1"),
        (lambda b: dataclasses.replace(b, depth=b.depth[:, :-1]), "depth: 1×39×72, expected 1×40×72"),
        (lambda b: dataclasses.replace(b, base_color=b.depth), "base_color: 1×40×72, expected 3×40×72"),
        (lambda b: dataclasses.replace(b, roughness=None), "roughness: missing; expected a tensor"),
        (lambda b: dataclasses.replace(b, metallic=b.metallic.numpy()), "metallic: a ndarray; expected a tensor"),
    ],
)
def test_bad_buffers_are_refused_and_leave_no_trace(sequence, spoil, message):
    stream, _ = play(sequence, range(4, 7))
    with pytest.raises(DataError, match=message):
        stream.extrapolate(spoil(buffers_of(sequence, 7)))
    stream.extrapolate(buffers_of(sequence, 7))
    clean, _ = play(sequence, range(4, 8))
    assert torch.equal(stream.model.inputs, clean.model.inputs)
    color = shaded_of(sequence, 8).clone()
    color[1, 2, 3] = float("nan")
    with pytest.raises(DataError, match="color: 1 values are NaN"):
        stream.push(color, buffers_of(sequence, 8))
    for wrong in (255 * shaded_of(sequence, 8), shaded_of(sequence, 8) - 1):
        with pytest.raises(DataError, match=r"color: values lie in .*, expected display-encoded ones, 0\.\.1"):
            stream.push(wrong, buffers_of(sequence, 8))


def test_the_border_is_repeated_where_that_is_asked_for(sequence):
    black, _ = play(sequence, range(6, 8))
    repeated, _ = play(sequence, range(6, 8), outside="repeat")
    inputs, other = unpack(black.model.inputs), unpack(repeated.model.inputs)
    lost = inputs.x[:, 3:6].sum(dim=1) == 0
    assert lost.any() and float(other.x[:, 3:6].sum(dim=1)[lost].min()) > 0.1
    torch.testing.assert_close(other.mask, inputs.mask)
    seen = inputs.mask.expand(-1, 3, -1, -1) > 0
    torch.testing.assert_close(other.x[:, 3:6][seen], inputs.x[:, 3:6][seen], rtol=0, atol=2e-3)


def test_half_precision_is_near():
    scene = draw_scene(2, 0, SceneOptions(objects=(2, 2), poles=(0, 0), samples=1))
    sequence, model = Sequence(Renderer(scene, (16, 24))), ffplug.build_model("stss")
    _, frames = play(sequence, range(6, 8), model)
    for dtype, most in (("float16", 5e-3), ("bfloat16", 5e-2)):
        _, others = play(sequence, range(6, 8), model, dtype=dtype)
        for frame, other in zip(frames, others, strict=True):
            assert other.dtype == torch.float32
            assert 0 < float((frame - other).abs().max()) < most


def test_what_the_stream_refuses_to_be_made_of():
    model = ffplug.build_model("stss")
    for options in (dict(outside="white"), dict(dtype="int8"), dict(compose="longest")):
        with pytest.raises(ConfigError, match="expected one of"):
            SpaceTimeSupersampler(model, **options)
    with pytest.raises(ConfigError, match=r"cuts=3: expected 0\.\.1, or None"):
        SpaceTimeSupersampler(model, cuts=3)
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="there is no GPU"):
            SpaceTimeSupersampler(model, graph=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="a CUDA graph needs a GPU")
def test_a_graph_gives_the_same_frames(sequence):
    model = ffplug.build_model("stss").cuda()

    def frames(graph):
        stream, found = SpaceTimeSupersampler(model, graph=graph, dtype="float16"), []
        for time in range(6, 10):
            buffers = buffers_of(sequence, time)
            fields = {field.name: getattr(buffers, field.name).cuda() for field in dataclasses.fields(buffers)}
            if time % 2:
                found.append(stream.extrapolate(GBuffer(**fields)))
            else:
                found.append(stream.push(shaded_of(sequence, time).cuda(), GBuffer(**fields)))
        return found

    for one, other in zip(frames(False), frames(True), strict=True):
        torch.testing.assert_close(one, other)
