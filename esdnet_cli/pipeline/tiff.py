"""TIFF's first directory (TIFF 6.0, BigTIFF): which files OpenCV reads as meant, and what it does not write."""

from __future__ import annotations

import math
import re
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet_cli.pipeline.directories import LONG, Directory, entries, numbers, packed, read_directory, values
from esdnet_cli.pipeline.metadata import Density, Metadata, as_resource, checked_icc, iptc_of, without_thumbnails

_BITS, _COMPRESSION, _PHOTOMETRIC, _DESCRIPTION, _ORIENTATION, _SAMPLES = 258, 259, 262, 270, 274, 277
_X_DENSITY, _Y_DENSITY, _PLANAR, _DENSITY_UNIT, _SUBFILE = 282, 283, 284, 296, 254
_SAMPLE_FORMAT, _UNSIGNED = 339, 1
_EXIF, _GPS, _MAKER_NOTE, _INTEROPERABILITY = 34665, 34853, 37500, 40965
# of the first directory: make, model, dates, rights, what Windows shows, where it lies on Earth ...
_OF_EXIF = (269, 271, 272, 274, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096))
_OF_EXIF += (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)
_EXTRA_SAMPLES, _XMP, _IPTC, _PHOTOSHOP, _ICC, _LAYERED, _DNG_VERSION = 338, 700, 33723, 34377, 34675, 37724, 50706
# of the blocks in Photoshop's own document beside the picture (its TIFF technical notes of 2002); in either byte order
_LAYERS = re.compile(rb"8BIM(?:Layr|Lr16|Lr32)|MIB8(?:ryaL|61rL|23rL)")
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
_DEFLATE, _NO_LONG_ZEROS = {8, 32946}, {5, 32773}
_FILL_ORDER, _COLOUR_MAP = 266, 320
_UNSPECIFIED, _ALPHA = 0, 2  # extra samples
_HOLE = 512  # bytes; LZW and PackBits make few of many zeros
_UNITS = {1: 0.0, 2: 1 / 0.0254, 3: 100.0}

Tags = dict[int, tuple[float, ...] | bytes]


def is_tiff(data: bytes) -> bool:
    """By its first bytes; classic or BigTIFF."""
    return data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_tags(data: bytes) -> Tags:
    """The first directory: values of each tag (bytes as they are; a fraction as numerator, denominator).

    A file that is cut short or nonsense yields what it has.
    """
    return {tag: values(data, *where) for tag, *where in entries(data)}


def plain(data: bytes) -> bytes:
    """A file as OpenCV reads it well.

    Alpha of 8 bits is said to be of no known meaning, else it is multiplied into the colours; and the picture not to be
    turned, else tiles of 8 bits are, each by itself.
    """
    meanings = {_EXTRA_SAMPLES: _UNSPECIFIED, _ORIENTATION: 1}
    for tag, _, place, form in numbers(data):
        if tag in meanings:
            value = struct.pack(form, meanings[tag])
            data = data[:place] + value + data[place + len(value) :]
    return data


def is_damaged(data: bytes, tags: Tags) -> bool:
    """Are parts of 8 bits missing, of which OpenCV says nothing?

    Do they, or the list of where they are, lie beyond the file's end, or, compressed, not unpack to their checksum, or
    hold long zeros?
    """
    compression, planar = _one(tags, _COMPRESSION, 1), _one(tags, _PLANAR, 1)
    places, sizes = (tags.get(strips) or tags.get(tiles) or () for strips, tiles in ((273, 324), (279, 325)))
    if not places:
        return True
    # of one plane OpenCV reads to the end, and some writers say a little too much
    if any(place + (size if planar == 2 else 0) > len(data) for place, size in zip(places, sizes)):
        return True
    if _one(tags, _FILL_ORDER, 1) != 1:  # bits the other way round
        return False
    for place, size in zip(places, sizes):
        part = data[int(place) : int(place) + int(size)]
        if compression in _DEFLATE and not _unpacks(part):
            return True
        if compression in _NO_LONG_ZEROS and bytes(_HOLE) in part:
            return True
    return False


def _unpacks(part: bytes) -> bool:
    unpacker, rest = zlib.decompressobj(), part
    try:
        while rest and not unpacker.eof:
            unpacker.decompress(rest, 1 << 20)
            rest = unpacker.unconsumed_tail
    except zlib.error:
        return False
    return True


def why_not_read(tags: Tags) -> str | None:
    """What OpenCV does not read, or reads as something else than is meant; None if it reads the file as it is meant."""
    bits, samples, planar = tags.get(_BITS) or (1,), _one(tags, _SAMPLES, 1), _one(tags, _PLANAR, 1)
    compression, photometric = _one(tags, _COMPRESSION, 1), _one(tags, _PHOTOMETRIC, _BLACK_IS_ZERO)
    if _DNG_VERSION in tags or _one(tags, _SUBFILE, 0) & 1:
        return "a camera raw file, and only its small preview could be read; develop it first"
    if compression not in _COMPRESSIONS:
        name = _COMPRESSION_NAMES.get(compression, f"of kind {compression}")
        return f"TIFF with {name} compression; save it with LZW or Deflate, or as PNG"
    if photometric not in _COLOURS:
        return f"TIFF with {_COLOUR_NAMES.get(photometric, f'colours of kind {photometric}')}; save it as RGB"
    if len(set(bits)) > 1 or bits[0] not in (1, 8, 10, 12, 14, 16, 32, 64):  # 32 and 64: said by their type
        return f"TIFF of {'/'.join(f'{depth:g}' for depth in bits)} bits; save it with 8 or 16"
    if photometric == _PALETTE and bits[0] < 8:
        return f"TIFF with a palette of {bits[0]:g} bits, which OpenCV reads in grey; save it as PNG"
    if photometric == _PALETTE and len(tags.get(_COLOUR_MAP) or ()) < 3 << int(bits[0]):
        return "TIFF with a palette that is missing or cut off; copy it again"
    if photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO) and samples > 2:
        return f"TIFF of {samples} channels that are no colours; save it as RGB, or each of them by itself"
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
    """OpenCV's pixels as they are meant: of more than 8 bits black as 0 and white as 65535."""
    bits = int(_one(tags, _BITS, 1))
    if _one(tags, _PHOTOMETRIC, 1) == _INKS:
        return pixels[..., :3]  # colours by now, beside an alpha that it has not
    if _has_unknown_channel(tags) and pixels.ndim == 3:
        pixels = pixels[..., :3]
    if pixels.dtype != np.uint16:
        return pixels
    if 8 < bits < 16:  # OpenCV puts them into the upper bits and leaves the lower ones at 0
        pixels = pixels | pixels >> bits
    return ~pixels if _one(tags, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO else pixels


def _has_unknown_channel(tags: Tags) -> bool:
    """Beside the colours one that is said to be no alpha: a selection of Photoshop's, a satellite's infrared."""
    return _one(tags, _EXTRA_SAMPLES, _ALPHA) == _UNSPECIFIED


def read_metadata(data: bytes) -> tuple[Metadata, set[str]]:
    """What a TIFF's tags hold, and what of it cannot be kept."""
    tags = read_tags(data)
    blobs = {tag: _bytes(tags, tag) for tag in (_XMP, _PHOTOSHOP, _ICC, _DESCRIPTION)}
    profile = checked_icc(blobs[_ICC])
    comments = tuple(filter(None, (blobs[_DESCRIPTION].rstrip(b"\0"),)))
    lost = {"ICC profile, which is broken"} if blobs[_ICC] and not profile else set()
    if _LAYERS.search(_bytes(tags, _LAYERED)):
        lost.add("layers")
    if _has_unknown_channel(tags):
        lost.add("a channel of unspecified meaning")
    lost |= maker_notes(data)
    iptc = without_thumbnails(blobs[_PHOTOSHOP]) or next(
        (
            as_resource(data[at : at + count * (4 if kind == LONG else 1)])
            for tag, kind, count, at in entries(data)
            if tag == _IPTC
        ),
        b"",
    )  # as it lies there, whether it is said to be bytes or LONG
    return Metadata(_exif_block(data), profile, blobs[_XMP], iptc, comments, density(tags)), lost


def maker_notes(data: bytes) -> set[str]:
    """What of a TIFF's or EXIF block's notes no TIFF of ours has: see `_exif_directories`."""
    pointers = [value for tag, value, *_ in numbers(data) if tag == _EXIF]
    noted = any(tag == _MAKER_NOTE for pointer in pointers for tag, *_ in entries(data, pointer))
    return {"the maker's notes"} if noted else set()


def density(tags: Tags) -> Density | None:
    """Dots along both axes, of a TIFF or EXIF block."""
    x, y = tags.get(_X_DENSITY, ()), tags.get(_Y_DENSITY, ())
    if len(x) != 2 or len(y) != 2 or not all(0 < number < math.inf for number in (*x, *y)):
        return None
    units = _UNITS.get(int(_one(tags, _DENSITY_UNIT, 2)), 0.0)
    return Density(x[0] / x[1], y[0] / y[1], units) if units or x[0] * y[1] != y[0] * x[1] else None


def with_metadata(data: bytes, metadata: Metadata, alpha: bool) -> bytes:
    """An encoded TIFF (OpenCV's: classic, little-endian) with these tags besides its own; and with what `alpha` is."""
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    lines = [data[position : position + 12] for position in range(start + 2, start + 2 + 12 * count, 12)]
    directory, below = _exif_directories(metadata.exif)
    blobs = {_ICC: metadata.icc, _XMP: metadata.xmp, _PHOTOSHOP: metadata.iptc, _IPTC: iptc_of(metadata.iptc)}
    directory |= {tag: (7 if tag == _ICC else 1, len(content), content) for tag, content in blobs.items() if content}
    if metadata.comments:
        description = b"\n".join(metadata.comments) + b"\0"
        directory[_DESCRIPTION] = 2, len(description), description
    elif described := read_directory(metadata.exif).get(_DESCRIPTION):
        directory[_DESCRIPTION] = described
    if metadata.density is not None:
        density = metadata.density
        units = {0.0: 1, 100.0: 3}.get(density.units, 2)
        dots = density.per_inch if units == 2 else (density.x, density.y)  # TIFF knows inches and centimetres
        if max(dots) < 1 << 22:
            for tag, value in zip((_X_DENSITY, _Y_DENSITY), dots):
                directory[tag] = 5, 1, struct.pack("<II", round(value * 1000), 1000)
            directory[_DENSITY_UNIT] = 3, 1, struct.pack("<H", units)
    if alpha:
        directory[_EXTRA_SAMPLES] = 3, 1, struct.pack("<H", _ALPHA)
    gap = bytes(len(data) % 2)
    kept = {struct.unpack_from("<H", line)[0]: line for line in lines}
    added, place = packed(directory, below, len(data) + len(gap), kept)
    return b"".join((data[:4], struct.pack("<I", place), data[8:], gap, added))


def _exif_block(data: bytes) -> bytes:
    """A TIFF's EXIF as a block of its own, upright as OpenCV turns the picture; empty if it has none."""
    directory, below = _exif_directories(data)
    if not below and not directory.keys() - {_ORIENTATION}:
        return b""
    directory[_ORIENTATION] = 3, 1, struct.pack("<H", 1)
    content, place = packed(directory, below, 8, {})
    return b"II*\0" + struct.pack("<I", place) + content


def _exif_directories(data: bytes) -> tuple[Directory, dict[int, Directory]]:
    """What describes the picture in a TIFF's or EXIF block's first directory, and the directories of EXIF and GPS.

    Without the maker's notes, whose own pointers would lead nowhere in another file.
    """
    first = read_directory(data)
    below = {}
    for pointer in (_EXIF, _GPS):
        if pointer in first:
            lower = read_directory(data, int.from_bytes(first[pointer][2], "little"))
            below[pointer] = {tag: lower[tag] for tag in lower if tag not in (_MAKER_NOTE, _INTEROPERABILITY)}
    return {tag: first[tag] for tag in _OF_EXIF if tag in first}, below


def _one(tags: Tags, tag: int, default: int) -> int:
    return int(tags[tag][0]) if tags.get(tag) else default


def _bytes(tags: Tags, tag: int) -> bytes:
    value = tags.get(tag, b"")
    return value if isinstance(value, bytes) else b""
