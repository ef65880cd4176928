"""What OpenCV takes for something else than is meant: put right where possible, else refused with the reason."""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet_cli.pipeline import jpeg, png, tiff
from esdnet_cli.pipeline.metadata import Density

_PNM = re.compile(rb"P[2356](?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+(\d{1,5})\s")
_JP2, _J2K = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"
_SIZ, _COD = b"\xff\x51", b"\xff\x52"
_JP2_COLOURS = {16, 17, 18}  # sRGB, grey, sYCC
_BITFIELDS = 3


def why_not_read(data: bytes) -> str | None:
    """Why the picture would not come back as it is meant; None if OpenCV and `mended_pixels` read it well."""
    if (header := _PNM.match(data)) and int(header[1]) not in (255, 65535):
        return f"has values up to {int(header[1])}, not 255 or 65535; save it as PNG"
    if data.startswith(b"\xff\xd8"):
        if trouble := jpeg.why_not_decoded(data):
            return f"is of a kind that is not read ({trouble}); convert it to PNG"
        return None if jpeg.is_whole(data) else "is truncated or damaged: it has no end; copy it again"
    if tiff.is_tiff(data):
        trouble = tiff.why_not_read(tiff.read_tags(data))
        return f"is {trouble}" if trouble else None
    if data.startswith((_JP2, _J2K)):
        return _why_not_jpeg2000(data)
    if is_avif(data) and len(_avif_bits(data) - {8}) > 1:  # of which one is the picture's, who knows which
        return "is AVIF with parts of 10 and of 12 bits; save it as PNG with 16 bits"
    return None


def mended_file(data: bytes) -> bytes:
    """A file as OpenCV reads it well.

    BMP with three masks in a short header, of which OpenCV takes the fourth byte for alpha and the masks for the usual
    ones: with a header that has room for an alpha mask. TIFF: see `tiff.with_plain_alpha`.
    """
    if tiff.is_tiff(data):
        return tiff.with_plain_alpha(data)
    if data[:2] != b"BM" or len(data) < 70:
        return data
    offset, header = struct.unpack_from("<II", data, 10)
    bits, compression = struct.unpack_from("<HI", data, 28)
    if header not in (40, 52) or bits != 32 or compression != _BITFIELDS:
        return data
    start = data[:10] + struct.pack("<II", offset + 4, 56) + data[18:66]
    return start + bytes(4) + data[66:]


def mended_pixels(pixels: NDArray[Any], data: bytes) -> NDArray[Any]:
    """OpenCV's pixels as the file means them."""
    if data.startswith(png.SIGNATURE) and pixels.ndim == 2 and (key := png.transparent_grey(data)):
        return _with_transparent_grey(pixels, *key)
    if tiff.is_tiff(data):
        return tiff.mended(pixels, tiff.read_tags(data))
    if data[:2] == b"BM" and pixels.ndim == 3 and pixels.shape[2] == 4 and not _has_alpha_mask(data):
        return pixels[..., :3]
    if data.startswith((_JP2, _J2K)):
        return widened(pixels, _jpeg2000_bits(data)[0])
    if is_avif(data) and pixels.dtype == np.uint16:
        return widened(pixels, max(_avif_bits(data)))
    return pixels


def widened(pixels: NDArray[Any], bits: int) -> NDArray[Any]:
    """Numbers of so many bits as the full range of their dtype."""
    most = np.iinfo(pixels.dtype).max
    if (1 << bits) - 1 >= most:
        return pixels
    return ((pixels.astype(np.uint32) * most + (1 << (bits - 1))) // ((1 << bits) - 1)).astype(pixels.dtype)


def is_avif(data: bytes) -> bool:
    """By the first bytes."""
    return data[4:8] == b"ftyp" and any(brand in data[8:64] for brand in (b"avif", b"avis"))


def bmp_density(data: bytes) -> Density | None:
    """Of a BMP with a header that says it."""
    if data[:2] != b"BM" or len(data) < 54 or struct.unpack_from("<I", data, 14)[0] < 40:
        return None
    x, y = struct.unpack_from("<ii", data, 38)
    return Density(x, y, 1) if x > 0 and y > 0 else None


def with_bmp_density(data: bytes, density: Density | None) -> bytes:
    """An encoded BMP that says it."""
    if density is None or not density.units:
        return data
    dots = (min(round(dots * density.units), 0x7FFFFFFF) for dots in (density.x, density.y))
    return data[:38] + struct.pack("<ii", *dots) + data[46:]


def boxed_icc(data: bytes) -> bytes:
    """The ICC profile in a `colr` box of AVIF or JPEG 2000 (ISO 15444-1, I.5.3.3), which OpenCV does not read."""
    for kind in (b"colrprof", b"colrrICC", b"colr\x02"):
        place = data.find(kind, 0, 1 << 16)
        if place >= 4:
            (length,) = struct.unpack_from(">I", data, place - 4)
            start = place + (7 if kind == b"colr\x02" else 8)
            return data[start : place - 4 + length]
    return b""


def boxed_cicp(data: bytes) -> tuple[int, int]:
    """Colour primaries and transfer (ITU-T H.273) in AVIF's `colr` box; 2, unsaid, for each without one."""
    place = data.find(b"colrnclx", 0, 1 << 16)
    return struct.unpack_from(">HH", data, place + 8) if 0 <= place <= len(data) - 12 else (2, 2)


def _avif_bits(data: bytes) -> set[int]:
    """Of a channel of the picture and its parts: high_bitdepth and twelve_bit in their `av1C` (AV1-ISOBMFF, 2.3.3)."""
    flags = {found[1][0] for found in re.finditer(rb"av1C\x81.(.)", data, re.DOTALL)}
    return {(12 if flag & 32 else 10) if flag & 64 else 8 for flag in flags}


def _with_transparent_grey(pixels: NDArray[Any], grey: int, bits: int) -> NDArray[Any]:
    """BGRA [H, W, 4] of grey [H, W]: transparent where it has that value, which counts in `bits`."""
    most = np.iinfo(pixels.dtype).max
    shown = grey if bits >= 8 else grey * most // ((1 << bits) - 1)
    alpha = np.where(pixels == shown, 0, most).astype(pixels.dtype)
    return np.dstack((pixels, pixels, pixels, alpha))


def _has_alpha_mask(data: bytes) -> bool:
    (header,) = struct.unpack_from("<I", data, 14)
    return header >= 56 and struct.unpack_from("<I", data, 66)[0] != 0


def _codestream(data: bytes) -> bytes:
    """JPEG 2000 without the boxes around it (ISO 15444-1, annex I)."""
    position = 0 if data.startswith(_JP2) else len(data)
    while position + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        head = 8
        if length == 1 and position + 16 <= len(data):
            (length,) = struct.unpack_from(">Q", data, position + 8)
            head = 16
        end = position + length if length else len(data)
        if kind == b"jp2c":
            return data[position + head : end]
        if length and length < head:
            break
        position = end
    return data if data.startswith(_J2K) else b""


def _jpeg2000_bits(data: bytes) -> list[int]:
    """Of each component, negative if its values have a sign."""
    siz = _codestream(data)[2:]
    if siz[:2] != _SIZ or len(siz) < 40:
        return [8]
    (count,) = struct.unpack_from(">H", siz, 38)
    depths = siz[40 : 40 + 3 * count : 3]
    return [((depth & 127) + 1) * (-1 if depth & 128 else 1) for depth in depths] or [8]


def _why_not_jpeg2000(data: bytes) -> str | None:
    stream = _codestream(data)
    bits = _jpeg2000_bits(data)
    if min(bits) < 0 or max(bits) > 16 or len(set(bits)) > 1:
        return f"is JPEG 2000 of {'/'.join(map(str, bits))} bits; save it as PNG"
    count = len(bits)
    if len(set(stream[43 : 42 + 3 * count : 3]) | set(stream[44 : 42 + 3 * count : 3])) > 1:
        return "is JPEG 2000 with colours of lower resolution; save it as PNG"
    if count == 2:
        return "is JPEG 2000 of grey with alpha, which OpenCV does not read; save it as PNG"
    box = data.find(b"colr\x01")
    if data.startswith(_JP2) and 0 <= box < 4096:
        (space,) = struct.unpack_from(">I", data, box + 7)
        if space not in _JP2_COLOURS:
            return f"is JPEG 2000 in colours of kind {space}, such as CMYK; save it as RGB"
    # OpenJPEG decodes what it gets: a half-copied file, the rest zeros, becomes half a picture
    empty_packets = 64
    if (cod := stream.find(_COD, 0, 65536)) >= 0 and cod + 10 <= len(stream):
        layers, levels = struct.unpack_from(">H", stream, cod + 6)[0], stream[cod + 9]
        empty_packets += layers * (levels + 1) * count * (256 if stream[cod + 4] & 1 else 1)
    if not stream.rstrip(b"\0").endswith(b"\xff\xd9") or bytes(empty_packets) in stream:
        return "is truncated or damaged: parts of its data are missing; copy it again"
    return None
