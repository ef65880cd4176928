"""Pictures, decoded and encoded without losing what they carry besides rain."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet_cli.errors import EsdnetError, PictureError, one_line
from esdnet_cli.pipeline.sources import READABLE

try:
    import cv2
except ImportError as error:
    raise EsdnetError(
        f"OpenCV cannot load ({one_line(error)}); on Debian or Ubuntu: apt-get install libgl1 libglib2.0-0, "
        "elsewhere: pip install --force-reinstall opencv-python"
    ) from error

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # a bad file is one line of ours, not ten of its


@dataclass(frozen=True)
class Writer:
    """What a file format holds, and how OpenCV is asked for it."""

    encoder: str
    sixteen_bit: bool = False
    alpha: bool = False
    params: tuple[int, ...] = ()


_JPEG = Writer(".jpg", params=(cv2.IMWRITE_JPEG_QUALITY, 95))
_TIFF = Writer(".tiff", sixteen_bit=True, alpha=True)
WRITERS = {
    ".png": Writer(".png", sixteen_bit=True, alpha=True),
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), _JPEG),
    ".webp": Writer(".webp", alpha=True, params=(cv2.IMWRITE_WEBP_QUALITY, 101)),  # over 100: lossless
    **dict.fromkeys((".tif", ".tiff"), _TIFF),
    **dict.fromkeys((".bmp", ".dib"), Writer(".bmp", alpha=True)),
    ".jp2": Writer(".jp2", sixteen_bit=True, alpha=True, params=(cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000)),
    ".avif": Writer(".avif", alpha=True, params=(cv2.IMWRITE_AVIF_QUALITY, 95)),
    ".gif": Writer(".gif", alpha=True),
    **dict.fromkeys((".ppm", ".pgm", ".pnm"), Writer(".pnm", sixteen_bit=True)),
}
_ORIENTATION = 0x0112  # EXIF tag


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright.

    rgb: uint8 or uint16 [H, W, 3], full range. alpha: [H, W] of the same dtype, or None.
    grey: all three channels are equal, and shall be so in the output.
    metadata: OpenCV's (type, bytes) pairs: EXIF (its orientation set to upright), ICC profile, XMP.
    """

    rgb: NDArray[Any]
    alpha: NDArray[Any] | None
    grey: bool
    metadata: tuple[tuple[int, bytes], ...]

    @property
    def height(self) -> int:
        return int(self.rgb.shape[0])

    @property
    def width(self) -> int:
        return int(self.rgb.shape[1])


def read_picture(data: bytes, path: Path) -> Picture:
    """Decode a file's bytes. Raises PictureError, without the file's name, if they are no whole picture of integers."""
    if not data:
        raise PictureError("is empty; copy it again")
    if data.startswith(b"\x89PNG\r\n\x1a\n") and not _png_is_whole(data):
        raise PictureError("is truncated; copy it again from where it came")  # libpng would print on its own
    try:
        pixels, kinds, blobs = cv2.imdecodeWithMetadata(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        if "validateInputImageSize" in str(error):
            raise PictureError("claims more pixels than OpenCV reads (2^30); cut it into parts") from error
        raise PictureError("cannot be decoded; open and save it with another program") from error
    if pixels is None:
        raise PictureError(_why_undecodable(path))
    if pixels.dtype not in (np.uint8, np.uint16):
        raise PictureError(f"has {pixels.dtype} pixels; save it with 8 or 16 bits a channel")
    if _frames(path) > 1:
        raise PictureError("holds several frames or pages; split it into single pictures")
    metadata = {int(kind): np.asarray(blob).tobytes() for kind, blob in zip(np.ravel(kinds), blobs)}
    orientation = 1
    if cv2.IMAGE_METADATA_EXIF in metadata:
        orientation, metadata[cv2.IMAGE_METADATA_EXIF] = _upright_exif(metadata[cv2.IMAGE_METADATA_EXIF])
    return _picture(_turned(pixels, orientation), tuple(metadata.items()))


def encode_picture(picture: Picture, path: Path) -> bytes:
    """The file's bytes in the format of the path's ending. Raises PictureError if the format cannot hold or take it.

    A format without 16 bits gets 8, one without alpha drops it (that happens under --format only).
    """
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        raise PictureError(
            f"{path.suffix or 'a name without ending'} is a format that is not written; use --format png"
        )
    if picture.rgb.dtype == np.uint16 and not writer.sixteen_bit:
        alpha = None if picture.alpha is None else _eight_bit(picture.alpha)
        picture = replace(picture, rgb=_eight_bit(picture.rgb), alpha=alpha)
    if picture.alpha is not None and writer.alpha:
        pixels = np.dstack((picture.rgb[..., ::-1], picture.alpha))
    elif picture.grey and path.suffix.lower() not in (".ppm", ".gif"):  # these hold colour only
        pixels = picture.rgb[..., 0]
    else:
        pixels = picture.rgb[..., ::-1]
    kinds = [kind for kind, _ in picture.metadata]
    blobs = [np.frombuffer(blob, np.uint8) for _, blob in picture.metadata]
    try:
        done, data = cv2.imencodeWithMetadata(
            writer.encoder, np.ascontiguousarray(pixels), kinds, blobs, list(writer.params)
        )
    except cv2.error as error:
        raise PictureError(f"cannot be written as {path.suffix} ({one_line(error)[:100]}); use --format png") from error
    if not done:
        raise PictureError(f"cannot be written as {path.suffix}; use --format png")
    return bytes(data)


def grey_again(rgb: NDArray[Any]) -> NDArray[Any]:
    """[H, W, 3] with its luma (ITU-R BT.601) in all three channels."""
    return np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def _png_is_whole(data: bytes) -> bool:
    """Do a PNG's chunks reach its IEND?"""
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        position += 12 + length
        if kind == b"IEND":
            return position <= len(data)
    return False


def _why_undecodable(path: Path) -> str:
    if path.suffix.lower() in READABLE:
        return "is damaged, truncated or not a picture at all; copy it again or open it with another program"
    return "is not a picture in a format that OpenCV reads; convert it to PNG"


def _frames(path: Path) -> int:
    try:
        os.fsencode(path).decode("utf-8")
    except UnicodeDecodeError:
        return 1  # OpenCV crashes on such a name
    try:
        return int(cv2.imcount(str(path)))
    except cv2.error:
        return 1


def _upright_exif(exif: bytes) -> tuple[int, bytes]:
    """Orientation (1 to 8) that EXIF asks for, and the block with it set to 1: the pixels are turned instead."""
    offset = 6 if exif.startswith(b"Exif\0\0") else 0  # AVIF keeps the JPEG prefix
    order = {b"II": "<", b"MM": ">"}.get(exif[offset : offset + 2])
    try:
        if order is None:
            return 1, exif
        (directory,) = struct.unpack_from(f"{order}I", exif, offset + 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, offset + directory)
        for entry in range(entries):
            position = offset + directory + 2 + 12 * entry
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", exif, position)
            if (tag, kind, count) == (_ORIENTATION, 3, 1) and 1 <= value <= 8:
                patched = bytearray(exif)
                struct.pack_into(f"{order}H", patched, position + 8, 1)
                return value, bytes(patched)
    except struct.error:
        pass  # a block cut short says nothing about orientation, and is kept as it is
    return 1, exif


def _turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Stored pixels as EXIF orientation 1 to 8 wants them shown."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)  # row 0 is then the visual left
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _picture(pixels: NDArray[Any], metadata: tuple[tuple[int, bytes], ...]) -> Picture:
    """From OpenCV's grey, BGR or BGRA."""
    if pixels.ndim == 2:
        return Picture(np.repeat(pixels[..., None], 3, axis=2), None, True, metadata)
    alpha = np.ascontiguousarray(pixels[..., 3]) if pixels.shape[2] == 4 else None
    rgb = np.ascontiguousarray(pixels[..., 2::-1])
    grey = bool((rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all())
    return Picture(rgb, alpha, grey, metadata)


def _eight_bit(pixels: NDArray[Any]) -> NDArray[Any]:
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
