"""Pictures of a video as tensors and back, with the video's own matrix, range and depth."""

from __future__ import annotations

import av
import numpy as np
import torch
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from torch import Tensor

_FULL = int(ColorRange.JPEG)
_MATRICES = {
    1: Colorspace.ITU709,
    4: Colorspace.FCC,
    5: Colorspace.ITU601,
    6: Colorspace.ITU601,
    7: Colorspace.SMPTE240M,
    9: Colorspace.BT2020,
}
"""By FFmpeg's number of the matrix; what a file does not tell follows from the height, as players do it."""
_ACCURATE = (
    Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
)


class Pictures:
    """Turns frames of one video into tensors, and tensors into frames like them.

    Args:
        like: a frame of the video.
    """

    def __init__(self, like: av.VideoFrame) -> None:
        self.like = like
        self._to_rgb, self._from_rgb = VideoReformatter(), VideoReformatter()
        self.matrix = _MATRICES.get(
            int(like.colorspace), Colorspace.ITU709 if like.height >= 720 else Colorspace.ITU601
        )
        # Formats named yuvj are those of the full range, whatever is noted beside them.
        full = int(like.color_range) == _FULL or like.format.name.startswith("yuvj") or like.format.is_rgb
        self.range = ColorRange.JPEG if full else ColorRange.MPEG
        self.deep = max(component.bits for component in like.format.components) > 8

    def tensor(self, frame: av.VideoFrame) -> Tensor:
        """A frame as 1×3×H×W float32 RGB in 0..1; more than 8 bits stay more."""
        rgb = self._to_rgb.reformat(
            frame,
            format="rgb48le" if self.deep else "rgb24",
            interpolation=_ACCURATE,
            src_colorspace=self.matrix,
            src_color_range=self.range,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        ).to_ndarray()
        levels = torch.from_numpy(rgb.astype(np.float32)).permute(2, 0, 1)[None]
        return levels / (65535 if self.deep else 255)

    def frame(self, picture: Tensor) -> av.VideoFrame:
        """A picture 1×3×H×W in 0..1 as a frame in the video's format."""
        levels = picture[0].permute(1, 2, 0).clamp(0, 1) * (65535 if self.deep else 255)
        array = levels.round().cpu().numpy().astype(np.uint16 if self.deep else np.uint8)
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format="rgb48le" if self.deep else "rgb24")
        frame = self._from_rgb.reformat(
            rgb,
            format=self.like.format.name,
            interpolation=_ACCURATE,
            src_color_range=ColorRange.JPEG,
            dst_colorspace=self.matrix,
            dst_color_range=self.range,
            threads=1,
        )
        for name in ("colorspace", "color_range", "color_trc", "color_primaries"):
            setattr(frame, name, getattr(self.like, name))
        return frame


def fresh(frame: av.VideoFrame) -> av.VideoFrame:
    """The frame without what would steer an encoder: its kind in the file that it came from."""
    frame.pict_type = PictureType.NONE
    return frame
