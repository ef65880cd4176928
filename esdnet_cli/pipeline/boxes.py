"""Boxes of MP4, QuickTime and AVIF files (ISO/IEC 14496-12, 4.2), and what FFmpeg does not tell of them."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator
from typing import BinaryIO


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of the content of each box between two places; the last may reach beyond."""
    while start + 8 <= end:
        file.seek(start)
        size, kind, long_size = struct.unpack(">I4sQ", file.read(16).ljust(16, b"\0"))
        head, size = (16, long_size) if size == 1 else (8, size or end - start)
        if size < head:
            return
        yield kind, start + head, start + size
        start += size


def lacks_index(file: BinaryIO) -> bool:
    """Is it a file of frames without all of `moov`, which cameras write last (8.2)?

    HEIC and AVIF have `meta` in its place, a piece of a stream `moof`: they never had one.
    """
    size = file.seek(0, os.SEEK_END)
    found = {(kind, end <= size) for kind, _, end in boxes(file, 0, size)}
    has_index = any((kind, True) in found for kind in (b"moov", b"meta", b"moof"))
    return any(kind == b"mdat" for kind, _ in found) and not has_index


def breaks_off(file: BinaryIO, reached: int) -> bool:
    """Is it a film in fragments (`moof`, 8.8.4) with something that is no box before or behind one that was not read?

    There FFmpeg ends the film, as if it were whole. reached: up to where it was read.
    """
    size, sound, last = file.seek(0, os.SEEK_END), 0, 0
    for kind, start, end in boxes(file, 0, size):
        if not kind.isalnum():
            break
        sound, last = end, start if kind == b"moof" else last
    if not last or sound >= size:
        return False
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return last > reached or data.find(b"moof", sound) >= 0


def holds_places(file: BinaryIO) -> bool:
    """Did a dash-cam note where it was, in a box of its own? Novatek's is within `moov`, BlackVue's within `free`."""
    size = file.seek(0, os.SEEK_END)
    outer = [(start, min(end, size)) for kind, start, end in boxes(file, 0, size) if kind in (b"moov", b"free")]
    inner = (box for place in outer for box in boxes(file, *place))
    return any(kind == b"gps " for kind, *_ in inner)
