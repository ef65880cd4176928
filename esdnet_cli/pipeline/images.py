"""Pictures, decoded and encoded without losing what they carry besides rain."""

from __future__ import annotations

import re
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esdnet_cli.errors import EsdnetError, PictureError, one_line, printable, system_error
from esdnet_cli.pipeline import avif, bmp, colour, heif, jpeg, kinds, mending, png, tiff
from esdnet_cli.pipeline.metadata import Metadata, checked_icc, credentials, icc_space, orientation, upright
from esdnet_cli.pipeline.sources import READABLE
from esdnet_cli.settings import max_pixels, too_large

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
    """What a file format holds, and how OpenCV is asked for it.

    bits: the most of a channel. holds: which of Metadata's fields; blobs: OpenCV writes them. longest: side in pixels.
    """

    encoder: str
    bits: int = 8
    alpha: bool = False
    grey: bool = True
    holds: frozenset[str] = frozenset()
    blobs: bool = False
    longest: int = 1 << 20
    params: tuple[int, ...] = ()
    opaque_params: tuple[int, ...] = ()  # besides, for pictures without alpha
    deep_params: tuple[int, ...] = ()  # besides, for pictures of more than 8 bits


_TAGGED = frozenset(("exif", "icc", "xmp"))
_JPEG = Writer(
    ".jpg",
    holds=_TAGGED | {"iptc", "comments", "density"},
    longest=65500,
    # colour at full resolution: what the source had is not halved
    params=(cv2.IMWRITE_JPEG_QUALITY, 95, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
)
_PNG = Writer(".png", bits=16, alpha=True, holds=_TAGGED | {"comments", "density", "colour", "text"})
_TIFF = Writer(".tiff", bits=16, alpha=True, holds=_TAGGED | {"iptc", "comments", "density"})
_BMP = Writer(".bmp", alpha=True, holds=frozenset(("density",)))
WRITERS = {
    ".png": _PNG,
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), _JPEG),
    ".webp": Writer(
        ".webp", alpha=True, grey=False, holds=_TAGGED, blobs=True, longest=16383,
        # over 100: lossless; colours that alpha hides, too
        params=(
            cv2.IMWRITE_WEBP_QUALITY, 101, cv2.IMWRITE_WEBP_LOSSLESS_MODE, cv2.IMWRITE_WEBP_LOSSLESS_PRESERVE_COLOR,
        ),
    ),
    **dict.fromkeys((".tif", ".tiff"), _TIFF),
    **dict.fromkeys((".bmp", ".dib"), _BMP),
    ".jp2": Writer(".jp2", bits=16, alpha=True, params=(cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000)),
    ".avif": Writer(
        ".avif", bits=10, alpha=True, holds=_TAGGED, blobs=True, longest=65535, params=(cv2.IMWRITE_AVIF_QUALITY, 95),
        deep_params=(cv2.IMWRITE_AVIF_DEPTH, 10),  # 12 are of a profile that few programs show
    ),
    ".gif": Writer(
        ".gif",
        alpha=True,
        grey=False,
        longest=65535,
        params=(cv2.IMWRITE_GIF_DITHER, 3),  # less speckles flat areas
        opaque_params=(cv2.IMWRITE_GIF_TRANSPARENCY, 0),
    ),
    ".ppm": Writer(".ppm", bits=16, grey=False),
    **dict.fromkeys((".pgm", ".pnm"), Writer(".pnm", bits=16)),
}  # fmt: skip
_STARTS = {  # first bytes of what is read and written
    b"\xff\xd8": ".jpg", b"\x89PNG": ".png", b"RIFF....WEBP": ".webp", b"II[*+]": ".tif", b"MM\0[*+]": ".tif",
    b"BM": ".bmp", b"GIF8": ".gif", b"\0\0\0\x0cjP": ".jp2", b"\xff\x4f\xff\x51": ".jp2", b"P[25]": ".pgm",
    b"P[36]": ".ppm",
}  # fmt: skip
_SAID = {"exif": "EXIF", "icc": "ICC profile", "xmp": "XMP", "iptc": "IPTC", "comments": "comment"}  # in notes
_EXIF_OF_JP2 = b"uuidJpgTiffExif->JP2"  # the box that programs have agreed upon
_TRIAL = 32  # side of the piece that is encoded to see whether the whole will be


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright.

    rgb: uint8 or uint16 [H, W, 3], full range. alpha: [H, W] of the same dtype, or None.
    grey: all three channels are equal, and shall be so in the output.
    metadata: of the upright picture. lost: what the file had besides, and no output has.
    single: the file had one channel in their place, and so shall the output where its format can.
    """

    rgb: NDArray[Any]
    alpha: NDArray[Any] | None
    grey: bool
    metadata: Metadata = Metadata()
    lost: frozenset[str] = field(default=frozenset())
    single: bool = False

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
    if heif.is_heif(data):
        pixels, metadata, lost = heif.read(data)
        if pixels.ndim == 3:
            pixels = pixels[..., [[0, 1], [0, 0, 0, 1], [2, 1, 0], [2, 1, 0, 3]][pixels.shape[2] - 1]]
        return _picture(pixels, metadata, lost | credentials(data), turned=False)
    if data.startswith(png.SIGNATURE) and not png.is_whole(data):
        raise PictureError("is truncated or damaged; copy it again from where it came")  # libpng would print on its own
    if (kind := kinds.raw_kind(data, path)) is not None:
        raise PictureError(f"is of a kind that is not read ({kind}); {kinds.mend(kind)}")
    if trouble := mending.why_not_read(data):
        raise PictureError(trouble)
    try:
        encoded = np.frombuffer(mending.mended_file(data), np.uint8)
        flags = cv2.IMREAD_COLOR if mending.is_grey_sun(data) else cv2.IMREAD_UNCHANGED
        pixels, types, blobs = cv2.imdecodeWithMetadata(encoded, flags)
    except cv2.error as error:
        if "validateInputImageSize" in str(error):
            raise PictureError(too_large()) from error
        raise PictureError("cannot be decoded; open and save it with another program") from error
    if pixels is None:
        raise PictureError(_why_undecodable(data, path))
    if pixels.shape[0] * pixels.shape[1] > max_pixels():  # OpenCV was loaded under another limit
        raise PictureError(too_large())
    if pixels.dtype not in (np.uint8, np.uint16):
        raise PictureError(f"has {pixels.dtype} pixels; save it with 8 or 16 bits a channel")
    if mending.ends_early(pixels, data):
        raise PictureError("is damaged: a part of its data is missing, and would come back grey; copy it again")
    if _frames(path) > 1:
        raise PictureError("holds several frames or pages; split it into single pictures")
    pixels = mending.mended_pixels(pixels, data)
    blobs_by_type = {int(kind): np.asarray(blob).tobytes() for kind, blob in zip(np.ravel(types), blobs)}
    metadata, lost = _read_metadata(data, blobs_by_type)
    if avif.is_avif(data):  # AVIF has turns of its own, and readers pass over its EXIF's
        (pixels, turned), as_stored = avif.turned(pixels, data), False
    else:
        turn = orientation(data if tiff.is_tiff(data) else metadata.exif)
        pixels, turned, as_stored = _turned(pixels, turn), turn >= 5, turn == 1
    if icc_space(metadata.icc) not in (b"RGB ", b"GRAY", b""):  # it describes inks, and OpenCV has made RGB of them
        metadata, lost = replace(metadata, icc=b""), lost | {"ICC profile of other colours than RGB"}
    return _picture(pixels, metadata, lost | credentials(data), turned, as_stored)


def open_picture(path: Path) -> Picture:
    """Decode a file, as `read_picture`. Raises EsdnetError, with the file's name, if that cannot be."""
    try:
        return read_picture(path.read_bytes(), path)
    except (PictureError, OSError) as error:
        reason = system_error(error) if isinstance(error, OSError) else error
        raise EsdnetError(f"{printable(path)}: {reason}") from error


def ending_of(data: bytes) -> str:
    """The ending of the format that a file's first bytes show; .png if they show none."""
    if heif.is_heif(data):
        return ".heic"
    if avif.is_avif(data):
        return ".avif"
    return _start(data) or ".png"


def _start(data: bytes) -> str | None:
    return next((ending for start, ending in _STARTS.items() if re.match(start, data, re.DOTALL)), None)


def writer_for(path: Path) -> Writer:
    """How the format of the path's ending is written. Raises PictureError if it is not."""
    writer = WRITERS.get(path.suffix.lower())
    if writer is None:
        kind = path.suffix or "a name without ending"
        raise PictureError(f"cannot write {kind}; use --format png")
    return writer


def check_output(picture: Picture, path: Path) -> tuple[str, ...]:
    """What of a picture an output of this name will lack, before the work. Raises PictureError if there can be none."""
    writer = writer_for(path)
    if max(picture.rgb.shape[:2]) > writer.longest:
        raise PictureError(
            f"has a side longer than {writer.longest} pixels, the limit of {path.suffix}; use --format png"
        )
    if (name := colour.hdr(picture.metadata.colour)) and "colour" not in writer.holds:
        raise PictureError(f"is HDR ({name}), which {path.suffix} cannot store; use --format png")
    piece = (slice(_TRIAL), slice(_TRIAL))
    alpha = None if picture.alpha is None else picture.alpha[piece]
    encode_picture(replace(picture, rgb=picture.rgb[piece], alpha=alpha), path)
    metadata, lost = _fitted(picture, writer)
    if picture.alpha is not None and not picture.alpha.all() and not writer.alpha:
        lost.add("transparency")
    if picture.rgb.dtype == np.uint16 and writer.bits < 16 and not _fits(picture.rgb, writer.bits):
        lost.add(f"the lower {16 - writer.bits} of 16 bits")
    return tuple(sorted(lost | picture.lost))


def encode_picture(picture: Picture, path: Path) -> bytes:
    """The file's bytes in the format of the path's ending. Raises PictureError if the format cannot hold or take it.

    A format without 16 bits gets 10 or 8, one without alpha drops it, and what it does not hold of the metadata is left
    out.
    """
    writer = writer_for(path)
    if picture.rgb.dtype == np.uint16 and writer.bits < 16:
        alpha = None if picture.alpha is None else _narrowed(picture.alpha, writer.bits)
        picture = replace(picture, rgb=_narrowed(picture.rgb, writer.bits), alpha=alpha)
    metadata, _ = _fitted(picture, writer)
    params = [*writer.params, *(writer.opaque_params if picture.alpha is None else ())]
    params += writer.deep_params if picture.rgb.dtype == np.uint16 else ()
    one_channel = _one_channel(picture, writer, metadata)
    if picture.alpha is not None and writer is _PNG and one_channel:
        return png.with_metadata(png.encode_grey_alpha(picture.rgb[..., 0], picture.alpha), metadata)
    if picture.alpha is not None and writer.alpha:
        pixels = np.dstack((picture.rgb[..., ::-1], picture.alpha))
    else:
        pixels = picture.rgb[..., 0] if one_channel else picture.rgb[..., ::-1]
    blobs = {
        cv2.IMAGE_METADATA_EXIF: metadata.exif,
        cv2.IMAGE_METADATA_ICCP: metadata.icc,
        cv2.IMAGE_METADATA_XMP: metadata.xmp,
    }
    types = [kind for kind, blob in blobs.items() if blob and writer.blobs]
    arrays = [np.frombuffer(blobs[kind], np.uint8) for kind in types]
    try:
        done, data = cv2.imencodeWithMetadata(writer.encoder, np.ascontiguousarray(pixels), types, arrays, params)
    except cv2.error as error:
        raise PictureError(f"cannot be written as {path.suffix} ({one_line(error)[:100]}){_other(path)}") from error
    if not done:
        raise PictureError(f"cannot be written as {path.suffix}{_other(path)}")
    if writer is _JPEG:
        return jpeg.with_metadata(bytes(data), metadata)
    if writer is _PNG:
        return png.with_metadata(bytes(data), metadata)
    if writer is _TIFF:
        return tiff.with_metadata(bytes(data), metadata, alpha=picture.alpha is not None)
    return bmp.with_density(bytes(data), metadata.density) if writer is _BMP else bytes(data)


def visible_part(picture: Picture) -> tuple[slice, slice]:
    """Rows and columns around all that alpha does not hide wholly; all of them where it hides nothing, or everything.

    The network judges by all that it sees of a picture. Where most of that is what nobody sees, however it is filled,
    the rain in the rest stays.
    """
    whole = slice(0, picture.height), slice(0, picture.width)
    if picture.alpha is None:
        return whole
    rows, columns = (np.flatnonzero(picture.alpha.any(axis)) for axis in (1, 0))
    return (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)) if len(rows) else whole


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


def _other(path: Path) -> str:
    return "" if path.suffix.lower() == ".png" else "; use --format png"


def _why_undecodable(data: bytes, path: Path) -> str:
    if kind := kinds.kind_of(data):
        return f"is of a kind that is not read ({kind}); {kinds.mend(kind)}"
    if _start(data):
        return "is damaged, truncated or of an unusual kind; copy it again, or save it as PNG with another program"
    if path.suffix.lower() in READABLE:
        return "is damaged, truncated or not a picture at all; copy it again or open it with another program"
    return "is not a picture in a format that OpenCV reads; convert it to PNG"


def _frames(path: Path) -> int:
    with ExitStack() as stack:
        name = str(path)
        if any("\ud800" <= character <= "\udfff" for character in name):  # no UTF-8, on which OpenCV would crash
            name = f"/dev/fd/{stack.enter_context(path.open('rb')).fileno()}"
        try:
            return int(cv2.imcount(name))
        except cv2.error:
            return 1


def _turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Stored pixels as EXIF orientation 1 to 8 wants them shown."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)  # row 0 is then the visual left
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _read_metadata(data: bytes, blobs: dict[int, bytes]) -> tuple[Metadata, set[str]]:
    """What a file carries, from its own segments, chunks or tags where we know them, else from OpenCV's `blobs`."""
    if data.startswith(b"\xff\xd8"):
        return jpeg.read_metadata(data)
    if data.startswith(png.SIGNATURE):
        return png.read_metadata(data)
    if tiff.is_tiff(data):
        return tiff.read_metadata(data)
    exif = blobs.get(cv2.IMAGE_METADATA_EXIF, b"").removeprefix(b"Exif\0\0")  # AVIF may keep JPEG's
    profile = blobs.get(cv2.IMAGE_METADATA_ICCP, b"") or mending.boxed_icc(data) or bmp.icc_profile(data)
    icc = checked_icc(profile)
    said = () if icc else colour.cicp(*mending.boxed_cicp(data))
    xmp = blobs.get(cv2.IMAGE_METADATA_XMP, b"") or mending.scanned_xmp(data)
    lost = {"EXIF"} if _EXIF_OF_JP2 in data else set()
    if profile and not icc:
        lost.add("ICC profile, which is broken")
    return Metadata(exif, icc, xmp, density=bmp.density(data), colour=said), lost


def _picture(
    pixels: NDArray[Any], metadata: Metadata, lost: set[str], turned: bool, as_stored: bool = False
) -> Picture:
    """From OpenCV's grey, BGR or BGRA, upright; turned, as_stored: see `upright`."""
    metadata, gone = upright(metadata, pixels.shape[1], pixels.shape[0], turned, as_stored)
    away = frozenset(lost | gone)
    if pixels.ndim == 2:
        return Picture(np.repeat(pixels[..., None], 3, axis=2), None, True, metadata, away, single=True)
    alpha = np.ascontiguousarray(pixels[..., 3]) if pixels.shape[2] == 4 else None
    rgb = np.ascontiguousarray(pixels[..., 2::-1])
    grey = bool((rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 1] == rgb[..., 2]).all())
    # OpenCV has no grey with alpha
    return Picture(rgb, alpha, grey, metadata, away, single=grey and alpha is not None)


def _one_channel(picture: Picture, writer: Writer, metadata: Metadata) -> bool:
    return picture.single and writer.grey and icc_space(metadata.icc) != b"RGB "  # a profile of colours needs three


def _fitted(picture: Picture, writer: Writer) -> tuple[Metadata, set[str]]:
    """The metadata that a format holds, and what else there was: the colours of PNG's chunks become an ICC profile."""
    metadata = picture.metadata
    lost = set()
    if metadata.colour and not metadata.icc and "colour" not in writer.holds:
        icc = colour.icc_profile(metadata.colour)
        if icc is None or (icc and "icc" not in writer.holds):
            lost.add("what its numbers mean as colours")
        metadata = replace(metadata, icc=icc or b"")
    missing = {name for name in _SAID if name not in writer.holds and getattr(metadata, name)}
    lost |= {_SAID[name] for name in missing if getattr(picture.metadata, name)}
    if "text" not in writer.holds and (keywords := png.further_keywords(metadata.text)):
        lost.add(f"texts ({', '.join(keywords)})")
    too_long = jpeg.unwritable(metadata) if writer is _JPEG else set()
    lost |= {f"{_SAID[name]}, which is too long" for name in too_long}
    if writer is _TIFF:
        lost |= tiff.maker_notes(metadata.exif)
    metadata = replace(metadata, **{name: type(getattr(metadata, name))() for name in missing | too_long})
    grey = _one_channel(picture, writer, metadata) and (writer is _PNG or picture.alpha is None)
    if icc_space(metadata.icc) == b"GRAY" and not grey:
        lost.add("ICC profile of grey")
        metadata = replace(metadata, icc=b"")
    return metadata, lost


def eight_bit(pixels: NDArray[Any]) -> NDArray[Any]:
    """uint16 of full range as uint8, rounded; uint8 as it is."""
    return pixels if pixels.dtype == np.uint8 else _narrowed(pixels, 8)


def _narrowed(pixels: NDArray[Any], bits: int) -> NDArray[Any]:
    """uint16 of full range as numbers of `bits`, rounded: uint8 for 8, else uint16."""
    levels = (pixels.astype(np.uint32) * ((1 << bits) - 1) + 32767) // 65535
    return levels.astype(np.uint8 if bits == 8 else np.uint16)


def _fits(pixels: NDArray[Any], bits: int) -> bool:
    """Whether uint16 of full range hold no more than `bits` each."""
    exact = np.zeros(1 << 16, np.bool_)
    exact[mending.widened(np.arange(1 << bits, dtype=np.uint16), bits)] = True
    return bool(exact[pixels].all())
