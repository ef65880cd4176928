"""What a picture's numbers mean, as PNG's chunks say it (W3C PNG, third edition, 11.3.2), and as an ICC profile."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Chunks = Sequence[tuple[bytes, bytes]]
_PRIMARIES = {  # ITU-T H.273, table 2: x and y of white, red, green, blue
    1: (0.3127, 0.3290, 0.640, 0.330, 0.300, 0.600, 0.150, 0.060),
    5: (0.3127, 0.3290, 0.640, 0.330, 0.290, 0.600, 0.150, 0.060),
    6: (0.3127, 0.3290, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.3140, 0.3510, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
_SRGB, _UNSAID = 1, 2
_GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}  # H.273, table 3; the camera's curves (1, 6, 14, 15) are shown by sRGB's
_LIKE_SRGB = (1, 2, 6, 13, 14, 15)
_HDR = {16: "PQ", 18: "HLG"}
_D50 = (0.9642, 1.0, 0.8249)
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)  # IEC 61966-2-1 as ICC's parametric curve 3


def cicp(primaries: int, transfer: int) -> tuple[tuple[bytes, bytes], ...]:
    """The chunk for RGB of these code points (H.273), full range; none where they say no more than sRGB does."""
    if (primaries in (_SRGB, _UNSAID, 5, 6) and transfer in _LIKE_SRGB) or max(primaries, transfer) > 255:
        return ()
    return ((b"cICP", bytes((primaries, transfer, 0, 1))),)


def hdr(chunks: Chunks) -> str | None:
    """PQ or HLG, if the numbers are those: no 8-bit format and no ICC profile says so."""
    return next((_HDR.get(content[1]) for kind, content in chunks if kind == b"cICP" and len(content) == 4), None)


def icc_profile(chunks: Chunks) -> bytes | None:
    """An ICC profile that says what the chunks say; empty if that is sRGB; None if no profile can say it."""
    said = dict(chunks)
    primaries: tuple[float, ...] | None = _PRIMARIES[_SRGB]
    curve: tuple[float, ...] = _SRGB_CURVE
    if len(code := said.get(b"cICP", b"")) == 4:
        if code[1] not in _LIKE_SRGB and code[1] not in _GAMMAS:
            return None
        primaries = _PRIMARIES.get(_SRGB if code[0] == _UNSAID else code[0])
        if code[1] in _GAMMAS:
            curve = (_GAMMAS[code[1]],)
    elif b"sRGB" not in said:
        gamma = int.from_bytes(said.get(b"gAMA", b""), "big")
        if gamma and abs(gamma / 45455 - 1) > 0.02:  # that is what sRGB pictures have there
            curve = (100000 / gamma,)
        if len(corners := said.get(b"cHRM", b"")) == 32:
            primaries = tuple(value / 100000 for value in struct.unpack(">8I", corners))
    if primaries is None:
        return None
    if curve == _SRGB_CURVE and np.allclose(primaries, _PRIMARIES[_SRGB], atol=0.002):
        return b""
    try:
        return _profile(_columns(primaries), curve)
    except (np.linalg.LinAlgError, ZeroDivisionError, struct.error, OverflowError, ValueError):
        return None  # corners that span nothing


def _columns(primaries: tuple[float, ...]) -> NDArray[Any]:
    """XYZ of red, green and blue under D50: [3, 3], a column each (Lindbloom; Bradford's adaptation)."""
    white, *corners = (np.array([x / y, 1, (1 - x - y) / y]) for x, y in zip(primaries[::2], primaries[1::2]))
    matrix = np.stack(corners, axis=1)
    matrix = matrix * np.linalg.solve(matrix, white)
    cones = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ matrix
    if not np.isfinite(adapted).all():
        raise ValueError("no colour space")
    return adapted


def _profile(columns: NDArray[Any], curve: tuple[float, ...]) -> bytes:
    """A display profile of matrix and curve (ICC.1:2022, 8.3.3)."""

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(float(value) * 65536) for value in values))

    def text(words: str) -> bytes:
        encoded = words.encode("utf-16-be")
        return b"mluc" + struct.pack(">IIIHHII", 0, 1, 12, 0x656E, 0x5553, len(encoded), 28) + encoded

    parametric = b"para" + struct.pack(">IHH", 0, 3 if len(curve) > 1 else 0, 0) + fixed(*curve)
    white = b"XYZ \0\0\0\0" + fixed(*_D50)
    contents = {b"desc": text("Colours of the original"), b"cprt": text("None"), b"wtpt": white}
    for name, column in zip((b"r", b"g", b"b"), columns.T):
        contents[name + b"XYZ"] = b"XYZ \0\0\0\0" + fixed(*column)
        contents[name + b"TRC"] = parametric
    table, body = b"", b""
    start = 128 + 4 + 12 * len(contents)
    for name, content in contents.items():
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4x4s4s4s4s", start + len(body), b"\x04\x30\0\0", b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + fixed(*_D50)
    return header.ljust(128, b"\0") + struct.pack(">I", len(contents)) + table + body
