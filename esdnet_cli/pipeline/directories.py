"""Directories of tags as TIFF, BigTIFF and EXIF have them (TIFF 6.0, section 2): read here, written there."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

STRUCT_FORMATS = {1: "B", 2: "B", 3: "H", 4: "I", 5: "II", 6: "b", 7: "B", 8: "h", 9: "i", 10: "ii", 11: "f", 12: "d"}
STRUCT_FORMATS |= {13: "I", 16: "Q", 17: "q", 18: "Q"}
LONG = 4
_WHOLE = STRUCT_FORMATS.keys() - {2, 5, 7, 10, 11, 12}  # numbers that are no text, bytes, fractions or floats
Directory = dict[int, tuple[int, int, bytes]]  # of each tag: kind, count, content in Intel's byte order


def byte_order(data: bytes) -> str:
    """As struct wants it, by a file's first two bytes. Raises struct.error if they say neither."""
    if data[:2] not in (b"II", b"MM"):
        raise struct.error("no byte order")
    return "<" if data[:2] == b"II" else ">"


def entries(data: bytes, start: int | None = None) -> Iterator[tuple[int, int, int, int]]:
    """Tag, kind, count and place of the values of each entry of the first directory, or of the one at `start`.

    A file that is cut short or nonsense yields what it holds.
    """
    big = data[2:4] in (b"+\0", b"\0+")
    offset, counts, head, inline = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    try:
        order = byte_order(data)
        if start is None:
            (start,) = struct.unpack_from(order + offset, data, 8 if big else 4)
        (count_of_all,) = struct.unpack_from(order + counts, data, start)
        first = start + struct.calcsize(order + counts)
        for position in range(first, len(data), head)[: min(count_of_all, 4096)]:
            tag, kind, count = struct.unpack_from(f"{order}HH{offset}", data, position)
            size = struct.calcsize(order + STRUCT_FORMATS.get(kind, "")) * count
            place = position + head - inline
            if size > inline:
                (place,) = struct.unpack_from(order + offset, data, place)
            if kind in STRUCT_FORMATS and size <= len(data) - place:
                yield tag, kind, count, place
    except (struct.error, OverflowError):  # BigTIFF's numbers may be larger than any file
        return


def numbers(data: bytes, start: int | None = None) -> Iterator[tuple[int, int, int, str]]:
    """Tag, value, place and form (as struct takes it) of each entry that is one whole number, of whatever kind."""
    for tag, kind, count, place in entries(data, start):
        if count == 1 and kind in _WHOLE:
            form = byte_order(data) + STRUCT_FORMATS[kind]
            yield tag, struct.unpack_from(form, data, place)[0], place, form


def next_directory(data: bytes) -> tuple[int, int]:
    """Where the second directory of a classic file begins, and where that is said; zeros if there is none."""
    try:
        order = byte_order(data)
        (start,) = struct.unpack_from(order + "I", data, 4)
        place = start + 2 + 12 * struct.unpack_from(order + "H", data, start)[0]
        return struct.unpack_from(order + "I", data, place)[0], place
    except struct.error:
        return 0, 0


def values(data: bytes, kind: int, count: int, place: int) -> tuple[float, ...] | bytes:
    """An entry's values: bytes as they are; a fraction as numerator and denominator."""
    form = STRUCT_FORMATS[kind]
    if form == "B":
        return data[place : place + count]
    return struct.unpack_from(f"{byte_order(data)}{count * len(form)}{form[0]}", data, place)


def read_directory(data: bytes, start: int | None = None) -> Directory:
    """The first directory, or the one at `start`."""
    found: Directory = {}
    for tag, kind, count, place in entries(data, start):
        content = values(data, kind, count, place)
        if not isinstance(content, bytes):
            content = struct.pack(f"<{len(content)}{STRUCT_FORMATS[kind][0]}", *content)
        found[tag] = kind, count, content
    return found


def packed(
    directory: Directory, below: Mapping[int, Directory], at: int, kept: Mapping[int, bytes]
) -> tuple[bytes, int]:
    """A directory and those `below` it, by the tag that points there, for position `at` (even) of a classic TIFF; and
    where it begins.

    kept: further entries of it, as they stand in the file already.
    """
    data = b""
    lines = dict(kept)
    for pointer, lower in below.items():
        content, place = packed(lower, {}, at + len(data), {})
        data += content
        lines[pointer] = struct.pack("<HHII", pointer, LONG, 1, place)
    for tag, (kind, count, content) in directory.items():
        value = content.ljust(4, b"\0")
        if len(content) > 4:
            value = struct.pack("<I", at + len(data))
            data += content + bytes(len(content) % 2)
        lines[tag] = struct.pack("<HHI", tag, kind, count) + value
    table = struct.pack("<H", len(lines)) + b"".join(lines[tag] for tag in sorted(lines)) + bytes(4)
    return data + table, at + len(data)
