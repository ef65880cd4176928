"""Pictures, decoded and encoded without losing what they carry besides rain."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet_cli.errors import EsdnetError, PictureError, one_line
from esdnet_cli.pipeline.sources import READABLE
from esdnet_cli.settings import MAX_MEGAPIXELS

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
    grey: bool = True
    params: tuple[int, ...] = ()
    opaque_params: tuple[int, ...] = ()  # besides, for pictures without alpha


_JPEG = Writer(
    ".jpg",
    # colour at full resolution: what the source had is not halved
    params=(cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)
_TIFF = Writer(".tiff", sixteen_bit=True, alpha=True)
WRITERS = {
    ".png": Writer(".png", sixteen_bit=True, alpha=True),
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), _JPEG),
    ".webp": Writer(".webp", alpha=True, grey=False, params=(cv2.IMWRITE_WEBP_QUALITY, 101)),  # over 100: lossless
    **dict.fromkeys((".tif", ".tiff"), _TIFF),
    **dict.fromkeys((".bmp", ".dib"), Writer(".bmp", alpha=True)),
    ".jp2": Writer(".jp2", sixteen_bit=True, alpha=True, params=(cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000)),
    ".avif": Writer(".avif", alpha=True, params=(cv2.IMWRITE_AVIF_QUALITY, 95)),
    ".gif": Writer(
        ".gif",
        alpha=True,
        grey=False,
        params=(cv2.IMWRITE_GIF_DITHER, 3),  # less speckles flat areas
        opaque_params=(cv2.IMWRITE_GIF_TRANSPARENCY, 0),
    ),
    ".ppm": Writer(".ppm", sixteen_bit=True, grey=False),
    **dict.fromkeys((".pgm", ".pnm"), Writer(".pnm", sixteen_bit=True)),
}
_EXIF_PREFIX = b"Exif\0\0"
_PNG = b"\x89PNG\r\n\x1a\n"
_PNM = re.compile(rb"P[2356](?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+\d+(?:\s+|#[^\n]*\n)+(\d{1,5})\s")
_ORIENTATION, _SAMPLES, _EXTRA_SAMPLES = 0x0112, 0x0115, 0x0152  # TIFF and EXIF tags


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


def read_picture(data: bytes, path: Path, max_megapixels: float = MAX_MEGAPIXELS) -> Picture:
    """Decode a file's bytes. Raises PictureError, without the file's name, if they are no whole picture of integers."""
    if not data:
        raise PictureError("is empty; copy it again")
    if data.startswith(_PNG) and not _png_is_whole(data):
        raise PictureError("is truncated or damaged; copy it again from where it came")  # libpng would print on its own
    try:
        pixels, kinds, blobs = cv2.imdecodeWithMetadata(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        if "validateInputImageSize" in str(error):
            raise PictureError(_too_large(max_megapixels)) from error
        raise PictureError("cannot be decoded; open and save it with another program") from error
    if pixels is None:
        raise PictureError(_why_undecodable(path))
    if pixels.shape[0] * pixels.shape[1] > max_megapixels * 1e6:  # OpenCV was loaded under another limit
        raise PictureError(_too_large(max_megapixels))
    if pixels.dtype not in (np.uint8, np.uint16):
        raise PictureError(f"has {pixels.dtype} pixels; save it with 8 or 16 bits a channel")
    if _frames(path) > 1:
        raise PictureError("holds several frames or pages; split it into single pictures")
    if trouble := _misread(data, pixels):
        raise PictureError(trouble)
    metadata = {int(kind): np.asarray(blob).tobytes() for kind, blob in zip(np.ravel(kinds), blobs)}
    orientation = 1
    if cv2.IMAGE_METADATA_EXIF in metadata:
        orientation, metadata[cv2.IMAGE_METADATA_EXIF] = _upright_exif(metadata[cv2.IMAGE_METADATA_EXIF])
    # AVIF has turns of its own, and readers pass over its EXIF's
    pixels = _turned_avif(pixels, data) if _is_avif(data) else _turned(pixels, orientation)
    if _icc_space(metadata) == b"CMYK":
        del metadata[cv2.IMAGE_METADATA_ICCP]  # it describes inks, and OpenCV has made RGB of them
    return _picture(pixels, tuple(metadata.items()))


def writer_for(path: Path) -> Writer:
    """How the format of the path's ending is written. Raises PictureError if it is not."""
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        kind = path.suffix or "a name without ending"
        raise PictureError(f"{kind} is no picture format that is written; use --format png")
    return writer


def encode_picture(picture: Picture, path: Path) -> bytes:
    """The file's bytes in the format of the path's ending. Raises PictureError if the format cannot hold or take it.

    A format without 16 bits gets 8, one without alpha drops it (that happens under --format only).
    """
    writer = writer_for(path)
    if picture.rgb.dtype == np.uint16 and not writer.sixteen_bit:
        alpha = None if picture.alpha is None else eight_bit(picture.alpha)
        picture = replace(picture, rgb=eight_bit(picture.rgb), alpha=alpha)
    metadata = dict(picture.metadata)
    space = _icc_space(metadata)
    params = [*writer.params]
    if picture.alpha is not None and writer.alpha:
        pixels = np.dstack((picture.rgb[..., ::-1], picture.alpha))
    elif picture.grey and writer.grey and space != b"RGB ":  # a profile of colours needs three channels
        pixels = picture.rgb[..., 0]
    else:
        pixels = picture.rgb[..., ::-1]
    if picture.alpha is None:
        params += writer.opaque_params
    if space == b"GRAY" and pixels.ndim == 3:
        del metadata[cv2.IMAGE_METADATA_ICCP]
    kinds = list(metadata)
    blobs = [np.frombuffer(blob, np.uint8) for blob in metadata.values()]
    try:
        done, data = cv2.imencodeWithMetadata(writer.encoder, np.ascontiguousarray(pixels), kinds, blobs, params)
    except cv2.error as error:
        raise PictureError(f"cannot be written as {path.suffix} ({one_line(error)[:100]}); use --format png") from error
    if not done:
        raise PictureError(f"cannot be written as {path.suffix}; use --format png")
    return bytes(data)


def without_hidden_colours(picture: Picture) -> NDArray[Any]:
    """The picture's rgb where pixels that alpha hides wholly take the colour of the nearest visible one.

    What nobody sees must not show in the derained neighbourhood: the network looks around each pixel.
    """
    if picture.alpha is None or picture.alpha.all() or not picture.alpha.any():
        return picture.rgb
    hidden = (picture.alpha == 0).astype(np.uint8)
    _, labels = cv2.distanceTransformWithLabels(hidden, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    nearest = np.zeros((labels.max() + 1, 3), picture.rgb.dtype)
    visible = hidden == 0
    nearest[labels[visible]] = picture.rgb[visible]
    return nearest[labels]


def grey_again(rgb: NDArray[Any]) -> NDArray[Any]:
    """[H, W, 3] with its luma (ITU-R BT.601) in all three channels."""
    return np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)


def _png_is_whole(data: bytes) -> bool:
    """Do a PNG's chunks reach its IEND, each as its checksum says?"""
    position = len(_PNG)
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data) or zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            return False
        if kind == b"IEND":
            return True
        position = end + 4
    return False


def _misread(data: bytes, pixels: NDArray[Any]) -> str | None:
    """Why OpenCV's pixels are not what the file means; None if they are."""
    if _is_avif(data) and pixels.dtype == np.uint16:
        return "is AVIF of 10 or 12 bits, which would come back darker; save it as PNG with 16 bits"
    if (header := _PNM.match(data)) and int(header[1]) not in (255, 65535):
        return f"counts to {int(header[1])}, not to 255 or 65535; save it as PNG"
    if data[:4] in (b"II*\0", b"MM\0*"):
        tags = {tag: value for tag, _, _, value, _ in _tags(data)}
        if tags.get(_SAMPLES) == 2 or (_EXTRA_SAMPLES in tags and pixels.dtype == np.uint8):
            return "is TIFF with alpha, whose colours OpenCV reads with loss; save it as PNG"
    return None


def _is_avif(data: bytes) -> bool:
    return data[4:12] in (b"ftypavif", b"ftypavis")


def _turned_avif(pixels: NDArray[Any], data: bytes) -> NDArray[Any]:
    """As the file's `irot` (quarter turns counterclockwise), then `imir` (0: upside down, 1: left to right) want it."""
    properties = data[: data.find(b"mdat")]
    if (turn := properties.find(b"irot")) >= 0:
        pixels = np.rot90(pixels, properties[turn + 4] & 3)
    if (mirror := properties.find(b"imir")) >= 0:
        pixels = pixels[:, ::-1] if properties[mirror + 4] & 1 else pixels[::-1]
    return pixels


def _icc_space(metadata: dict[int, bytes]) -> bytes:
    """The colour space that the ICC profile describes, such as b"RGB "; empty without one."""
    return metadata.get(cv2.IMAGE_METADATA_ICCP, b"")[16:20]


def _too_large(max_megapixels: float) -> str:
    return f"claims more than {max_megapixels:g} megapixels; cut it into parts, or trust it by --max-megapixels"


def _why_undecodable(path: Path) -> str:
    if path.suffix.lower() in READABLE:
        return "is damaged, truncated or not a picture at all; copy it again or open it with another program"
    return "is not a picture in a format that OpenCV reads; convert it to PNG"


def _frames(path: Path) -> int:
    try:
        str(path).encode("utf-8")
        return int(cv2.imcount(str(path)))
    except (UnicodeEncodeError, cv2.error):
        return 1  # OpenCV would crash on a name that is no UTF-8


def _upright_exif(exif: bytes) -> tuple[int, bytes]:
    """Orientation (1 to 8) that EXIF asks for, and the block with it set to 1: the pixels are turned instead."""
    start = len(_EXIF_PREFIX) if exif.startswith(_EXIF_PREFIX) else 0  # AVIF may keep JPEG's
    for tag, kind, count, value, position in _tags(exif[start:]):
        if (tag, kind, count) == (_ORIENTATION, 3, 1) and 1 <= value <= 8:
            patched = bytearray(exif)
            struct.pack_into("<H" if exif[start:].startswith(b"II") else ">H", patched, start + position, 1)
            return value, bytes(patched)
    return 1, exif


def _tags(block: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Tag, kind, count, first 16 bits of the value and their position, for the first directory of TIFF or EXIF.

    A block that is cut short or nonsense yields what it has: it says nothing about orientation then, and is kept.
    """
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return
    try:
        (directory,) = struct.unpack_from(f"{order}I", block, 4)
        (entries,) = struct.unpack_from(f"{order}H", block, directory)
        for entry in range(entries):
            position = directory + 2 + 12 * entry
            yield (*struct.unpack_from(f"{order}HHIH", block, position), position + 8)
    except struct.error:
        return


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


def eight_bit(pixels: NDArray[Any]) -> NDArray[Any]:
    """uint16 of full range as uint8, rounded; uint8 as it is."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
