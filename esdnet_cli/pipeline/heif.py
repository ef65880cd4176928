"""HEIC and HEIF, which phones and cameras write, decoded by libheif (through pi_heif): apart, damage may crash it."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from esdnet_cli.errors import PictureError, one_line
from esdnet_cli.pipeline import apart
from esdnet_cli.pipeline.colour import cicp
from esdnet_cli.pipeline.metadata import Metadata, checked_icc
from esdnet_cli.settings import max_pixels, too_large

_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}
_GAIN_MAP, _TONE_MAP = "gainmap", b"tmap"  # in the names of Apple's auxiliary pictures; the brand of ISO's
R = TypeVar("R")


def is_heif(data: bytes) -> bool:
    """By the first bytes; AVIF, which is built alike, is none."""
    brands = _brands(data)
    return data[4:8] == b"ftyp" and bool(brands & _BRANDS) and not brands & {b"avif", b"avis"}


def _brands(data: bytes) -> set[bytes]:
    places = (8, *range(16, min(int.from_bytes(data[:4], "big"), 256), 4))
    return {data[place : place + 4] for place in places}


def written_ending(path: Path) -> str:
    """What a picture of this format becomes: .png if it has more than 8 bits, alpha or HDR, else .jpg."""
    try:
        return _apart(_written_ending, path.read_bytes())
    except (OSError, PictureError):
        return ".jpg"  # why it cannot be read is said when it is its turn


def _written_ending(data: bytes) -> str:
    image = _open(data)
    colour = image.info.get("nclx_profile") or {}
    deep = image.info["bit_depth"] > 8 or image.has_alpha or colour.get("transfer_characteristics") in (16, 18)
    return ".png" if deep else ".jpg"


def read(data: bytes) -> tuple[NDArray[Any], Metadata, set[str]]:
    """Upright pixels, grey, RGB or RGBA, uint8 or uint16 of full range, as [H, W] or [H, W, C]; and what they carry.

    Raises PictureError if there is no whole picture, or it is larger.
    """
    return _apart(_read, data)


def _apart(step: Callable[[bytes], R], data: bytes) -> R:
    try:
        return apart.call(step, data)
    except ChildProcessError as error:
        raise PictureError("is damaged HEIF, on which its decoder crashes; copy it again") from error


def _read(data: bytes) -> tuple[NDArray[Any], Metadata, set[str]]:
    image = _open(data)
    if image.size[0] * image.size[1] > max_pixels():
        raise PictureError(too_large())
    if image.premultiplied_alpha:
        raise PictureError("is HEIF with alpha already multiplied into its colours; save it as PNG")
    try:
        # a copy: pi_heif's memory goes with the image; and its rows may be longer
        pixels = np.array(image)[: image.size[1], : image.size[0]]
    except (ValueError, RuntimeError, OSError, EOFError, SyntaxError) as error:
        raise PictureError(f"is damaged or truncated HEIF ({one_line(error)[:80]}); copy it again") from error
    bits = image.info["bit_depth"]
    if pixels.dtype == np.uint16 and bits < 16:  # libheif puts them into the upper bits
        pixels = pixels | pixels >> bits
    icc = checked_icc(image.info.get("icc_profile") or b"")
    said = image.info.get("nclx_profile") or {}
    colour = cicp(said.get("color_primaries", 2), said.get("transfer_characteristics", 2)) if said and not icc else ()
    exif = image.info.get("exif") or b""
    exif = exif[max(0, min(place for place in (exif.find(b"II*\0"), exif.find(b"MM\0*"), len(exif)) if place >= 0)) :]
    lost = {"depth map"} if image.info["depth_images"] else set()
    if image.info.get("icc_profile") and not icc:
        lost.add("ICC profile, which is broken")
    if _TONE_MAP in _brands(data) or any(_GAIN_MAP in kind.lower() for kind in image.info.get("aux", {})):
        lost.add("gain map")
    if len(image) > 1:
        lost.add("further picture" if len(image) == 2 else f"{len(image) - 1} further pictures")
    return pixels, Metadata(exif=exif, icc=icc, xmp=image.info.get("xmp") or b"", colour=colour), lost


def _open(data: bytes) -> Any:
    try:
        import pi_heif
    except ImportError as error:
        reason = one_line(error)[:80]
        raise PictureError(f"is HEIF, and pi_heif cannot load ({reason}); pip install pi-heif") from error
    try:
        image = pi_heif.open_heif(io.BytesIO(data), convert_hdr_to_8bit=False)
        if not len(image):
            raise ValueError("no picture in it")
        return image
    except (ValueError, RuntimeError, OSError, EOFError, SyntaxError) as error:
        reason = one_line(error)[:80]
        raise PictureError(f"is damaged, truncated or unusual HEIF ({reason}); save it as JPEG") from error
