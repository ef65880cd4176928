"""BMP's headers: those that OpenCV misreads, and what it does not read of them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet_cli.pipeline.metadata import Density
from esdnet_cli.settings import max_pixels

_FILE, _OS2, _INFO = 14, 12, 40  # bytes of the file's header, OS/2's and Windows' first
_V5, _EMBEDDED = 124, b"DEBM"  # bytes of the longest header; its PROFILE_EMBEDDED
_RUNS_OF_BYTES, _BITFIELDS = 1, 3  # kinds of compression
_GREEN_565 = 0x7E0


def is_bmp(data: bytes) -> bool:
    """By the first bytes."""
    return data[:2] == b"BM" and len(data) >= _FILE + _OS2


def plain(data: bytes) -> bytes:
    """A file as OpenCV reads it well.

    OS/2's header, whose colours it shows in grey, becomes one of Windows. Three masks in a short header, of which it
    takes the fourth byte for alpha and the masks for the usual ones, get a header that has room for an alpha mask.
    Masks of 16 bits in a long header get a short one, behind which it looks for them. Runs of bytes are unpacked where
    a row may run on beyond the width, to the multiple of four that it would fill, as ImageMagick's do: OpenCV loses
    its place there.
    """
    pixels, header = struct.unpack_from("<II", data, 10)
    if header == _OS2:
        width, height, planes, bits = struct.unpack_from("<HHHH", data, 18)
        colours = data[_FILE + _OS2 : min(pixels, _FILE + _OS2 + (3 << bits))] if bits <= 8 else b""
        palette = b"".join(colours[i : i + 3] + b"\0" for i in range(0, len(colours) // 3 * 3, 3))
        info = struct.pack("<IiiHHIIiiII", _INFO, width, height, planes, bits, 0, 0, 0, 0, len(palette) // 4, 0)
        return data[:10] + struct.pack("<I", _FILE + _INFO + len(palette)) + info + palette + data[pixels:]
    if len(data) < 70:
        return data
    bits, compression = struct.unpack_from("<HI", data, 28)
    if compression == _RUNS_OF_BYTES and bits == 8:
        width, height = struct.unpack_from("<ii", data, 18)
        rows = _unpacked(data[pixels:], width, height) if width % 4 else None
        return data if rows is None else data[:30] + struct.pack("<II", 0, len(rows)) + data[38:pixels] + rows
    if compression != _BITFIELDS:
        return data
    if bits == 16 and header > _INFO:
        return data[:10] + struct.pack("<II", 66, _INFO) + data[18:66] + data[pixels:]
    if bits == 32 and header in (40, 52):
        return data[:10] + struct.pack("<II", pixels + 4, 56) + data[18:66] + bytes(4) + data[66:]
    return data


def _unpacked(runs: bytes, width: int, height: int) -> bytes | None:
    """Rows of bytes, padded as a BMP's are, from runs of them (BI_RLE8); None where they are damaged or too large."""
    if min(width, height) < 1 or width * height > max_pixels():
        return None
    rows = np.zeros((height, -(-width // 4) * 4), np.uint8)
    x = y = place = 0
    while place + 1 < len(runs) and y < height:
        count, value = runs[place], runs[place + 1]
        place += 2
        if count:
            rows[y, x : min(x + count, width)] = value
            x += count
        elif value == 0:
            x, y = 0, y + 1
        elif value == 1:
            return rows.tobytes()
        elif value == 2:
            right_and_up = runs[place : place + 2]
            x, y, place = x + sum(right_and_up[:1]), y + sum(right_and_up[1:]), place + 2
        else:
            literal = np.frombuffer(runs[place : place + value], np.uint8)[: max(width - x, 0)]
            rows[y, x : x + len(literal)] = literal
            x, place = x + value, place + value + value % 2
    return rows.tobytes() if y >= height else None


def meant(pixels: NDArray[Any], data: bytes) -> NDArray[Any]:
    """OpenCV's pixels as the file means them: no alpha that it does not have, and white as 255 in 16 bits, too."""
    if pixels.ndim == 3 and pixels.shape[2] == 4 and not _has_alpha_mask(data):
        pixels = pixels[..., :3]
    (header,) = struct.unpack_from("<I", data, 14)
    if len(data) >= 54 and header >= _INFO and struct.unpack_from("<H", data, 28)[0] == 16 and pixels.ndim == 3:
        compression, green = struct.unpack_from("<I", data, 30)[0], data[58:62]
        wide = compression == _BITFIELDS and int.from_bytes(green, "little") == _GREEN_565
        pixels = pixels | pixels >> np.array([5, 6 if wide else 5, 5], np.uint8)
    return pixels


def density(data: bytes) -> Density | None:
    """Of a BMP with a header that says it."""
    if not is_bmp(data) or len(data) < 54 or struct.unpack_from("<I", data, 14)[0] < _INFO:
        return None
    x, y = struct.unpack_from("<ii", data, 38)
    return Density(x, y, 1) if x > 0 and y > 0 else None


def icc_profile(data: bytes) -> bytes:
    """Of a BMP with the longest header that says there is one in the file."""
    if not is_bmp(data) or len(data) < _FILE + _V5 or data[70:74] != _EMBEDDED:
        return b""
    place, size = struct.unpack_from("<II", data, 126)
    return data[_FILE + place : _FILE + place + size]


def with_density(data: bytes, density: Density | None) -> bytes:
    """An encoded BMP that says it."""
    if density is None or not density.units:
        return data
    dots = (min(round(dots * density.units), 0x7FFFFFFF) for dots in (density.x, density.y))
    return data[:38] + struct.pack("<ii", *dots) + data[46:]


def _has_alpha_mask(data: bytes) -> bool:
    (header,) = struct.unpack_from("<I", data, 14)
    return header >= 56 and len(data) >= 70 and struct.unpack_from("<I", data, 66)[0] != 0
