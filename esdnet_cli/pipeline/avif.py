"""AVIF's boxes (ISO/IEC 14496-12, 23008-12; AV1-ISOBMFF): what OpenCV does not see of them."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet_cli.pipeline.boxes import boxes

_LOOKED_AT = 500  # bytes by which OpenCV recognises a file
_ROOM = 512


def is_avif(data: bytes) -> bool:
    """By the first bytes."""
    return data[4:8] == b"ftyp" and any(brand in data[8:64] for brand in (b"avif", b"avis"))


def bits(data: bytes) -> set[int]:
    """Of a channel of the picture and its parts: high_bitdepth and twelve_bit in their `av1C` (AV1-ISOBMFF, 2.3.3)."""
    flags = {found[1][0] for found in re.finditer(rb"av1C\x81.(.)", data, re.DOTALL)}
    return {(12 if flag & 32 else 10) if flag & 64 else 8 for flag in flags}


def turned(pixels: NDArray[Any], data: bytes) -> tuple[NDArray[Any], bool]:
    """As `irot` (counterclockwise), then `imir` (0: upside down, 1: left to right) want it; and if it lay before."""
    properties = data[: data.find(b"mdat")]
    turns = properties[place + 4] & 3 if (place := properties.find(b"irot")) >= 0 else 0
    pixels = np.rot90(pixels, turns)
    if (mirror := properties.find(b"imir")) >= 0:
        pixels = pixels[:, ::-1] if properties[mirror + 4] & 1 else pixels[::-1]
    return pixels, turns % 2 == 1


def with_room(data: bytes) -> bytes:
    """A file whose `meta` box reaches beyond what OpenCV looks at.

    In one that ends before, the bytes looked at seem complete, and libavif, which finds EXIF or XMP beyond them, takes
    the file for broken. (A sequence's tracks, which would have to follow, are refused anyway.)
    """
    file = io.BytesIO(data)
    try:
        outer = {kind: (start, end) for kind, start, end in boxes(file, 0, len(data))}
        start, end = outer[b"meta"]
        long = data[start - 4 : start] != b"meta"  # its size stands after its name
        if b"moov" in outer or long or end >= _LOOKED_AT or len(data) <= _LOOKED_AT:
            return data
        places = next(begin for kind, begin, _ in boxes(file, start + 4, end) if kind == b"iloc")
        moved = bytearray(data)
        for position, size, offset in _offsets(data, places):
            if offset >= end:
                moved[position : position + size] = (int.from_bytes(data[position : position + size]) + _ROOM).to_bytes(
                    size
                )
        struct.pack_into(">I", moved, start - 8, end - start + 8 + _ROOM)
        return bytes(moved[:end] + struct.pack(">I4s", _ROOM, b"free") + bytes(_ROOM - 8) + moved[end:])
    except (KeyError, StopIteration, struct.error, OverflowError, IndexError):
        return data


def _offsets(data: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Of each extent that `iloc` (14496-12, 8.11.3) has in the file: place and size of its number, where it leads."""
    version = data[at]
    offset_size, length_size = data[at + 4] >> 4, data[at + 4] & 15
    base_size, index_size = data[at + 5] >> 4, data[at + 5] & 15 if version else 0
    number = ">H" if version < 2 else ">I"
    (items,) = struct.unpack_from(number, data, at + 6)
    at += 6 + struct.calcsize(number)
    for _ in range(items):
        at += struct.calcsize(number)
        in_file = not (version and data[at + 1] & 15)
        at += (2 if version else 0) + 2
        base_at, base = at, int.from_bytes(data[at : at + base_size])
        (extents,) = struct.unpack_from(">H", data, at + base_size)
        at += base_size + 2
        for _ in range(extents):
            at += index_size
            offset = base + int.from_bytes(data[at : at + offset_size])
            if in_file and offset_size:
                yield at, offset_size, offset
            elif in_file and base_size:
                yield base_at, base_size, offset
            at += offset_size + length_size
