"""PNG's chunks (W3C PNG, third edition): what OpenCV does not read or write of them, and grey with alpha."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet_cli.errors import printable
from esdnet_cli.pipeline.metadata import Density, Metadata, checked_icc

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR = (b"cICP", b"mDCV", b"cLLI", b"sRGB", b"gAMA", b"cHRM")  # what the numbers mean, in the order of their weight
_XMP = b"XML:com.adobe.xmp"
_COMMENTS = (b"Comment", b"Description")
_OF_PROGRAMS = (b"Software", b"date:", b"Raw profile", b"png:", b"exif:", b"icc:", b"jpeg:", b"xmp:", b"Thumb::")
_LARGEST = 16 << 20  # bytes of a text or profile when unpacked: a bomb is passed over


def is_whole(data: bytes) -> bool:
    """Do a PNG's chunks reach its IEND, each as its checksum says?"""
    kind = b""
    for kind, content, checksum in _chunks(data):
        if zlib.crc32(kind + content) != checksum:
            return False
    return kind == b"IEND"


def read_metadata(data: bytes) -> tuple[Metadata, set[str]]:
    """What a PNG's chunks hold, and what of it cannot be kept."""
    exif = icc = xmp = b""
    density = None
    colour, text, comments = [], [], []
    lost = set()
    for kind, content, _ in _chunks(data):
        if kind in _COLOUR:
            colour.append((kind, content))
        elif kind == b"iCCP":
            icc = checked_icc(_unpacked(content.partition(b"\0")[2][1:]))
            if not icc:
                lost.add("ICC profile, which is broken")
        elif kind == b"eXIf":
            exif = content
        elif kind == b"pHYs" and len(content) == 9:
            x, y, unit = struct.unpack(">IIB", content)
            if x and y and (unit == 1 or x != y):
                density = Density(x, y, 1.0 if unit == 1 else 0.0)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            keyword, value = _text(kind, content)
            if keyword == _XMP:
                xmp = xmp or value
            elif keyword in (b"Raw profile type exif", b"Raw profile type APP1"):  # ImageMagick's, before eXIf
                exif = exif or _raw_profile(value)
            elif keyword == b"Raw profile type xmp":
                xmp = xmp or _raw_profile(value)
            else:
                text.append((kind, content))
                if keyword in _COMMENTS:
                    comments.append(value)
    exif = exif.removeprefix(b"Exif\0\0")
    return Metadata(exif, icc, xmp, b"", tuple(comments), density, tuple(colour), tuple(text)), lost


def with_metadata(data: bytes, metadata: Metadata) -> bytes:
    """An encoded PNG with these chunks besides its own."""
    chunks = list(metadata.colour)
    if metadata.icc:
        chunks.append((b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc)))
    if metadata.density is not None:
        density = metadata.density
        x, y = (round(dots * (density.units or 1)) for dots in (density.x, density.y))
        if 0 < x < 1 << 31 and 0 < y < 1 << 31:
            chunks.append((b"pHYs", struct.pack(">IIB", x, y, 1 if density.units else 0)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif))
    if metadata.xmp:
        chunks.append((b"iTXt", _XMP + b"\0\0\0\0\0" + metadata.xmp))
    # texts of a PNG hold its comments already
    chunks += metadata.text or [(b"iTXt", b"Comment\0\0\0\0\0" + _utf8(comment)) for comment in metadata.comments]
    header = len(SIGNATURE) + 25  # IHDR, which comes first
    return data[:header] + b"".join(_chunk(*chunk) for chunk in chunks) + data[header:]


def further_keywords(text: tuple[tuple[bytes, bytes], ...]) -> list[str]:
    """Of text chunks that people wrote and that are no comments, such as Author and Copyright."""
    keywords = {content.partition(b"\0")[0] for _, content in text}
    return sorted(
        printable(word.decode("latin-1"))
        for word in keywords
        if 0 < len(word) < 80 and not word.startswith((*_COMMENTS, *_OF_PROGRAMS))
    )


def transparent_grey(data: bytes) -> tuple[int, int] | None:
    """The grey that a PNG's tRNS makes transparent, and the bits that it is counted in; None if there is none."""
    header: tuple[int, int] | None = None
    for kind, content, _ in _chunks(data):
        if kind == b"IHDR" and len(content) == 13:
            header = content[8], content[9]
        elif kind == b"tRNS" and header is not None and header[1] == 0 and len(content) == 2:
            return int.from_bytes(content, "big") & ((1 << header[0]) - 1), header[0]
        elif kind == b"IDAT":
            break
    return None


def encode_grey_alpha(grey: NDArray[Any], alpha: NDArray[Any]) -> bytes:
    """PNG of two channels, which OpenCV does not write: [H, W] uint8 or uint16 each."""
    height, width = grey.shape
    pixels = np.ascontiguousarray(np.dstack((grey, alpha)).astype(grey.dtype.newbyteorder(">")))
    rows = pixels.view(np.uint8).reshape(height, -1)
    behind = rows.copy()
    step = 2 * grey.itemsize
    behind[:, step:] -= rows[:, :-step]  # filter 1: difference to the pixel on the left
    filtered = np.concatenate((np.ones((height, 1), np.uint8), behind), axis=1)
    size = struct.pack(">IIBBBBB", width, height, 8 * grey.itemsize, 4, 0, 0, 0)
    chunks = ((b"IHDR", size), (b"IDAT", zlib.compress(filtered.tobytes())), (b"IEND", b""))
    return SIGNATURE + b"".join(_chunk(*chunk) for chunk in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, int]]:
    """Kind, content and checksum of each chunk up to IEND, as far as they are whole."""
    position = len(SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            return
        yield kind, data[position + 8 : end], struct.unpack_from(">I", data, end)[0]
        if kind == b"IEND":
            return
        position = end + 4


def _text(kind: bytes, content: bytes) -> tuple[bytes, bytes]:
    """Keyword and text of a text chunk, unpacked."""
    keyword, _, value = content.partition(b"\0")
    if kind == b"zTXt":
        return keyword, _unpacked(value[1:])
    if kind == b"iTXt":
        packed, rest = value[:1] == b"\1", value[2:].split(b"\0", 2)[-1]
        return keyword, _unpacked(rest) if packed else rest
    return keyword, value


def _unpacked(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, _LARGEST)
    except zlib.error:
        return b""


def _raw_profile(text: bytes) -> bytes:
    """What ImageMagick writes in hexadecimal after a line with the kind and one with the length."""
    match = re.fullmatch(rb"\s*\w[^\n]*\n\s*\d+\s+([0-9a-fA-F\s]*)", text)
    try:
        return bytes.fromhex(match[1].decode()) if match else b""
    except ValueError:
        return b""


def _utf8(text: bytes) -> bytes:
    try:
        return text.decode().encode()
    except UnicodeDecodeError:
        return text.decode("latin-1").encode()
