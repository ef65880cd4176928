# ruff: noqa: E501 (a table: one line for each file)
"""Pictures as people have them, through a network that changes nothing: one line for each kind, Pillow as the judge."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import awkward as made
import cv2
import numpy as np
import pytest
from awkward import ALPHA, COLOUR, DEEP, GREY, ICC, NOISE, SCENE, Pixels, stored
from conftest import Run, save_identity
from PIL import Image, ImageCms

from esdnet_cli.pipeline.journal import JOURNAL


@dataclass(frozen=True)
class Output:
    """What stands in the output folder for one input, and what was said about it."""

    data: bytes
    said: str

    @property
    def image(self) -> Image.Image:
        image = Image.open(io.BytesIO(self.data))
        image.load()
        return image


Check = Callable[[Output], None]


@dataclass(frozen=True)
class Back:
    """The picture must come back: as these pixels, within `off` levels on average, in Pillow's `mode`; and `also`."""

    pixels: Pixels
    mode: str
    also: tuple[Check, ...] = ()
    off: float = 0
    name: str | None = None  # of the output, if not the input's
    to: str | None = None  # --format


@dataclass(frozen=True)
class Refused:
    """The picture must be refused with this reason, before the network runs."""

    reason: str
    to: str | None = None


def icc(profile: bytes | None) -> Check:
    def check(output: Output) -> None:
        assert output.image.info.get("icc_profile") == profile

    return check


def info(key: str, value: object) -> Check:
    def check(output: Output) -> None:
        assert output.image.info.get(key) == value

    return check


def said(words: str) -> Check:
    def check(output: Output) -> None:
        assert words in output.said

    return check


def no_escapes(output: Output) -> None:
    """What a file says must not reach a terminal as commands."""
    assert "\x1b" not in output.said and "\x07" not in output.said


def silent(output: Output) -> None:
    assert not output.said


def holds(*parts: bytes) -> Check:
    def check(output: Output) -> None:
        for part in parts:
            assert part in output.data

    return check


def lacks(*parts: bytes) -> Check:
    def check(output: Output) -> None:
        for part in parts:
            assert part not in output.data

    return check


def tag(number: int, value: object) -> Check:
    """Of TIFF."""

    def check(output: Output) -> None:
        assert output.image.tag_v2[number] == value  # type: ignore[attr-defined]

    return check


def exif_of(width: int, height: int) -> Check:
    """EXIF says upright, this size, and its text; there is no thumbnail."""

    def check(output: Output) -> None:
        block = output.image.getexif()
        assert (block[0x0112], block[0x010E].rstrip("\0")) == (1, "a rainy day")
        assert (block.get_ifd(0x8769)[0xA002], block.get_ifd(0x8769)[0xA003]) == (width, height)
        assert not block.get_ifd(1)
        assert output.data.count(b"\xff\xd8\xff") <= 1

    return check


def stored_icc(name: str) -> bytes:
    """The profile in a HEIC file of tests/cases, which was made on another day."""
    data = stored(name)
    start = data.index(b"colrprof") + 8
    return data[start : start + int.from_bytes(data[start - 12 : start - 8], "big") - 12]


def camera(output: Output) -> None:
    """EXIF is as `made.tiff_exif` has it, upright."""
    block = output.image.getexif()
    assert (block[0x0112], block[0x010F], block[0x0132]) == (1, "Acme", "2026:11:26 01:02:03")
    assert block.get_ifd(0x8769)[0x829A] == pytest.approx(1 / 250)
    assert block.get_ifd(0x8769)[0x8827] == 400
    assert block.get_ifd(0x8825)[1] == "N" and block.get_ifd(0x8825)[2] == (47.0, 22.0, 6.5)


def shows_middle_as(level: int) -> Check:
    """The profile makes of 128, in the numbers of the file, this level of sRGB."""

    def check(output: Output) -> None:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(output.image.info["icc_profile"]))
        grey = Image.fromarray(np.full((1, 1, 3), 128, np.uint8))
        to_srgb = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), "RGB", "RGB")
        assert ImageCms.applyTransform(grey, to_srgb).getpixel((0, 0)) == pytest.approx((level,) * 3, abs=1)

    return check


def white_is_65535(output: Output) -> None:
    """To the last of 16 bits, which Pillow does not show."""
    pixels = cv2.imdecode(np.frombuffer(output.data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels.dtype == np.uint16 and pixels.max() == 65535


LARGE = np.tile(COLOUR, (9, 9, 1))
LARGE_JPEG, LARGE_PROGRESSIVE = made.jpeg(pixels=LARGE), made.jpeg(pixels=LARGE, progressive=True)
CORNER = COLOUR.copy()
CORNER[-16:, -16:] = 128
LA = np.dstack((GREY, ALPHA))
RGBA = np.dstack((COLOUR, ALPHA))
TRANSPARENT_100 = np.dstack((GREY, np.where(GREY == 100, 0, 255).astype(np.uint8)))
SMALL_BITS = {bits: (GREY >> (8 - bits)) * (255 // ((1 << bits) - 1)) for bits in (1, 2, 4)}
RAMP = b"".join(bytes((level, level, 255 - level)) for level in range(256))
SIXTEEN = COLOUR.copy()
SIXTEEN[-1, 0, 0], SIXTEEN[-1, 1, 2] = 16, 0
TURNED = COLOUR.swapaxes(0, 1)[:, ::-1]
_Y, _X = np.mgrid[:64, :96]
RAMPS = np.stack((_X * 255 // 95, _Y * 255 // 63, 255 - (_X + _Y) * 255 // 158), axis=2)
BIG_ICC = ICC[:4] + ICC[4:] + bytes(200_000 - len(ICC))
BIG_ICC = len(BIG_ICC).to_bytes(4, "big") + BIG_ICC[4:]
GAIN_MAP = (0xE2, b"urn:iso:std:iso:ts:21496:-1\0" + bytes(4))
ULTRA_HDR = made.xmp(
    'hdrgm:Version="1.0" dc:title="kept"',
    '<Container:Directory><rdf:Seq><rdf:li rdf:parseType="Resource"><Container:Item Item:Semantic="GainMap"/></rdf:li>'
    "</rdf:Seq></Container:Directory>",
)
MOTION = made.xmp('GCamera:MotionPhoto="1" GCamera:MotionPhotoVersion="1" dc:title="kept"')
TITLED = made.xmp('dc:title="kept"')
TURNED_XMP = made.xmp("", "<tiff:Orientation>6</tiff:Orientation><exif:PixelXDimension>64</exif:PixelXDimension>")
APP1_XMP = b"http://ns.adobe.com/xap/1.0/\0"
JFIF_300 = {"dpi": (300, 300)}
IPTC = b"\x1c\x02\x78\0\4rain"
PQ = (b"cICP", bytes((9, 16, 0, 1)))

JPEG_NEAR, SCENE_NEAR = 2.0, 5.0  # levels, on average, that saving again costs; smooth colours, and noise
AWKWARD: dict[str, tuple[bytes, Back | Refused]] = {
    # several APP2 segments
    "mpf_then_icc.jpg": (stored("mpf_then_icc.jpg"), Back(SCENE, "RGB", (said("further picture"),), SCENE_NEAR)),
    "mpf_icc.jpg": (made.jpeg(made.mpf(2), *made.icc_segments(ICC, 1)), Back(COLOUR, "RGB", (icc(ICC),), JPEG_NEAR)),
    "icc_mpf.jpg": (made.jpeg(*made.icc_segments(ICC, 1), made.mpf(3)), Back(COLOUR, "RGB", (icc(ICC), said("2 further")), JPEG_NEAR)),
    "icc_of_3.jpg": (made.jpeg(*made.icc_segments(ICC, 3)), Back(COLOUR, "RGB", (icc(ICC), silent), JPEG_NEAR)),
    "icc_backwards.jpg": (made.jpeg(*made.icc_segments(ICC, 3, True)), Back(COLOUR, "RGB", (icc(ICC),), JPEG_NEAR)),
    "icc_amid_fpxr.jpg": (made.jpeg(*made.icc_segments(ICC, 2)[:1], (0xE2, b"FPXR\0\0"), *made.icc_segments(ICC, 2)[1:]), Back(COLOUR, "RGB", (icc(ICC),), JPEG_NEAR)),
    "icc_part_missing.jpg": (made.jpeg(*made.icc_segments(ICC, 3)[1:]), Back(COLOUR, "RGB", (icc(None), said("ICC profile, which is broken")), JPEG_NEAR)),
    "gain_map_only.jpg": (made.jpeg(GAIN_MAP), Back(COLOUR, "RGB", (icc(None), said("gain map")), JPEG_NEAR)),
    "mpf_only.jpg": (stored("mpf_only.jpg"), Back(SCENE, "RGB", (icc(None),), SCENE_NEAR)),
    "mpf_to_png.jpg": (made.jpeg(made.mpf(2)), Back(COLOUR, "RGB", (icc(None),), JPEG_NEAR, "mpf_to_png.png", "png")),
    "mpo.jpg": (stored("mpo.jpg"), Back(SCENE, "RGB", (icc(None), said("further picture")), SCENE_NEAR)),
    "two.mpo": (made.jpeg(made.mpf(2), behind=made.jpeg()), Back(COLOUR, "RGB", (said("further picture"),), JPEG_NEAR, "two.jpg")),
    # metadata over 64 KiB
    "bigicc.jpg": (made.jpeg(*made.icc_segments(BIG_ICC, 4)), Back(COLOUR, "RGB", (icc(BIG_ICC), silent), JPEG_NEAR)),
    "bigicc.png": (made.pillow("PNG", icc_profile=BIG_ICC), Back(COLOUR, "RGB", (icc(BIG_ICC),), JPEG_NEAR, "bigicc.jpg", "jpg")),
    "bigexif.png": (made.png((b"eXIf", made.exif(padding=140_000))), Back(COLOUR, "RGB", (exif_of(64, 48), silent), JPEG_NEAR, "bigexif.jpg", "jpg")),
    "exif_of_3.jpg": (made.jpeg(*made.exif_segments(made.exif(6, True, 140_000))), Back(TURNED, "RGB", (exif_of(48, 64), silent), JPEG_NEAR)),
    "two_exif.jpg": (made.jpeg((0xE1, b"Exif\0\0" + made.exif(6)), (0xE1, b"Exif\0\0" + made.exif(3))), Back(TURNED, "RGB", (exif_of(48, 64),), JPEG_NEAR)),
    "bigexif_kept.png": (made.png((b"eXIf", made.exif(padding=70_000))), Back(COLOUR, "RGB", (exif_of(64, 48), silent))),
    # metadata that must fit the upright picture
    "turned_xmp_thumb.jpg": (stored("turned_xmp_thumb.jpg"), Back(SCENE.swapaxes(0, 1)[:, ::-1], "RGB", (holds(b'tiff:Orientation="1"', b'tiff:ImageWidth="48"'),), SCENE_NEAR)),
    "turned.jpg": (made.jpeg((0xE1, APP1_XMP + TURNED_XMP), exif=b"Exif\0\0" + made.exif(6, True)), Back(TURNED, "RGB", (exif_of(48, 64), holds(b"<tiff:Orientation>1<", b"XDimension>48<")), JPEG_NEAR)),
    "turned.png": (made.png((b"eXIf", made.exif(6, True)), (b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + TURNED_XMP)), Back(TURNED, "RGB", (exif_of(48, 64), holds(b"<tiff:Orientation>1<")))),
    "turned_old.png": (made.png((b"zTXt", made.raw_profile(made.exif(6)))), Back(TURNED, "RGB", (exif_of(48, 64), lacks(b"Raw profile")))),
    "upright_thumb.webp": (made.pillow("WEBP", lossless=True, exif=made.exif(1, True)), Back(COLOUR, "RGB", (exif_of(64, 48),))),
    "ultrahdr.jpg": (stored("ultrahdr.jpg"), Back(SCENE, "RGB", (said("gain map"), lacks(b"hdrgm", b"GainMap")), SCENE_NEAR)),
    "ultrahdr_made.jpg": (made.jpeg((0xE1, APP1_XMP + ULTRA_HDR), GAIN_MAP, made.mpf(2)), Back(COLOUR, "RGB", (said("gain map."), lacks(b"hdrgm", b"GainMap"), holds(b'dc:title="kept"')), JPEG_NEAR)),
    "motion.jpg": (made.jpeg((0xE1, APP1_XMP + MOTION), behind=bytes(99)), Back(COLOUR, "RGB", (said("motion clip"), lacks(b"MotionPhoto"), holds(b'dc:title="kept"')), JPEG_NEAR)),
    # density, IPTC, comments
    "dpi300.jpg": (stored("dpi300.jpg"), Back(SCENE, "RGB", (info("dpi", (300, 300)),), SCENE_NEAR)),
    "dpi_to_png.jpg": (made.jpeg(**JFIF_300), Back(COLOUR, "RGB", (info("dpi", pytest.approx((300, 300), abs=0.1)),), JPEG_NEAR, "dpi_to_png.png", "png")),
    "dpi_turned.jpg": (made.jpeg(dpi=(300, 150), exif=b"Exif\0\0" + made.exif(6)), Back(TURNED, "RGB", (info("dpi", (150, 300)),), JPEG_NEAR)),
    "dpi.png": (made.pillow("PNG", dpi=(118, 118)), Back(COLOUR, "RGB", (info("dpi", pytest.approx((118, 118), abs=0.1)),))),
    "dpi.tif": (made.pillow("TIFF", dpi=(600, 600)), Back(COLOUR, "RGB", (info("dpi", (600, 600)),))),
    "dpi.bmp": (made.pillow("BMP", dpi=(118, 118)), Back(COLOUR, "RGB", (info("dpi", pytest.approx((118, 118), abs=0.1)),))),
    "iptc.jpg": (made.jpeg((0xED, made.photoshop(IPTC))), Back(COLOUR, "RGB", (holds(b"Photoshop 3.0\x008BIM\4\4", IPTC), lacks(b"the rainy thumbnail")), JPEG_NEAR)),
    "exif.tif": (made.tiff_with_exif(6, False, "<"), Back(TURNED, "RGB", (camera, said("output: the maker's notes.")))),
    "exif_big.tif": (made.tiff_with_exif(6, True, ">"), Back(TURNED, "RGB", (camera, lacks(b"the maker")))),
    "exif_to_jpeg.tif": (made.tiff_with_exif(6, False, ">"), Back(TURNED, "RGB", (camera,), JPEG_NEAR, "exif_to_jpeg.jpg", "jpg")),
    "exif_to_tiff.jpg": (made.jpeg(exif=made.tiff_exif(6)), Back(TURNED, "RGB", (camera, silent), JPEG_NEAR, "exif_to_tiff.tiff", "tiff")),
    "notes_to_tiff.jpg": (made.jpeg((0xE1, b"Exif\0\0" + made.tiff_with_exif(1, False, ">"))), Back(COLOUR, "RGB", (camera, said("output: the maker's notes.")), JPEG_NEAR, "notes_to_tiff.tiff", "tiff")),
    "iptc_long.tif": (made.tiff(COLOUR, 2, order=">", more=((33723, 4, 3, IPTC + bytes(3)),)), Back(COLOUR, "RGB", (holds(IPTC),))),
    "iptc.tif": (made.tiff(COLOUR, 2, more=((33723, 7, 9, IPTC),)), Back(COLOUR, "RGB", (holds(IPTC), tag(33723, IPTC)))),
    "comment.jpg": (made.jpeg((0xFE, b"a rainy day")), Back(COLOUR, "RGB", (info("comment", b"a rainy day"),), JPEG_NEAR)),
    "comment.png": (made.png((b"tEXt", b"Comment\0a rainy day")), Back(COLOUR, "RGB", (info("Comment", "a rainy day"),))),
    "long_comment.png": (made.png((b"tEXt", b"Comment\0" + b"a" * 70_000), (b"tEXt", b"Description\0z")), Back(COLOUR, "RGB", (said("comment, which is too long"),), JPEG_NEAR, "long_comment.jpg", "jpg")),
    "escapes.png": (made.png((b"tEXt", b"\x1b]0;Author\0me")), Back(COLOUR, "RGB", (said("texts"), no_escapes), JPEG_NEAR, "escapes.jpg", "jpg")),
    "raw_blanks.png": (made.png((b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"a" + b" 1" * 200_000 + b"z"))), Back(COLOUR, "RGB")),
    "nan_dpi.jpg": (made.jpeg((0xE1, b"Exif\0\0" + made.exif_nan())), Back(COLOUR, "RGB", (info("dpi", None),), JPEG_NEAR, "nan_dpi.png", "png")),
    "texts.png": (made.png((b"tEXt", b"Author\0me"), (b"tEXt", b"Software\0paint")), Back(COLOUR, "RGB", (said("texts (Author)"),), JPEG_NEAR, "texts.jpg", "jpg")),
    "raw_xmp.png": (made.png((b"zTXt", b"Raw profile type xmp\0\0" + zlib.compress(b"\nxmp\n%8d\n%s\n" % (9, made.xmp('dc:title="kept"').hex().encode())))), Back(COLOUR, "RGB", (holds(b'dc:title="kept"'), lacks(b"Raw profile")))),
    "dpi_of_exif.jpg": (made.jpeg(exif=made.exif_dpi(240))[:2] + made.jpeg(exif=made.exif_dpi(240))[20:], Back(COLOUR, "RGB", (info("dpi", pytest.approx((240, 240), abs=0.1)),), JPEG_NEAR, "dpi_of_exif.png", "png")),
    "iptc_to_png.jpg": (made.jpeg((0xED, made.photoshop(b"rain"))), Back(COLOUR, "RGB", (said("IPTC"),), JPEG_NEAR, "iptc_to_png.png", "png")),
    # what the numbers mean
    "gama1.png": (stored("gama1.png"), Back(SCENE, "RGB", (info("gamma", 1.0),))),
    "gama_chrm.png": (made.png((b"gAMA", (100000).to_bytes(4, "big")), (b"cHRM", bytes(32))), Back(COLOUR, "RGB", (info("gamma", 1.0), info("chromaticity", (0.0,) * 8)))),
    "srgb.png": (made.png((b"sRGB", b"\1")), Back(COLOUR, "RGB", (info("srgb", 1), silent))),
    "cicp.png": (made.png(PQ), Back(COLOUR, "RGB", (holds(b"cICP\x09\x10\0\1"),))),
    "pq_to_jpeg.png": (made.png(PQ), Refused(r"is HDR \(PQ\)", "jpg")),
    "hlg_to_webp.png": (made.png((b"cICP", bytes((9, 18, 0, 1)))), Refused(r"is HDR \(HLG\)", "webp")),
    "gama1_to_jpeg.png": (made.png((b"gAMA", (100000).to_bytes(4, "big"))), Back(COLOUR, "RGB", (shows_middle_as(188),), JPEG_NEAR, "gama1_to_jpeg.jpg", "jpg")),
    "gama_18_to_jpeg.png": (made.png((b"gAMA", (55556).to_bytes(4, "big"))), Back(COLOUR, "RGB", (shows_middle_as(147),), JPEG_NEAR, "gama_18_to_jpeg.jpg", "jpg")),
    "srgb_to_jpeg.png": (made.png((b"sRGB", b"\1"), (b"gAMA", (45455).to_bytes(4, "big"))), Back(COLOUR, "RGB", (icc(None), silent), JPEG_NEAR, "srgb_to_jpeg.jpg", "jpg")),
    "icc.avif": (made.pillow("AVIF", icc_profile=ICC, quality=95, subsampling="4:4:4"), Back(COLOUR, "RGB", (icc(ICC), silent), 3)),
    "icc.tif": (made.pillow("TIFF", icc_profile=ICC), Back(COLOUR, "RGB", (icc(ICC), silent))),
    "icc.bmp": (made.bmp_v5(ICC), Back(COLOUR, "RGB", (said("ICC profile."),))),
    "icc_kept.bmp": (made.bmp_v5(ICC), Back(COLOUR, "RGB", (icc(ICC), silent), 0, "icc_kept.png", "png")),
    "icc_broken.webp": (made.pillow("WEBP", lossless=True, icc_profile=b"none"), Back(COLOUR, "RGB", (icc(None), said("ICC profile, which is broken")))),
    "icc_broken.avif": (made.pillow("AVIF", quality=95, icc_profile=b"none"), Back(COLOUR, "RGB", (icc(None), said("ICC profile, which is broken")), 8)),
    "signed.jpg": (made.jpeg((0xEB, b"JP\0\1\0\0\0\1" + made.CREDENTIALS)), Back(COLOUR, "RGB", (said("content credentials"), lacks(b"c2pa")), JPEG_NEAR)),
    "signed.png": (made.png((b"caBX", made.CREDENTIALS)), Back(COLOUR, "RGB", (said("content credentials"), lacks(b"c2pa")))),
    "signed.webp": (made.signed_webp(), Back(COLOUR, "RGB", (said("content credentials"), lacks(b"c2pa")))),
    "signed.gif": (made.signed_gif(), Back(np.repeat(GREY[..., None], 3, 2), "RGB", (said("content credentials"),), 0, "signed.png", "png")),
    "signed.tif": (made.tiff(COLOUR, 2, more=((52545, 7, len(made.CREDENTIALS), made.CREDENTIALS),)), Back(COLOUR, "RGB", (said("content credentials"), lacks(b"c2pa")))),
    "signed.avif": (made.signed_box(made.pillow("AVIF", quality=95)), Back(COLOUR, "RGB", (said("content credentials"), lacks(b"c2pa")), 8)),
    "signed.heic": (made.signed_box(stored("a.heic")), Back(SCENE, "RGB", (said("content credentials"), lacks(b"c2pa")), SCENE_NEAR, "signed.jpg")),
    "xmp.avif": (made.pillow("AVIF", xmp=TITLED, quality=95), Back(COLOUR, "RGB", (holds(b'dc:title="kept"'), silent), 8)),
    "xmp.gif": (made.gif_with_xmp(TITLED), Back(np.repeat(GREY[..., None], 3, 2), "RGB", (holds(b'dc:title="kept"'), silent), 0, "xmp.png", "png")),
    "xmp.jp2": (made.jp2_with_box(bytes.fromhex("be7acfcb97a942e89c71999491e3afac"), TITLED), Back(COLOUR, "RGB", (said("XMP"),))),
    "exif.jp2": (made.jp2_with_box(b"JpgTiffExif->JP2", made.exif()), Back(COLOUR, "RGB", (said("EXIF"),))),
    "layers.tif": (made.tiff(COLOUR, 2, more=((37724, 7, 58, made.PHOTOSHOP + b"MIB8ryaL" + bytes(14)),)), Back(COLOUR, "RGB", (said("layers"),))),
    "no_layers.tif": (made.tiff(COLOUR, 2, more=((37724, 7, 58, made.PHOTOSHOP + b"MIB8ttaP" + bytes(14)),)), Back(COLOUR, "RGB", (silent,))),
    # grey with alpha, grey with a transparent value
    "grey_alpha.png": (made.pillow("PNG", LA), Back(LA, "LA")),
    "trns_grey.png": (stored("trns_grey.png"), Back(np.dstack((grey := np.asarray(Image.open(made.CASES / "trns_grey.png")), np.where(grey == 100, 0, 255))), "LA")),
    "trns_grey_8.png": (made.grey_png(8, 100), Back(TRANSPARENT_100, "LA")),
    "trns_grey_16.png": (made.grey_png(16, 100 * 257), Back(TRANSPARENT_100[..., [0, 0, 0, 1]], "RGBA")),
    **{f"trns_grey_{bits}.png": (made.grey_png(bits, 1), Back(np.dstack((grey, np.where(grey == 255 // ((1 << bits) - 1), 0, 255).astype(np.uint8))), "LA")) for bits, grey in SMALL_BITS.items()},
    # BMP: alpha only where a mask says so, and the masks count
    "x8_masks.bmp": (stored("x8_masks.bmp"), Back(SCENE, "RGB")),
    "xrgb.bmp": (made.bmp((0xFF0000, 0xFF00, 0xFF)), Back(COLOUR, "RGB")),
    "xrgb_down.bmp": (made.bmp((0xFF0000, 0xFF00, 0xFF), down=True), Back(COLOUR, "RGB")),
    "xbgr.bmp": (made.bmp((0xFF, 0xFF00, 0xFF0000)), Back(COLOUR, "RGB")),
    "rgbx_52.bmp": (made.bmp((0xFF000000, 0xFF0000, 0xFF00), 52), Back(COLOUR, "RGB")),
    "xrgb_124.bmp": (made.bmp((0xFF0000, 0xFF00, 0xFF), 124), Back(COLOUR, "RGB")),
    "argb_124.bmp": (made.bmp((0xFF0000, 0xFF00, 0xFF, 0xFF000000), 124), Back(RGBA, "RGBA")),
    "os2.bmp": (made.bmp_os2(), Back(COLOUR, "RGB")),
    # whose pixels stand where other headers say how many bits there are
    "os2_like_16.bmp": (made.bmp_os2(SIXTEEN), Back(SIXTEEN, "RGB")),
    "os2_palette.bmp": (made.bmp_os2(GREY, RAMP, 3), Back(np.dstack((255 - GREY, GREY, GREY)), "RGB")),
    **{f"bits_{4 + green + 6}_{header}.bmp": (made.bmp_16(green, header), Back(made.of_16_bits(green), "RGB", (), 0.5)) for green in (5, 6) for header in (40, 124)},
    # rare kinds: right, or refused
    "grey.ras": (made.opencv(".ras", GREY), Back(GREY, "L", (), 0, "grey.png", "png")),
    "colour.ras": (made.opencv(".ras", COLOUR), Back(COLOUR, "RGB", (), 0, "colour.png", "png")),
    "grey.pam": (made.pam(b"GRAYSCALE", GREY), Back(GREY, "L", (), 0, "grey.png", "png")),
    "deep.pam": (made.pam(b"GRAYSCALE", DEEP[..., 1], 65535), Back(DEEP[..., 1], "I;16", (), 0, "deep.png", "png")),
    "blanks.pam": (made.pam(b"GRAYSCALE", GREY).replace(b"# rain", b"# "), Back(GREY, "L", (), 0, "blanks.png", "png")),
    "rgb.pam": (made.pam(b"RGB", COLOUR), Refused("is PAM of a kind", "png")),
    "black_and_white.pam": (made.pam(b"BLACKANDWHITE", GREY >> 7, 1), Refused("is PAM of a kind", "png")),
    "dark.pam": (made.pam(b"GRAYSCALE", GREY // 3, 100), Refused("is PAM of a kind", "png")),
    "no_newline.pgm": (b"P2 64 48 255\n" + b" ".join(b"%d" % value for value in GREY.flat), Back(GREY, "L")),
    "zeros_before.ppm": (b"P6 64 48 000100\n" + COLOUR.tobytes(), Refused("has values up to 100")),
    "carriage_returns.ppm": (b"P6\r64 48\r100\r" + COLOUR.tobytes(), Refused("has values up to 100")),
    "blanks.ppm": (b"P6" + b" " * 10_000 + b"x", Refused("is damaged, truncated")),
    "sycc.jp2": (made.pillow("JPEG2000", COLOUR, "YCbCr"), Refused("colours of kind 18")),
    "behind.avif": (made.avif_with_exif_behind(), Back(made.GRAIN, "RGB", (holds(b"a rainy day"),), 12)),
    "alpha_xmp.avif": (made.pillow("AVIF", RGBA, quality=95, xmp=made.xmp("")), Back(RGBA, "RGBA", (), 3)),
    "moving.avif": (made.moving_avif(), Refused("several frames")),
    "hidden.webp": (made.pillow("WEBP", RGBA, lossless=True, exact=True), Back(RGBA, "RGBA")),
    # TIFF
    **{f"tiles_{turn}.tif": (made.tiled_tiff(turn), Back(turned, "RGB")) for turn, turned in {1: COLOUR, 2: COLOUR[:, ::-1], 3: COLOUR[::-1, ::-1], 6: TURNED, 7: COLOUR[::-1, ::-1].swapaxes(0, 1)}.items()},
    **{f"turned_{kind}.tif": (made.tiff(COLOUR, 2, more=((274, kind, 1, b"\6\0\0\0"),)), Back(TURNED, "RGB")) for kind in (1, 3, 4)},
    "checksum.tif": (made.with_wrong_checksum(made.tiled_tiff(1)), Refused("parts of its data are missing")),
    **{f"hole_{kind}.tif": (made.hollow(made.pillow("TIFF", np.tile(NOISE, (2, 2, 1)), compression=kind), 0.5, 0.8), Refused("parts of its data are missing")) for kind in ("tiff_lzw", "tiff_deflate")},
    **{f"whole_{kind}.tif": (made.pillow("TIFF", NOISE, compression=kind), Back(NOISE, "RGB")) for kind in ("tiff_lzw", "tiff_deflate", "packbits")},
    "cmyk.tif": (made.pillow("TIFF", COLOUR, "CMYK"), Back(COLOUR, "RGB")),
    "camera_to_tiff.jpg": (made.jpeg(exif=b"Exif\0\0" + made.exif()), Back(COLOUR, "RGB", (tag(270, "a rainy day"),), JPEG_NEAR, "camera_to_tiff.tiff", "tiff")),
    "miniswhite16.tif": (stored("miniswhite16.tif"), Back(65535 - np.asarray(Image.open(made.CASES / "miniswhite16.tif")).astype(int), "I;16")),
    "white_is_0.tif": (made.tiff(65535 - DEEP[..., 1], 0), Back(DEEP[..., 1], "I;16")),
    "white_is_0_motorola.tif": (made.tiff(65535 - DEEP[..., 1], 0, order=">"), Back(DEEP[..., 1], "I;16")),
    "white_is_0_big.tif": (made.tiff(65535 - DEEP[..., 1], 0, big=True), Back(DEEP[..., 1], "I;16")),
    "white_is_0_8.tif": (made.tiff(255 - GREY, 0), Back(GREY, "L")),
    "planes_beyond.tif": (made.tiff(COLOUR, 2, planar=True, more=((273, 4, 3, struct.pack("<3I", 8, 8 + GREY.size, 1 << 20)),)), Refused("parts of its data are missing")),
    "planes_cut.tif": (made.tiff(COLOUR, 2, planar=True, more=((279, 4, 3, struct.pack("<3I", GREY.size, GREY.size, 1 << 20)),)), Refused("parts of its data are missing")),
    "bands.tif": (made.tiff(COLOUR, 1), Refused("TIFF of 3 channels that are no colours; save it as RGB")),
    "bands_16.tif": (made.tiff(DEEP, 0), Refused("TIFF of 3 channels that are no colours; save it as RGB")),
    "palette_1.tif": (made.tiff(GREY, 3, more=((258, 3, 1, b"\1\0"), (320, 3, 6, bytes(12)))), Refused("a palette of 1 bits")),
    "palette_gone.tif": (made.tiff(GREY, 3), Refused("a palette that is missing or cut off")),
    "palette_cut.tif": (made.tiff(GREY, 3, more=((320, 3, 767, bytes(1534)),)), Refused("a palette that is missing or cut off")),
    "palette.tif": (made.tiff(GREY, 3, more=((320, 3, 768, np.repeat(np.arange(256, dtype="<u2") * 257, 3).reshape(256, 3).T.tobytes()),)), Back(np.dstack((GREY,) * 3), "RGB")),
    "strips_unsaid.tif": (made.tiff(COLOUR, 2, more=((273, 4, 1 << 20, b"\0\0\1\0\0"),)), Refused("parts of its data are missing")),
    "planes_8.tif": (made.tiff(COLOUR, 2, planar=True), Back(COLOUR, "RGB")),
    "planes_16.tif": (made.tiff(DEEP, 2, planar=True), Refused("separate planes")),
    "planes_16_big.tif": (made.tiff(DEEP, 2, planar=True, big=True), Refused("separate planes")),
    "alpha_8.tif": (made.tiff(RGBA, 2, extra=2), Back(RGBA, "RGBA", (tag(338, (2,)),))),
    **{f"selection_{8 * each.itemsize}.tif": (made.tiff(each, 2, extra=0), Back(COLOUR, "RGB", (said("a channel of unspecified meaning"),), 0, f"selection_{8 * each.itemsize}.png", "png")) for each in (RGBA, RGBA.astype(np.uint16) * 257)},
    "alpha_unsaid.tif": (made.tiff(RGBA, 2), Back(RGBA, "RGBA", (silent,))),
    "alpha_8_big.tif": (made.tiff(RGBA, 2, extra=2, big=True), Back(RGBA, "RGBA")),
    "premultiplied_8_big.tif": (made.tiff(RGBA, 2, extra=1, big=True), Refused("already multiplied")),
    "premultiplied_16.tif": (made.tiff(RGBA.astype(np.uint16) * 257, 2, extra=1), Refused("already multiplied")),
    "grey_alpha.tif": (made.tiff(LA, 1, extra=2), Refused("TIFF with alpha beside grey")),
    "zstd.tif": (made.tiff(COLOUR, 2, compression=50000), Refused("TIFF with Zstandard compression")),
    "png_inside.tif": (made.tiff(COLOUR, 2, compression=34933), Refused("TIFF with PNG compression")),
    "lab.tif": (made.tiff(COLOUR, 8), Refused("TIFF with Lab colours")),
    "cmyk_16.tif": (made.tiff(np.dstack((DEEP, DEEP[..., 0])), 5), Refused("TIFF in CMYK of 16 bits")),
    "raw.dng": (made.tiff(COLOUR, 2, more=((254, 4, 1, b"\1\0\0\0"), (50706, 1, 4, b"\1\4\0\0"))), Refused(r"not read \(DNG camera raw\); develop it")),
    "raw_named.tif": (made.tiff(COLOUR, 2, more=((254, 4, 1, b"\1\0\0\0"), (50706, 1, 4, b"\1\4\0\0"))), Refused("camera raw file")),
    # JPEG 2000
    "jp2_12.jp2": (stored("jp2_12.jp2"), Back(SCENE, "RGB", (), 1)),
    "jp2_15.jp2": (stored("jp2_15.jp2"), Back(COLOUR, "RGB", (), 1)),
    "jp2_9_grey.jp2": (stored("jp2_9_grey.jp2"), Back(DEEP[..., 0], "I;16", (), 150)),
    "half_empty.jp2": (made.hollow(made.opencv(".jp2", COLOUR)), Refused("parts of its data are missing")),
    "hole.jp2": (made.hollow(made.opencv(".jp2", NOISE), 1 / 2, 3 / 4), Refused("parts of its data are missing")),
    "no_end.jp2": (made.hollow(made.opencv(".jp2", NOISE), 0.99), Refused("parts of its data are missing")),
    # HEIC
    "a.heic": (stored("a.heic"), Back(SCENE, "RGB", (), SCENE_NEAR, "a.jpg")),
    "heic_named.jpg": (stored("heic_named.jpg"), Back(SCENE, "RGB", (), SCENE_NEAR)),
    "turned.heic": (stored("turned.heic"), Back(TURNED, "RGB", (icc(stored_icc("turned.heic")), holds(b"a rainy day")), 3, "turned.jpg")),
    "deep_alpha.heic": (stored("deep_alpha.heic"), Back(np.dstack((COLOUR, np.where(np.arange(64) < 16, 0, 255) + 0 * GREY)).astype(np.uint8), "RGBA", (white_is_65535,), 3, "deep_alpha.png")),
    "hlg.hif": (stored("hlg.hif"), Back(COLOUR, "RGB", (holds(b"cICP\x09\x12\0\1"),), 3, "hlg.png")),
    "hlg_8.heic": (made.with_nclx(stored("a.heic"), 9, 18), Back(SCENE, "RGB", (holds(b"cICP\x09\x12\0\1"),), 30, "hlg_8.png")),
    # half the colours, limited range, BT.601, as FFmpeg writes it
    "limited12.avif": (stored("limited12.avif"), Back(RAMPS, "RGB", (silent,), 2, "limited12.png", "png")),
    "tone_map.heic": (stored("a.heic").replace(b"mif1", b"tmap", 1), Back(SCENE, "RGB", (said("gain map"),), SCENE_NEAR, "tone_map.jpg")),
    "cut.heic": (stored("a.heic")[:-900], Refused("damaged")),
    "crash.heic": (stored("turned.heic").replace(b"Exif", b"\xffxif", 1), Refused("damaged HEIF, on which its decoder crashes")),
    "pq.avif": (made.with_nclx(made.opencv(".avif", COLOUR), 9, 16), Refused(r"is HDR \(PQ\)")),
    "p3.avif": (made.with_nclx(made.opencv(".avif", COLOUR), 12, 13), Back(COLOUR, "RGB", (holds("Colours of the original".encode("utf-16-be")),), 8)),
    # sound files of kinds that are not read
    "jpeg12.jpg": (stored("jpeg12.jpg"), Refused("JPEG of 12 bits")),
    "jxl_named.jpg": (b"\xff\x0a" + bytes(99), Refused(r"not read \(JPEG XL\); convert it to PNG")),
    "page.png": (b"<!DOCTYPE html><html>", Refused(r"not read \(web page\); fetch the file itself")),
    "psd_named.tif": (b"8BPS\0\1" + bytes(99), Refused("Photoshop")),
    "clip_named.jpg": (b"\0\0\0\x18ftypisom" + bytes(99), Refused(r"not read \(clip\); esdnet video derains it")),
    "half_empty.jpg": (made.hollow(LARGE_JPEG), Refused("has no end")),
    **{f"{name}.jpg": (data, Refused("a part of its data is missing")) for name, data in made.with_less_data(LARGE_JPEG).items()},
    "hole.jpg": (made.hollow(LARGE_JPEG, 0.5, 0.51), Refused("a part of its data is zeros")),
    "noise.jpg": (made.with_noise(LARGE_JPEG), Refused("a part of its data is something else")),
    "noise_progressive.jpg": (made.with_noise(LARGE_PROGRESSIVE), Refused("a part of its data is something else")),
    "gap_restarts.jpg": (made.with_less_data(made.jpeg(pixels=LARGE, restart_marker_blocks=7))["gap"], Refused("truncated or damaged: a part of its data is missing")),
    "cut_scan.jpg": (LARGE_PROGRESSIVE[: LARGE_PROGRESSIVE.rindex(b"\xff\xda") + 4], Refused("a part of its data is something else")),
    "filled_up.jpg": (made.jpeg()[:-2] + bytes(999) + b"\xff\xd9", Back(COLOUR, "RGB", (silent,), JPEG_NEAR)),
    "comment_behind.jpg": (made.jpeg()[:-2] + b"\xff\xfe\0\x66" + bytes(100) + b"\xff\xd9", Back(COLOUR, "RGB", (silent,), JPEG_NEAR)),
    # nothing but zeros in their data, and sound
    **{f"flat_{how}.jpg": (made.jpeg(pixels=np.full((512, 512, 3), 128, np.uint8), **{how: True}), Back(np.full((512, 512, 3), 128, np.uint8), "RGB", (silent,))) for how in ("optimize", "progressive")},
    **{f"restarts_{how}.jpg": (made.jpeg(pixels=COLOUR, restart_marker_blocks=3, **{how: True}), Back(COLOUR, "RGB", (silent,), JPEG_NEAR)) for how in ("optimize", "progressive")},
    "grey_corner.jpg": (made.jpeg(pixels=CORNER), Back(CORNER, "RGB", (silent,), JPEG_NEAR)),
    # what no output takes is said before the work
    "small.jp2": (made.pillow("JPEG2000", COLOUR[:20, :20]), Refused("cannot be written as .jp2")),
    "long.png": (made.pillow("PNG", np.zeros((1, 16384), np.uint8)), Refused("has a side longer than 16383 pixels, the limit of .webp", "webp")),
}  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_identity(tmp_path_factory.mktemp("weights") / "identity.safetensors", tile=64, overlap=8)


@pytest.mark.parametrize("name", AWKWARD)
def test_it_comes_back_right_or_is_refused_with_the_reason(name: str, weights: Path, tmp_path: Path, run: Run) -> None:
    data, case = AWKWARD[name]
    source = tmp_path / "in" / name  # by name: a folder would pass over some
    source.parent.mkdir()
    source.write_bytes(data)
    os.utime(source, (1_000_000_000, 1_000_000_000))
    options = ["--format", case.to] if case.to else []
    result = run("images", source, "-o", tmp_path / "out", "--weights", weights, *options)
    lines = [line for line in result.stderr.splitlines() if name in line]
    if isinstance(case, Refused):
        assert {path.name for path in tmp_path.glob("out/*")} <= {JOURNAL}
        assert lines
        assert re.search(case.reason, lines[0]), lines[0]
        return
    path = tmp_path / "out" / (case.name or name)
    output = Output(path.read_bytes(), "\n".join(lines))
    assert output.image.mode == case.mode
    pixels = np.array(output.image).astype(int)
    assert pixels.shape == case.pixels.shape
    assert np.abs(pixels - case.pixels).mean() <= case.off
    for check in case.also:
        check(output)
    assert path.stat().st_mtime == 1_000_000_000, "outputs carry the input's date"
