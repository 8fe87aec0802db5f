"""The little of an H.264 stream's syntax that FFmpeg does not tell: which frames are references, how many, the crop."""

from __future__ import annotations

import dataclasses

_SLICE, _KEY_SLICE, _PARAMETERS = 1, 5, 7
_HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128)


def is_h264_reference(packet: bytes | memoryview, extradata: bytes | None) -> bool:
    """Whether the picture in a packet may be referred to (``nal_ref_idc`` of its first slice is not 0)."""
    kinds = (unit[0] for unit in _units(packet, extradata or b"") if unit)
    return next((bool(head & 0x60) for head in kinds if head & 31 in (_SLICE, _KEY_SLICE)), True)


@dataclasses.dataclass(frozen=True)
class H264Parameters:
    """What a sequence parameter set tells of the frames.

    Attributes:
        references: how many frames may be kept to refer to (``max_num_ref_frames``).
        left: columns that are coded but not shown, at the left.
        top: rows that are coded but not shown, at the top.
    """

    references: int
    left: int
    top: int


def h264_parameters(extradata: bytes) -> H264Parameters | None:
    """The first sequence parameter set, or None where there is none to be found."""
    if extradata[:1] == b"\x01" and len(extradata) > 8:  # avcC: one length and the set
        units = [extradata[8 : 8 + int.from_bytes(extradata[6:8], "big")]]
    else:
        units = _split(extradata)
    for unit in units:
        if unit and unit[0] & 31 == _PARAMETERS:
            try:
                return _read_parameters(_Bits(unit[1:].replace(b"\0\0\3", b"\0\0")))
            except IndexError:
                return None
    return None


def _units(packet: bytes | memoryview, extradata: bytes) -> list[bytes | memoryview]:
    if extradata[:1] != b"\x01":
        return _split(bytes(packet))
    width, units, start = (extradata[4] & 3) + 1, [], 0
    while start + width < len(packet):
        length = int.from_bytes(packet[start : start + width], "big")
        units.append(packet[start + width : start + width + 1])
        start += width + length
    return units


def _split(stream: bytes) -> list[bytes]:
    return stream.split(b"\0\0\1")[1:]


class _Bits:
    """Reads the fields of a header."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def bits(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self.data[self.at >> 3] >> (7 - (self.at & 7)) & 1
            self.at += 1
        return value

    def golomb(self) -> int:
        zeros = 0
        while not self.bits(1):
            zeros += 1
        return (1 << zeros) - 1 + self.bits(zeros)

    def scaling_list(self, size: int) -> None:
        last = following = 8
        for _ in range(size):
            if following:
                code = self.golomb()
                following = (last + (code + 1) // 2 * (1 if code % 2 else -1)) % 256
            last = following or last


def _read_parameters(head: _Bits) -> H264Parameters:
    """See ITU-T H.264, 7.3.2.1.1."""
    profile, chroma = head.bits(8), 1
    head.bits(16)  # constraints and level
    head.golomb()  # number of the set
    if profile in _HIGH_PROFILES:
        chroma = head.golomb()
        if chroma == 3:
            head.bits(1)
        head.golomb(), head.golomb(), head.bits(1)  # depths, lossless
        if head.bits(1):
            for index in range(12 if chroma == 3 else 8):
                if head.bits(1):
                    head.scaling_list(16 if index < 6 else 64)
    head.golomb()  # frame numbers
    order = head.golomb()
    if order == 0:
        head.golomb()
    elif order == 1:
        head.bits(1), head.golomb(), head.golomb()
        for _ in range(head.golomb()):
            head.golomb()
    references = head.golomb()
    head.bits(1), head.golomb(), head.golomb()  # gaps in the numbers, width and height
    frames = head.bits(1)
    head.bits(1 if frames else 2)  # fields and frames mixed, direct inference
    left = top = 0
    if head.bits(1):
        left, _, top = head.golomb(), head.golomb(), head.golomb()
    return H264Parameters(
        references, left * (2 if chroma in (1, 2) else 1), top * (2 if chroma == 1 else 1) * (2 - frames)
    )
