"""Dolby Vision in other clothes than an MP4's: a descriptor in MPEG-TS, or only the data among the pictures (RPU)."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import av

_PMT = 0x1000  # where FFmpeg puts the table of streams


def remuxed(source: Path, kind: str) -> bytes:
    """A clip's video in another container; in Matroska with its Dolby Vision record."""
    file = io.BytesIO()
    with av.open(str(source)) as old, av.open(file, "w", kind, container_options={"strict": "unofficial"}) as new:
        copy = new.add_stream_from_template(old.streams.video[0], opaque=True)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = copy
                new.mux(packet)
    return file.getvalue()


def with_descriptor(ts: bytes, profile: int) -> bytes:
    """MPEG-TS with Dolby's descriptor ("Dolby Vision Streams Within the MPEG-2 Transport Stream Format" 1.2)."""
    descriptor = struct.pack(">BBBBHB", 0xB0, 5, 1, 0, profile << 9 | 6 << 3 | 0b101, 0x0F)
    changed = bytearray(ts)
    for at in range(0, len(ts), 188):
        if struct.unpack_from(">H", ts, at + 1)[0] & 0x1FFF != _PMT:
            continue
        start = at + 5
        length = struct.unpack_from(">H", ts, start + 1)[0] & 0xFFF
        section = bytearray(ts[start : start + 3 + length - 4])
        stream = 12 + (struct.unpack_from(">H", section, 10)[0] & 0xFFF)
        described = struct.unpack_from(">H", section, stream + 3)[0] & 0xFFF
        section[stream + 5 + described : stream + 5 + described] = descriptor
        struct.pack_into(">H", section, stream + 3, 0xF000 | described + len(descriptor))
        struct.pack_into(">H", section, 1, 0xB000 | length + len(descriptor))
        section += struct.pack(">I", _crc(section))
        changed[start : at + 188] = (bytes(section) + b"\xff" * 188)[: at + 188 - start]
    return bytes(changed)


def _crc(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


def with_rpu(hevc: bytes, profile: int, full_range: int) -> bytes:
    """Raw HEVC with an RPU after each picture (ETSI GS CCM 001, annex): profile 0 of full range is Dolby Vision 5."""
    bits = ""

    def fixed(*fields: tuple[int, int]) -> None:
        nonlocal bits
        bits += "".join(f"{value:0{size}b}" for size, value in fields)

    def golomb(*values: int) -> None:
        nonlocal bits
        for value in values:
            code = f"{value + 1:b}"
            bits += "0" * (len(code) - 1) + code

    fixed((8, 25), (6, 2), (11, 18), (4, profile), (4, 0), (1, 1), (1, 0), (2, 0))
    golomb(23)  # bits of a fraction
    fixed((2, 1), (1, full_range))
    golomb(2, 2, 4)  # bits over 8 of base layer, enhancement layer and picture
    fixed((1, 0), (3, 0), (1, 0), (1, 1), (1, 0), (1, 0))
    golomb(0, 0, 0)
    for _ in range(3):
        golomb(0)
        fixed((10, 0), (10, 1023))  # a curve of two pivots
    golomb(0, 0)
    for _ in range(3):
        golomb(0, 0)
        fixed((1, 0))
        for coefficient in (0, 1):
            golomb(2 * coefficient)
            fixed((23, 0))
    bits += "0" * (-len(bits) % 8)
    payload = int(bits, 2).to_bytes(len(bits) // 8) + bytes(4) + b"\x80"  # nobody checks its sum
    unit = bytearray(b"\0\0\0\1\x7c\x01")
    for byte in payload:
        if byte <= 3 and unit[-2:] == b"\0\0":
            unit.append(3)  # so that no start code comes out
        unit.append(byte)
    with av.open(io.BytesIO(hevc), format="hevc") as container:
        pictures: list[Any] = [bytes(packet) for packet in container.demux() if packet.size]
    return b"".join(picture + bytes(unit) for picture in pictures)
