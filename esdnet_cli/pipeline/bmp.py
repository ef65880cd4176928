"""BMP's headers: those that OpenCV misreads, and what it does not read of them."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet_cli.pipeline.metadata import Density

_FILE, _OS2, _INFO = 14, 12, 40  # bytes of the file's header, OS/2's and Windows' first
_V5, _EMBEDDED = 124, b"DEBM"  # bytes of the longest header; its PROFILE_EMBEDDED
_BITFIELDS = 3
_GREEN_565 = 0x7E0


def is_bmp(data: bytes) -> bool:
    """By the first bytes."""
    return data[:2] == b"BM" and len(data) >= _FILE + _OS2


def plain(data: bytes) -> bytes:
    """A file as OpenCV reads it well.

    OS/2's header, whose colours it shows in grey, becomes one of Windows. Three masks in a short header, of which it
    takes the fourth byte for alpha and the masks for the usual ones, get a header that has room for an alpha mask.
    Masks of 16 bits in a long header get a short one, behind which it looks for them.
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
    if compression != _BITFIELDS:
        return data
    if bits == 16 and header > _INFO:
        return data[:10] + struct.pack("<II", 66, _INFO) + data[18:66] + data[pixels:]
    if bits == 32 and header in (40, 52):
        return data[:10] + struct.pack("<II", pixels + 4, 56) + data[18:66] + bytes(4) + data[66:]
    return data


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
