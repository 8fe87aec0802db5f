"""Videos of 240 frames a second, of which every eighth frame is given: GoPro and Adobe240."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ffplug.datasets.base import Problem, choose
from ffplug.datasets.layouts import join
from ffplug_ugsp.datasets.triplets import Steps, TripletDataset
from ffplug_ugsp.registry import DATASETS

STEP = 8
"""Frames from one given frame to the next; the seven between are wanted."""
CROP = 512
"""Side of the middle of the frames that IFRNet is tested on."""


class HighSpeedDataset(TripletDataset):
    """What both sets share: a folder of numbered frames for each video, in windows of nine.

    The first and last frame of a window are given, and each of the seven between is a sample of its own; the last one
    of a window is the first one of the next.

    Args:
        data_root: the folder of ``train`` and ``test``.
        split: ``test`` or ``train``.
        pipeline: transforms; None packs the middle 512×512 pixels of test frames, as IFRNet's figures do, and whole
            frames for a training, whose pipeline is to crop.
        **kwargs: see :class:`ffplug.datasets.ScannedDataset`.
    """

    def __init__(self, data_root: str, split: str = "test", pipeline: Steps | None = None, **kwargs: Any) -> None:
        self.split = choose("split", split, ("test", "train"))
        if pipeline is None and split == "test":
            pipeline = [dict(type="ffplug_ugsp.LoadTriplet", crop=CROP), dict(type="ffplug_ugsp.PackTriplet")]
        super().__init__(data_root, pipeline, **kwargs)

    @property
    def name(self) -> str:  # noqa: D102 (see the base class)
        return f"{self.title}/{self.split}"

    def scan(self, problems: list[Problem]) -> Iterable[dict[str, Any]]:
        """Yield the seven frames between of each window, video by video."""
        self.require(self.split)
        pattern = r"(?:.*\D)?(\d{1,9})\.(?:png|jpg|jpeg)"
        for video in self.folders(self.split):
            folder = join(self.split, video)
            before = len(problems)
            numbers = self.consecutive(folder, pattern, video, problems)
            if len(problems) > before:
                continue
            files = self.numbered(folder, pattern)
            for first in range(0, len(numbers) - STEP, STEP):
                window = [join(folder, files[number]) for number in numbers[first : first + STEP + 1]]
                for place in range(1, STEP):
                    number = numbers[first + place]
                    yield self.triplet(
                        *(window[0], window[place], window[-1]),
                        sequence=video,
                        frame=number,
                        sample_id=f"{video}/{number:06d}",
                        timestep=place / STEP,
                    )


@DATASETS.register_module()
class GoProDataset(HighSpeedDataset):
    """GoPro: 22 videos for training and 11 for the test, 1280×720 pixels, ``test/GOPR0384_11_00/000001.png`` and so on.

    Example:
        dict(type="ffplug_ugsp.GoProDataset", data_root="data/gopro")
    """

    layout = "gopro"
    title = "GoPro"


@DATASETS.register_module()
class Adobe240Dataset(HighSpeedDataset):
    """Adobe240: videos of hand-held cameras, whose frames their user takes out to ``test/IMG_0028/000001.png`` ....

    Example:
        dict(type="ffplug_ugsp.Adobe240Dataset", data_root="data/adobe240")
    """

    layout = "adobe240"
    title = "Adobe240"
