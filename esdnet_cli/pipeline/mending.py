"""What OpenCV takes for something else than is meant: put right where possible, else refused with the reason."""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet_cli.pipeline import avif, bmp, jpeg, png, tiff

_GAP = rb"(?:\s|#[^\r\n]*[\r\n])++"  # possessive: a header of blanks alone is looked at once
_PNM = re.compile(rb"P[2356]" + _GAP + rb"\d+" + _GAP + rb"\d+" + _GAP + rb"0*(\d{1,5})\s")
_PAM = re.compile(rb"P7\n(?:(?!ENDHDR)[^\n]*\n)*?ENDHDR\n")
_SUN = b"\x59\xa6\x6a\x95"
_JP2, _J2K = b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"
_XMP_END = b"</x:xmpmeta>"
_SIZ, _COD = b"\xff\x51", b"\xff\x52"
_JP2_COLOURS = {16, 17}  # sRGB, grey; sYCC (18) OpenCV takes for another kind of YUV


def why_not_read(data: bytes) -> str | None:
    """Why the picture would not come back as it is meant; None if OpenCV and `mended_pixels` read it well."""
    if (header := _PNM.match(data)) and int(header[1]) not in (255, 65535):
        return f"has values up to {int(header[1])}, not 255 or 65535; save it as PNG"
    if data.startswith(b"P7"):
        return _why_not_pam(data)
    if data.startswith(b"\xff\xd8"):
        if trouble := jpeg.why_not_decoded(data):
            return f"is of a kind that is not read ({trouble}); convert it to PNG"
        return f"is truncated or damaged: {fault}; copy it again" if (fault := jpeg.fault(data)) else None
    if tiff.is_tiff(data):
        tags = tiff.read_tags(data)
        if trouble := tiff.why_not_read(tags):
            return f"is {trouble}"
        return (
            "is truncated or damaged: parts of its data are missing; copy it again"
            if tiff.is_damaged(data, tags)
            else None
        )
    if data.startswith((_JP2, _J2K)):
        return _why_not_jpeg2000(data)
    if avif.is_avif(data) and len(avif.bits(data) - {8}) > 1:  # of which one is the picture's, who knows which
        return "is AVIF with parts of 10 and of 12 bits; save it as PNG with 16 bits"
    return None


def mended_file(data: bytes) -> bytes:
    """A file as OpenCV reads it well: see what the formats' modules do to it."""
    if tiff.is_tiff(data):
        return tiff.plain(data)
    if bmp.is_bmp(data):
        return bmp.plain(data)
    if avif.is_avif(data):
        return avif.with_room(data)
    if data[:2] in (b"P2", b"P3"):
        return data + b"\n"  # without one at the end the last number is missed
    return data


def mended_pixels(pixels: NDArray[Any], data: bytes) -> NDArray[Any]:
    """OpenCV's pixels as the file means them."""
    if data.startswith(png.SIGNATURE) and pixels.ndim == 2 and (key := png.transparent_grey(data)):
        return _with_transparent_grey(pixels, *key)
    if tiff.is_tiff(data):
        return tiff.mended(pixels, tiff.read_tags(data))
    if bmp.is_bmp(data):
        return bmp.meant(pixels, data)
    if is_grey_sun(data):
        return pixels[..., 0]
    if data.startswith((_JP2, _J2K)):
        return widened(pixels, _jpeg2000_bits(data)[0])
    if avif.is_avif(data) and pixels.dtype == np.uint16:
        return widened(pixels, max(avif.bits(data)))
    return pixels


def ends_early(pixels: NDArray[Any], data: bytes) -> bool:
    """Was a JPEG's data at an end before these pixels, so that the last ones are grey? OpenCV says nothing of it."""
    if not data.startswith(b"\xff\xd8") or (pixels[-1, -1] != 128).any():
        return False
    import av  # takes long to import, and few pictures are grey there

    strict = av.CodecContext.create("mjpeg", "r")
    strict.options = {"err_detect": "explode"}
    try:
        strict.decode(av.Packet(data))
    except av.error.InvalidDataError:
        return True
    return False


def is_grey_sun(data: bytes) -> bool:
    """Sun raster of 8 bits without a map of colours: OpenCV shows it black unless it is asked for colours."""
    return (
        data.startswith(_SUN)
        and len(data) >= 32
        and struct.unpack_from(">I", data, 12)[0] == 8
        and not any(data[28:32])
    )


def widened(pixels: NDArray[Any], bits: int) -> NDArray[Any]:
    """Numbers of so many bits as the full range of their dtype."""
    most = np.iinfo(pixels.dtype).max
    if (1 << bits) - 1 >= most:
        return pixels
    return ((pixels.astype(np.uint32) * most + (1 << (bits - 1))) // ((1 << bits) - 1)).astype(pixels.dtype)


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


def scanned_xmp(data: bytes) -> bytes:
    """The first XMP packet, found as XMP is made to be found, in formats of which OpenCV reads none."""
    start = data.find(b"<x:xmpmeta")
    end = data.find(_XMP_END, max(start, 0))
    return data[start : end + len(_XMP_END)] if 0 <= start < end else b""


def _with_transparent_grey(pixels: NDArray[Any], grey: int, bits: int) -> NDArray[Any]:
    """BGRA [H, W, 4] of grey [H, W]: transparent where it has that value, which counts in `bits`."""
    most = np.iinfo(pixels.dtype).max
    shown = grey if bits >= 8 else grey * most // ((1 << bits) - 1)
    alpha = np.where(pixels == shown, 0, most).astype(pixels.dtype)
    return np.dstack((pixels, pixels, pixels, alpha))


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


def _why_not_pam(data: bytes) -> str | None:
    """OpenCV swaps red and blue, and scales nothing: only grey of 8 or 16 bits comes back as it is meant."""
    header = _PAM.match(data)
    lines = [line.split(None, 1) for line in header[0].split(b"\n")] if header else []
    said = {line[0]: line[1] for line in lines if len(line) == 2}
    kind, most = said.get(b"TUPLTYPE", b"GRAYSCALE").strip(), said.get(b"MAXVAL", b"").strip()
    if said.get(b"DEPTH", b"").strip() == b"1" and kind == b"GRAYSCALE" and most in (b"255", b"65535"):
        return None
    return "is PAM of a kind that OpenCV reads wrong; save it as PNG"


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
    if data.startswith(_JP2) and 0 <= box < min(4096, len(data) - 10):
        (space,) = struct.unpack_from(">I", data, box + 7)
        if space not in _JP2_COLOURS:
            return f"is JPEG 2000 in colours of kind {space}, such as CMYK or YCC; save it as RGB"
    # OpenJPEG decodes what it gets: a half-copied file, the rest zeros, becomes half a picture
    empty_packets = 64
    if (cod := stream.find(_COD, 0, 65536)) >= 0 and cod + 10 <= len(stream):
        layers, levels = struct.unpack_from(">H", stream, cod + 6)[0], stream[cod + 9]
        empty_packets += layers * (levels + 1) * count * (256 if stream[cod + 4] & 1 else 1)
    if not stream.rstrip(b"\0").endswith(b"\xff\xd9") or bytes(empty_packets) in stream:
        return "is truncated or damaged: parts of its data are missing; copy it again"
    return None
