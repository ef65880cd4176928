"""TIFF's first directory (TIFF 6.0, BigTIFF): which files OpenCV reads as meant, and what it does not write."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet_cli.pipeline.metadata import Density, Metadata, as_resource, checked_icc, iptc_of, without_thumbnails

_BITS, _COMPRESSION, _PHOTOMETRIC, _DESCRIPTION, _ORIENTATION, _SAMPLES = 258, 259, 262, 270, 274, 277
_X_DENSITY, _Y_DENSITY, _PLANAR, _DENSITY_UNIT, _SUBFILE = 282, 283, 284, 296, 254
_SAMPLE_FORMAT, _UNSIGNED = 339, 1
_EXIF, _GPS = 34665, 34853
_EXTRA_SAMPLES, _XMP, _IPTC, _PHOTOSHOP, _ICC, _DNG_VERSION = 338, 700, 33723, 34377, 34675, 50706
_FORMATS = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d"}
_FORMATS |= {13: "I", 16: "Q", 17: "q", 18: "Q"}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _INKS, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOURS = {_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _INKS, _YCBCR}
_COLOUR_NAMES = {4: "a mask", 8: "Lab colours", 9: "Lab colours", 10: "Lab colours", 32803: "a camera's raw data"}
_COLOUR_NAMES |= {34892: "a camera's raw data", 32844: "LogL", 32845: "LogLuv"}
_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946}  # none, CCITT, LZW, JPEG, Deflate, PackBits, Deflate's old number
_COMPRESSION_NAMES = {
    6: "JPEG of the old kind", 34661: "JBIG", 34712: "JPEG 2000", 34887: "LERC", 34892: "lossy DNG", 34925: "LZMA",
    34933: "PNG", 34934: "JPEG XR", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
    33003: "JPEG 2000", 33004: "JPEG 2000", 33005: "JPEG 2000", 32809: "ThunderScan", 32766: "NeXT",
}  # fmt: skip
_UNITS = {1: 0.0, 2: 1 / 0.0254, 3: 100.0}

Tags = dict[int, tuple[float, ...] | bytes]


def is_tiff(data: bytes) -> bool:
    """By its first bytes; classic or BigTIFF."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tags(data: bytes) -> Tags:
    """The first directory: values of each tag (bytes as they are; a fraction as numerator, denominator).

    A file that is cut short or nonsense yields what it has.
    """
    found: Tags = {}
    for tag, kind, count, place in _entries(data):
        order, form = _order(data), _FORMATS[kind]
        if form == "B":
            found[tag] = data[place : place + count]
        else:
            found[tag] = struct.unpack_from(f"{order}{count * len(form)}{form[0]}", data, place)
    return found


def with_plain_alpha(data: bytes) -> bytes:
    """A file of 8 bits whose alpha is said to be of no known meaning: else OpenCV multiplies it into the colours."""
    for tag, kind, count, place in _entries(data):
        if (tag, kind, count) == (_EXTRA_SAMPLES, 3, 1):
            return data[:place] + bytes(2) + data[place + 2 :]
    return data


def _order(data: bytes) -> str:
    return "<" if data[:2] == b"II" else ">"


def _entries(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Tag, kind, count and place of the values of each entry of the first directory that the file holds."""
    order, big = _order(data), data[2:4] in (b"+\0", b"\0+")
    offset, counts, head, inline = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    try:
        (start,) = struct.unpack_from(order + offset, data, 8 if big else 4)
        (entries,) = struct.unpack_from(order + counts, data, start)
        for position in range(start + struct.calcsize(order + counts), len(data), head)[: min(entries, 4096)]:
            tag, kind, count = struct.unpack_from(f"{order}HH{offset}", data, position)
            size = struct.calcsize(order + _FORMATS.get(kind, "")) * count
            place = position + head - inline
            if size > inline:
                (place,) = struct.unpack_from(order + offset, data, place)
            if kind in _FORMATS and size <= len(data) - place:
                yield tag, kind, count, place
    except (struct.error, OverflowError):  # BigTIFF's numbers may be larger than any file
        return


def is_turned(tags: Tags) -> bool:
    """Do rows of the file stand upright in the picture? OpenCV turns it as it decodes."""
    return _one(tags, _ORIENTATION, 1) >= 5


def why_not_read(tags: Tags) -> str | None:
    """What OpenCV does not read, or reads as something else than is meant; None if it reads the file as it is meant."""
    bits, samples, planar = tags.get(_BITS) or (1,), _one(tags, _SAMPLES, 1), _one(tags, _PLANAR, 1)
    compression, photometric = _one(tags, _COMPRESSION, 1), _one(tags, _PHOTOMETRIC, _BLACK_IS_ZERO)
    if _DNG_VERSION in tags or _one(tags, _SUBFILE, 0) & 1:
        return "a camera's raw file, of which only a small preview could be read; develop it first"
    if compression not in _COMPRESSIONS:
        name = _COMPRESSION_NAMES.get(compression, f"of kind {compression}")
        return f"TIFF with {name} compression; save it with LZW or Deflate, or as PNG"
    if photometric not in _COLOURS:
        return f"TIFF with {_COLOUR_NAMES.get(photometric, f'colours of kind {photometric}')}; save it as RGB"
    if len(set(bits)) > 1 or bits[0] not in (1, 8, 10, 12, 14, 16, 32, 64):  # 32 and 64: said by their type
        return f"TIFF of {'/'.join(f'{depth:g}' for depth in bits)} bits; save it with 8 or 16"
    if photometric == _INKS and (bits[0] != 8 or samples != 4):
        return f"TIFF in CMYK of {bits[0]:g} bits and {samples} inks; save it as RGB"
    if bits[0] > 8 and planar == 2 and samples > 1:
        return f"TIFF of {bits[0]:g} bits with separate planes, which OpenCV mixes up; save it as PNG"
    if samples == 2:
        return "TIFF with alpha beside grey, which OpenCV does not read; save it as PNG"
    if _one(tags, _EXTRA_SAMPLES, 0) == 1:
        return "TIFF with alpha already multiplied into its colours; save it as PNG"
    if samples not in ((1, 3) if 8 < bits[0] < 16 else (1, 3, 4)):
        return f"TIFF of {bits[0]:g} bits and {samples} channels; save it as PNG"
    if bits[0] <= 16 and _one(tags, _SAMPLE_FORMAT, _UNSIGNED) != _UNSIGNED:
        return f"TIFF of {bits[0]:g} bits that are no whole numbers from 0; save it with 8 or 16 bits"
    return None


def mended(pixels: NDArray[Any], tags: Tags) -> NDArray[Any]:
    """OpenCV's pixels of more than 8 bits as they are meant: black as 0, white as 65535."""
    bits = int(_one(tags, _BITS, 1))
    if pixels.dtype != np.uint16:
        return pixels
    if 8 < bits < 16:  # OpenCV puts them into the upper bits and leaves the lower ones at 0
        pixels = pixels | pixels >> bits
    return ~pixels if _one(tags, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO else pixels


def read_metadata(tags: Tags) -> tuple[Metadata, set[str]]:
    """What a TIFF's tags hold, without EXIF, and what of it cannot be kept."""
    blobs = {tag: _bytes(tags, tag) for tag in (_XMP, _PHOTOSHOP, _ICC, _DESCRIPTION)}
    profile = checked_icc(blobs[_ICC])
    density = None
    x, y = tags.get(_X_DENSITY, ()), tags.get(_Y_DENSITY, ())
    if len(x) == len(y) == 2 and all((*x, *y)):
        units = _UNITS.get(int(_one(tags, _DENSITY_UNIT, 2)), 0.0)
        density = Density(x[0] / x[1], y[0] / y[1], units) if units or x[0] * y[1] != y[0] * x[1] else None
    comments = tuple(filter(None, (blobs[_DESCRIPTION].rstrip(b"\0"),)))
    lost = {"ICC profile, which is broken"} if blobs[_ICC] and not profile else set()
    if _EXIF in tags or _GPS in tags:
        lost.add("EXIF")
    return Metadata(
        b"", profile, blobs[_XMP], _resources(tags, without_thumbnails(blobs[_PHOTOSHOP])), comments, density
    ), lost


def with_metadata(data: bytes, metadata: Metadata, alpha: bool) -> bytes:
    """An encoded TIFF (OpenCV's: classic, little-endian) with these tags besides its own; and with what `alpha` is."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    entries = {}
    for position in range(start + 2, start + 2 + 12 * count, 12):
        entries[struct.unpack_from("<H", data, position)[0]] = data[position : position + 12]
    data += bytes(len(data) % 2)

    def add(tag: int, kind: int, count: int, content: bytes) -> None:
        nonlocal data
        value = content.ljust(4, b"\0")
        if len(content) > 4:
            value = struct.pack("<I", len(data))
            data += content + bytes(len(content) % 2)
        entries[tag] = struct.pack("<HHI", tag, kind, count) + value

    blobs = {_ICC: metadata.icc, _XMP: metadata.xmp, _PHOTOSHOP: metadata.iptc, _IPTC: iptc_of(metadata.iptc)}
    for tag, content in blobs.items():
        if content:
            add(tag, 7 if tag == _ICC else 1, len(content), content)
    if metadata.comments:
        description = metadata.comments[0] + b"\0"
        add(_DESCRIPTION, 2, len(description), description)
    if metadata.density is not None:
        density = metadata.density
        units = {0.0: 1, 100.0: 3}.get(density.units, 2)
        dots = density.per_inch if units == 2 else (density.x, density.y)  # TIFF knows inches and centimetres
        if max(dots) < 1 << 22:
            for tag, value in zip((_X_DENSITY, _Y_DENSITY), dots):
                add(tag, 5, 1, struct.pack("<II", round(value * 1000), 1000))
            add(_DENSITY_UNIT, 3, 1, struct.pack("<H", units))
    if alpha:
        add(_EXTRA_SAMPLES, 3, 1, struct.pack("<H", 2))
    directory = struct.pack("<H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


def _one(tags: Tags, tag: int, default: int) -> int:
    return int(tags[tag][0]) if tags.get(tag) else default


def _bytes(tags: Tags, tag: int) -> bytes:
    value = tags.get(tag, b"")
    return value if isinstance(value, bytes) else b""


def _resources(tags: Tags, photoshop: bytes) -> bytes:
    """Photoshop's image resources; made of IPTC where a file has only that."""
    raw = tags.get(_IPTC)
    if photoshop or not raw:
        return photoshop
    return as_resource(raw if isinstance(raw, bytes) else struct.pack(f"<{len(raw)}I", *map(int, raw)))  # or LONG
