"""The little of an H.264 stream's syntax that FFmpeg does not tell: which frames are references, and how many."""

from __future__ import annotations

_SLICE, _KEY_SLICE, _PARAMETERS = 1, 5, 7
_HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128)


def is_h264_reference(packet: bytes, extradata: bytes | None) -> bool:
    """Whether the picture in a packet may be referred to (``nal_ref_idc`` of its first slice is not 0)."""
    kinds = (unit[0] for unit in _units(packet, extradata or b"") if unit)
    return next((bool(head & 0x60) for head in kinds if head & 31 in (_SLICE, _KEY_SLICE)), True)


def h264_reference_frames(extradata: bytes) -> int | None:
    """``max_num_ref_frames`` of the first sequence parameter set, or None where it is not to be found."""
    if extradata[:1] == b"\x01" and len(extradata) > 8:  # avcC: one length and the set
        units = [extradata[8 : 8 + int.from_bytes(extradata[6:8], "big")]]
    else:
        units = _split(extradata)
    for unit in units:
        if unit and unit[0] & 31 == _PARAMETERS:
            try:
                return _max_references(_Bits(unit[1:].replace(b"\0\0\3", b"\0\0")))
            except IndexError:
                return None
    return None


def _units(packet: bytes, extradata: bytes) -> list[bytes]:
    if extradata[:1] != b"\x01":
        return _split(packet)
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


def _max_references(head: _Bits) -> int | None:
    profile = head.bits(8)
    head.bits(16)  # constraints and level
    head.golomb()  # number of the set
    if profile in _HIGH_PROFILES:
        if head.golomb() == 3:  # chroma format
            head.bits(1)
        head.golomb(), head.golomb(), head.bits(1)  # depths, lossless
        if head.bits(1):  # scaling lists, which are rare
            return None
    head.golomb()  # frame numbers
    order = head.golomb()
    if order == 0:
        head.golomb()
    elif order == 1:
        head.bits(1), head.golomb(), head.golomb()
        for _ in range(head.golomb()):
            head.golomb()
    return head.golomb()
