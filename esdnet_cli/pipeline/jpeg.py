"""JPEG's segments (ITU-T T.81, annex B): what OpenCV does not read of them, and writes none of."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

from esdnet_cli.pipeline import tiff
from esdnet_cli.pipeline.directories import numbers
from esdnet_cli.pipeline.metadata import Density, Metadata, checked_icc, without_thumbnails

_EOI, _SOS, _DHT, _DRI = 0xD9, 0xDA, 0xC4, 0xDD
_APP0, _APP1, _APP2, _APP13, _COM = 0xE0, 0xE1, 0xE2, 0xED, 0xFE
_ALONE = {0x01, *range(0xD0, 0xDA)}  # markers without a length
_RESTARTS = range(0xD0, 0xD8)
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15
_SEQUENTIAL = {0xC0, 0xC1}  # of these, such as write a block as a whole, by Huffman's codes
_AMID = {_DHT, 0xCC, *range(_SOS, 0xDE), *range(_APP0, 0xF0), _COM}  # what may follow a scan's data
_MARKER = re.compile(rb"\xff[^\0\xff]")
_END_OF_BLOCK = 0x00  # of AC coefficients
_NO_ZEROS = 64  # bytes in a row, which are 170 coefficients of a block of 64 or more where they are no end of a block
_SOF55 = 0xF7  # JPEG-LS (ITU-T T.87)
_LARGEST = 65533  # bytes in a segment
_EXIF, _XMP, _MORE_XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_ICC, _MPF, _GAIN_MAP = b"ICC_PROFILE\0", b"MPF\0", b"urn:iso:std:iso:ts:21496:-1\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_PICTURES = 0xB001  # MPF's NumberOfImages (CIPA DC-007)
_JFIF_UNITS = {0: 0.0, 1: 1 / 0.0254, 2: 100.0}  # dots by inch and by centimetre: units that make a metre


def why_not_decoded(data: bytes) -> str | None:
    """What OpenCV cannot decode about a JPEG: its bits or its process; None if it is an ordinary one."""
    for marker, content in _segments(data):
        if marker == _SOF55:
            return "JPEG-LS"
        if marker in _FRAMES and content:
            if marker in (0xC3, 0xC7, 0xCB, 0xCF):
                return "lossless JPEG"
            if content[0] != 8:
                return f"JPEG of {content[0]} bits"
            if marker in (0xC5, 0xC6, 0xCD, 0xCE):
                return "hierarchical JPEG"
    return None


def fault(data: bytes) -> str | None:
    """What shows that a JPEG is damaged; None if up to its end it is such as an encoder writes.

    Where a part was not copied there are zeros, or what lay there before, and a decoder makes something of either. In 4
    KiB of something else 0xFF stands fifteen times before a byte that no encoder puts there, on average; and zeros in a
    row mean something only where they are the code for flat blocks.
    """
    scanning = sequential = zeros = False  # zeros: in the scan under way they may stand in a row
    interval = restarts = begun = 0
    tables: dict[int, int] = {}
    for start, end, marker, content in _markers(data):
        hole = -1 if zeros or not scanning else data.find(bytes(_NO_ZEROS), begun, start)
        # what fills up behind the last block costs nothing
        if hole >= 0 and (marker != _EOI or data[hole:start].strip(b"\0")):
            return "a part of its data is zeros"
        if scanning and marker == _EOI:
            return None
        if scanning and marker in _RESTARTS:
            if not interval or marker - _RESTARTS[0] != restarts % 8:
                return "a part of its data is missing"
            restarts += 1
        elif scanning and (marker not in _AMID or (marker == _SOS and len(content) != 4 + 2 * sum(content[:1]))):
            return "a part of its data is something else"
        begun = end
        if marker in _FRAMES:
            sequential = marker in _SEQUENTIAL
        elif marker == _DHT:
            tables |= _shortest_codes(content)
        elif marker == _DRI:
            interval = int.from_bytes(content, "big")
        elif marker == _SOS:
            scanning, restarts = True, 0
            flat = all(tables.get(chosen & 15) == _END_OF_BLOCK for chosen in content[2:-3:2])
            zeros = not sequential or flat
    return "it has no end"


def read_metadata(data: bytes) -> tuple[Metadata, set[str]]:
    """What a JPEG's segments hold, and what belongs to it that lies behind the picture or cannot be kept.

    EXIF of more than a segment goes on in the next one. An ICC profile is put together by the numbers of its segments;
    one that is not whole, or none, is left out.
    """
    exif, photoshop = bytearray(), bytearray()  # which grow in place, however many segments there are
    xmp = b""
    density = None
    icc: dict[int, bytes] = {}
    comments = []
    lost = set()
    further = 0
    for marker, content in _segments(data):
        if marker == _APP0 and content[:5] == b"JFIF\0" and len(content) >= 12:
            unit, x, y = struct.unpack_from(">BHH", content, 7)
            if unit in _JFIF_UNITS and x and y and (unit or x != y):
                density = Density(x, y, _JFIF_UNITS[unit])
        elif marker == _APP1 and content.startswith(_EXIF):
            if not (exif and tiff.is_tiff(content[len(_EXIF) :])):  # a block of its own is a second one
                exif += content[len(_EXIF) :]
        elif marker == _APP1 and content.startswith(_XMP):
            xmp = xmp or content[len(_XMP) :]
        elif marker == _APP1 and content.startswith(_MORE_XMP):
            lost.add("extended XMP")
        elif marker == _APP2 and content.startswith(_ICC) and len(content) > 14:
            icc.setdefault(content[12], content[14:])
        elif marker == _APP2 and content.startswith(_GAIN_MAP):
            lost.add("gain map")
        elif marker == _APP2 and content.startswith(_MPF):
            further = max(further, _pictures(content[len(_MPF) :]) - 1)
        elif marker == _APP13 and content.startswith(_PHOTOSHOP):
            photoshop += content[len(_PHOTOSHOP) :]
        elif marker == _COM:
            comments.append(content)
    density = density or tiff.density(tiff.read_tags(bytes(exif)))
    profile = checked_icc(b"".join(icc[number] for number in sorted(icc)))
    if icc and not profile:
        lost.add("ICC profile, which is broken")
    if b"MotionPhoto_Data" in data[-(1 << 28) :]:
        lost.add("motion clip")
    if further > 0 and "gain map" not in lost:
        lost.add("further picture" if further == 1 else f"{further} further pictures")
    return Metadata(bytes(exif), profile, xmp, without_thumbnails(bytes(photoshop)), tuple(comments), density), lost


def unwritable(metadata: Metadata) -> set[str]:
    """The fields that no JPEG has room for."""
    parts = {
        "xmp": _XMP + metadata.xmp,
        "comments": max(metadata.comments, key=len, default=b""),
    }
    too_long = {name for name, content in parts.items() if len(content) > _LARGEST}
    if len(metadata.icc) > 255 * (_LARGEST - 14):
        too_long.add("icc")
    return too_long


def with_metadata(data: bytes, metadata: Metadata) -> bytes:
    """An encoded JPEG with these segments in place of its JFIF one."""
    segments = []
    density = metadata.density or Density(1, 1, 0)
    unit = {0.0: 0, 100.0: 2}.get(density.units, 1)
    x, y = density.per_inch if unit == 1 else (density.x, density.y)
    if not (1 <= round(x) <= 65535 and 1 <= round(y) <= 65535):
        unit, x, y = 0, 1, 1
    segments.append((_APP0, b"JFIF\0" + struct.pack(">HBHHBB", 0x0101, unit, round(x), round(y), 0, 0)))
    segments += [(_APP1, _EXIF + part) for part in _split(metadata.exif, _LARGEST - len(_EXIF))]
    if metadata.xmp:
        segments.append((_APP1, _XMP + metadata.xmp))
    parts = _split(metadata.icc, _LARGEST - 14)
    segments += [(_APP2, _ICC + bytes((number, len(parts))) + part) for number, part in enumerate(parts[:255], 1)]
    segments += [(_APP13, _PHOTOSHOP + part) for part in _split(metadata.iptc, _LARGEST - len(_PHOTOSHOP))]
    segments += [(_COM, comment) for comment in metadata.comments]
    packed = b"".join(struct.pack(">BBH", 0xFF, marker, 2 + len(content)) + content for marker, content in segments)
    skip = 4 + len(next(content for _, content in _segments(data))) if data[2:4] == b"\xff\xe0" else 0
    return data[:2] + packed + data[2 + skip :]


def _split(content: bytes, length: int) -> list[bytes]:
    return [content[start : start + length] for start in range(0, len(content), length)]


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and content of each segment before the first scan; as far as they can be read."""
    for _, _, marker, content in _markers(data):
        if marker == _SOS:
            return
        if marker not in _ALONE:
            yield marker, content


def _markers(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Where each marker's segment begins and ends, the marker, and the segment's content; as far as can be read.

    Stray bytes and fill bytes are passed over, and so are the data of scans.
    """
    position = 0
    while found := _MARKER.search(data, position):
        position, marker = found.end(), data[found.end() - 1]
        content = b""
        if marker not in _ALONE:
            length = int.from_bytes(data[position : position + 2], "big")
            if length < 2:
                return
            content = data[position + 2 : position + length]
            position += length
        yield found.start(), position, marker, content


def _shortest_codes(content: bytes) -> dict[int, int]:
    """What a code of zeros alone stands for in each of a DHT segment's tables of AC coefficients, by their numbers."""
    codes = {}
    while len(content) > 17:
        kind, count = content[0], sum(content[1:17])
        if kind & 0x10 and count:
            codes[kind & 15] = content[17]
        content = content[17 + count :]
    return codes


def _pictures(block: bytes) -> int:
    return next((value for tag, value, *_ in numbers(block) if tag == _PICTURES), 1)
