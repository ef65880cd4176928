"""Pictures come back as they were: files of many kinds, made here by OpenCV and Pillow."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import awkward as made
import cv2
import numpy as np
import pytest
from conftest import photo, read, write
from numpy.typing import NDArray
from PIL import Image, ImageCms

from esdnet_cli.errors import PictureError
from esdnet_cli.pipeline import avif, bmp
from esdnet_cli.pipeline.images import check_output, encode_picture, grey_again, read_picture

ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def pillow(path: Path, mode: str = "RGB", pixels: NDArray[np.uint8] | None = None, **options: object) -> Path:
    Image.fromarray(photo() if pixels is None else pixels).convert(mode).save(path, **options)
    return path


def exif(orientation: int = 1) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010E] = "a rainy day"
    return block.tobytes()


def through(path: Path, output: Path | None = None) -> NDArray[np.generic]:
    """Decode and encode a file without touching its pixels; what then stands in the output."""
    output = output or path.with_name("out" + path.suffix)
    output.write_bytes(encode_picture(read_picture(path.read_bytes(), path), output))
    return read(output)


COLOUR = photo(40, 48)  # OpenCV writes no JPEG 2000 below 32 pixels
GREY = COLOUR[..., 0]
WITH_ALPHA = np.dstack((COLOUR, GREY))
DEEP = COLOUR.astype(np.uint16) * 257 ^ 37  # the lower bytes must survive too


@pytest.mark.parametrize(
    "ending, pixels",
    [(ending, COLOUR) for ending in (".png", ".PNG", ".webp", ".tif", ".tiff", ".bmp", ".jp2", ".ppm", ".pnm")]
    + [(ending, GREY) for ending in (".png", ".tif", ".bmp", ".jp2", ".pgm")]
    + [(ending, WITH_ALPHA) for ending in (".png", ".webp", ".bmp", ".jp2")]
    + [(ending, DEEP) for ending in (".png", ".tif", ".ppm")]
    + [(ending, DEEP[..., 0]) for ending in (".png", ".tif", ".pgm")]
    + [(".png", np.dstack((DEEP, DEEP[..., 0]))), (".tif", np.dstack((DEEP, DEEP[..., 0])))],
)
def test_lossless_formats_keep_every_bit(ending: str, pixels: NDArray[np.generic], tmp_path: Path) -> None:
    before = write(tmp_path / f"in{ending}", pixels)
    after = through(before)
    np.testing.assert_array_equal(after, read(before))
    assert after.dtype == pixels.dtype and after.shape == pixels.shape or ending == ".webp"


@pytest.mark.parametrize("ending", [".jpg", ".JPEG", ".avif", ".gif"])
def test_lossy_formats_stay_close(ending: str, tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(photo(64, 80), (0, 0), 3)
    before = write(tmp_path / f"in{ending}", smooth)
    error = np.abs(through(before).astype(int) - read(before))
    assert error.mean() < (8 if ending == ".gif" else 2)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".tiff", ".bmp", ".webp"])
@pytest.mark.parametrize("shape", [(8, 9), (8, 9, 3)])
def test_colours_that_are_all_grey_stay_three_channels(ending: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    before = write(tmp_path / f"in{ending}", np.full(shape, 128, np.uint8))
    assert read_picture(before.read_bytes(), before).grey
    assert through(before).shape == (shape if ending != ".webp" else (8, 9, 3))


@pytest.mark.parametrize("mode", ["P", "1", "LA", "L", "RGBA", "I;16"])
def test_png_kinds(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(photo()).convert("L" if mode == "I;16" else mode).convert(mode)
    image.save(tmp_path / "in.png")
    picture = read_picture((tmp_path / "in.png").read_bytes(), tmp_path / "in.png")
    assert picture.grey == (mode in ("1", "LA", "L", "I;16"))
    assert (picture.alpha is not None) == (mode in ("LA", "RGBA"))
    np.testing.assert_array_equal(through(tmp_path / "in.png"), read(tmp_path / "in.png"))


def test_cmyk_and_progressive_jpeg(tmp_path: Path) -> None:
    for name, mode, options in (("c.jpg", "CMYK", {}), ("p.jpg", "RGB", {"progressive": True})):
        path = pillow(tmp_path / name, mode, **options)
        assert read_picture(path.read_bytes(), path).rgb.shape == (24, 30, 3)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
def test_orientation_is_shown_right_and_turned_once(ending: str, orientation: int, tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(photo(40, 56), (0, 0), 3)
    path = pillow(tmp_path / f"in{ending}", pixels=smooth, exif=exif(orientation))
    output = tmp_path / f"out{ending}"
    through(path, output)
    # Pillow is the judge: it turns as EXIF asks
    shown = [np.asarray(_transposed(file)).astype(int) for file in (path, output)]
    assert shown[0].shape == shown[1].shape == ((56, 40, 3) if orientation > 4 else (40, 56, 3))
    assert np.abs(shown[0] - shown[1]).mean() < 3
    with Image.open(output) as image:
        assert image.getexif()[0x0112] == 1
        assert image.getexif()[0x010E] == "a rainy day"


@pytest.mark.parametrize("ending", [".jpg", ".webp"])
@pytest.mark.parametrize("of_exif, of_xmp, kept", [(None, 6, 6), (1, 6, 6), (6, 6, 1), (3, 3, 1)])
def test_who_turns_by_xmp_does_so_once(
    of_exif: int | None, of_xmp: int, kept: int, ending: str, tmp_path: Path
) -> None:
    block = b"" if of_exif is None else exif(of_exif)
    path = pillow(tmp_path / f"in{ending}", exif=block, xmp=made.xmp(f'tiff:Orientation="{of_xmp}"'))
    through(path, tmp_path / f"out{ending}")
    assert f'tiff:Orientation="{kept}"'.encode() in (tmp_path / f"out{ending}").read_bytes()


def test_an_orientation_is_honoured_whatever_kind_of_number_it_is(tmp_path: Path) -> None:
    short, long = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0), struct.pack(">HHII", 0x0112, 4, 1, 6)
    path = pillow(tmp_path / "in.jpg", pixels=photo(40, 56), exif=b"Exif\0\0" + made.exif(6).replace(short, long))
    assert through(path, tmp_path / "out.jpg").shape == (56, 40, 3)
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.getexif()[0x0112] == 1


def _transposed(path: Path) -> Image.Image:
    from PIL import ImageOps

    with Image.open(path) as image:
        return ImageOps.exif_transpose(image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_is_turned_as_its_own_properties_say(orientation: int, tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(photo(64, 96), (0, 0), 3)
    path = pillow(tmp_path / "in.avif", pixels=smooth, exif=exif(orientation), quality=95)
    picture = read_picture(path.read_bytes(), path)
    shown = np.asarray(_transposed(path)).astype(int)
    assert picture.rgb.shape == shown.shape
    assert np.abs(picture.rgb - shown).mean() < 3


def test_avif_is_not_turned_by_exif_alone(tmp_path: Path) -> None:
    block = Image.Exif()
    block[0x0113] = 6  # Pillow would make a turn of AVIF's own of an orientation, 0x0112
    smooth = cv2.GaussianBlur(photo(64, 96), (0, 0), 3)
    path = pillow(tmp_path / "in.avif", pixels=smooth, exif=block.tobytes(), quality=95)
    data = path.read_bytes()
    patched = data.replace(b"\x01\x13\x00\x03", b"\x01\x12\x00\x03").replace(b"\x13\x01\x03\x00", b"\x12\x01\x03\x00")
    assert patched != data
    path.write_bytes(patched)
    for ending in (".avif", ".jpg"):
        through(path, tmp_path / f"out{ending}")
        assert np.asarray(_transposed(tmp_path / f"out{ending}")).shape == (64, 96, 3)


@pytest.mark.parametrize("ending", [".jpg", ".png", ".webp"])
def test_icc_profile_is_kept(ending: str, tmp_path: Path) -> None:
    path = pillow(tmp_path / f"in{ending}", icc_profile=ICC)
    through(path)
    with Image.open(tmp_path / f"out{ending}") as image:
        assert image.info["icc_profile"] == ICC


@pytest.mark.parametrize("block", [b"", b"II", b"MM\0*\0\0\0\xff", b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01" * 9])
def test_broken_exif_is_kept_and_harmless(block: bytes, tmp_path: Path) -> None:
    kinds, blobs = [cv2.IMAGE_METADATA_EXIF], [np.frombuffer(block + b"\0" * 2, np.uint8)]
    done, data = cv2.imencodeWithMetadata(".jpg", photo(), kinds, blobs)
    assert done
    assert read_picture(bytes(data), tmp_path / "x.jpg").rgb.shape == (24, 30, 3)


def test_grey_stays_grey_whatever_the_network_does(tmp_path: Path) -> None:
    coloured = grey_again(photo())
    assert (coloured[..., 0] == coloured[..., 1]).all() and (coloured[..., 1] == coloured[..., 2]).all()


@pytest.mark.parametrize(
    "pixels, ending, shape, dtype",
    [
        (DEEP, ".jpg", (40, 48, 3), np.uint8),
        (WITH_ALPHA, ".jpg", (40, 48, 3), np.uint8),
        (np.dstack((DEEP, DEEP[..., 0])), ".webp", (40, 48, 4), np.uint8),
        (GREY, ".webp", (40, 48, 3), np.uint8),
        (GREY, ".tiff", (40, 48), np.uint8),
    ],
)
def test_changing_the_format_keeps_what_it_can(
    pixels: NDArray[np.generic], ending: str, shape: tuple[int, ...], dtype: type, tmp_path: Path
) -> None:
    after = through(write(tmp_path / "in.png", pixels), tmp_path / f"out{ending}")
    assert after.shape == shape and after.dtype == dtype


def deep_avif(path: Path, numbers: NDArray[np.uint16], bits: int) -> Path:
    """Without loss, of numbers of so many bits."""
    params = [cv2.IMWRITE_AVIF_DEPTH, bits, cv2.IMWRITE_AVIF_QUALITY, 100]
    done, data = cv2.imencode(".avif", np.ascontiguousarray(numbers), params)
    assert done
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_avif_of_more_than_eight_bits_is_read_wholly(bits: int, channels: int, tmp_path: Path) -> None:
    y, x = np.mgrid[:32, :64]
    most = (1 << bits) - 1
    ramps = np.stack((x * most // 63, y * most // 31, (63 - x) * most // 63, (x + y) * most // 94), axis=2)
    numbers = ramps[..., :channels].astype(np.uint16)
    path = deep_avif(tmp_path / "in.avif", numbers, bits)
    picture = read_picture(path.read_bytes(), path)
    expected = np.round(numbers * (65535 / most)).astype(np.uint16)
    np.testing.assert_array_equal(picture.rgb, expected[..., [0, 0, 0] if channels == 1 else [2, 1, 0]])
    if channels == 4:
        assert picture.alpha is not None
        np.testing.assert_array_equal(picture.alpha, expected[..., 3])
    assert read(tmp_path / "in.avif").max() == most, "as OpenCV reads it, 65535 is out of reach"


def test_avif_gets_room_only_where_its_sizes_are_ordinary() -> None:
    data = made.avif_with_exif_behind()
    start = data.index(b"meta") - 4
    long = data[:start] + struct.pack(">I4sQ", 1, b"meta", int.from_bytes(data[start : start + 4]) + 8)
    assert avif.with_room(data) != data
    assert avif.with_room(long + data[start + 8 :]) == long + data[start + 8 :]


def test_avif_keeps_ten_bits(tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(DEEP, (0, 0), 3) >> 6
    path = deep_avif(tmp_path / "in.avif", smooth, 10)
    picture = read_picture(path.read_bytes(), path)
    assert check_output(picture, path) == (), "nothing is lost"
    after = through(path)
    assert after.dtype == np.uint16 and 255 < after.max() <= 1023, "OpenCV's numbers of 10 bits"
    assert np.abs(after.astype(int) - smooth).mean() < 2, "half a level of 8 bits"
    sixteen = read_picture(write(tmp_path / "in.png", DEEP).read_bytes(), tmp_path / "in.png")
    assert check_output(sixteen, path) == ("the lower 6 of 16 bits",)
    assert check_output(sixteen, path.with_suffix(".jpg")) == ("the lower 8 of 16 bits",)


def test_sixteen_bits_are_rounded_to_eight(tmp_path: Path) -> None:
    levels = np.arange(0, 65536, 3, dtype=np.uint16)[: 24 * 900].reshape(24, -1)
    after = through(write(tmp_path / "in.png", levels), tmp_path / "out.bmp")
    np.testing.assert_array_equal(after, np.round(levels / 257).astype(np.uint8))


@pytest.mark.parametrize("padded", [False, True], ids=["to the width", "to a multiple of four"])
@pytest.mark.parametrize("width", [21, 22, 23, 24])
def test_bmp_of_runs_of_bytes(width: int, padded: bool, tmp_path: Path) -> None:
    """Rows of ImageMagick run on to where the next one of an unpacked file would begin."""
    indices = (np.arange(9)[:, None] * 7 + np.arange(width) // 3).astype(np.uint8)
    palette = np.random.default_rng(0).integers(0, 256, (256, 4), np.uint8)
    runs = b""
    for row in indices[::-1].tolist():
        literal = row[:5]  # an odd number of them, then runs
        runs += bytes((0, 5, *literal, 0))
        runs += b"".join(bytes((1, value)) for value in [*row[5:], *([0] * (-width % 4) if padded else [])])
        runs += b"\0\0"
    runs += b"\0\1"
    info = struct.pack("<IiiHHIIiiII", 40, width, 9, 1, 8, 1, len(runs), 0, 0, 256, 0)
    start = 54 + palette.size
    data = struct.pack("<2sIHHI", b"BM", start + len(runs), 0, 0, start) + info + palette.tobytes() + runs
    picture = read_picture(data, tmp_path / "a.bmp")
    np.testing.assert_array_equal(picture.rgb, palette[indices][..., 2::-1])
    if width % 4:  # OpenCV reads what is left of others as it likes
        assert bmp.plain(data[:-40]) == data[:-40], "what is damaged is left to OpenCV"


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".tif", ".bmp", ".jp2", ".ppm", ".avif", ".gif"])
@pytest.mark.parametrize("kept", [0.3, 0.95])
def test_truncated_files_are_refused(
    ending: str, kept: float, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / f"in{ending}", photo(200, 160))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(PictureError, match="truncated|damaged|cannot be decoded"):
        read_picture(path.read_bytes(), path)
    if ending == ".png":
        assert capfd.readouterr().err == "", "libpng must not print on its own"


def _animated(path: Path) -> Path:
    frames = [Image.fromarray(photo(seed=seed)) for seed in (0, 1)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def _float(path: Path) -> Path:
    Image.fromarray(photo()[..., 0].astype(np.float32)).save(path)
    return path


def _sixty_thousand(path: Path) -> Path:
    import struct
    import zlib

    data = bytearray(write(path).read_bytes())
    struct.pack_into(">II", data, 16, 60000, 60000)
    struct.pack_into(">I", data, 29, zlib.crc32(data[12:29]))
    path.write_bytes(data)
    return path


def _alpha_tiff(mode: str) -> Callable[[Path], Path]:
    return lambda path: pillow(path, mode, pixels=WITH_ALPHA)


def _flipped_bit(path: Path) -> Path:
    data = bytearray(write(path).read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return path


def _mixed_avif(path: Path) -> Path:
    """Of a picture with alpha, the second `av1C` says 12 bits instead of 10."""
    deep_avif(path, np.dstack((DEEP, DEEP[..., 0])) >> 6, 10)
    data = bytearray(path.read_bytes())
    data[data.rfind(b"av1C") + 6] |= 32
    path.write_bytes(data)
    return path


ODD = {
    "mixed.avif": (_mixed_avif, "AVIF with parts of 10 and of 12 bits"),
    "grey-alpha.tiff": (_alpha_tiff("LA"), "TIFF with alpha"),
    "damaged.png": (_flipped_bit, "truncated or damaged"),
    "count.pgm": (
        lambda path: (path.write_bytes(b"P5 # rain\n2 2\n1023\n" + bytes(8)), path)[1],
        "has values up to 1023",
    ),
    "animation.gif": (_animated, "several frames"),
    "animation.webp": (_animated, "several frames"),
    "animation.png": (_animated, "several frames"),
    "pages.tiff": (_animated, "several frames or pages"),
    "float.tiff": (_float, "float32 pixels; save it with 8 or 16 bits"),
    "bomb.png": (_sixty_thousand, "has more than 500 megapixels"),
    "empty.png": (lambda path: (path.write_bytes(b""), path)[1], "is empty"),
    "text.png": (lambda path: (path.write_text("no picture " * 9), path)[1], "not a picture at all"),
    "notes.txt": (lambda path: (path.write_text("no picture " * 9), path)[1], "not a picture in a format"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_cannot_be_derained_says_why(name: str, tmp_path: Path) -> None:
    make, message = ODD[name]
    path = make(tmp_path / name)
    with pytest.raises(PictureError, match=message):
        read_picture(path.read_bytes(), path)


@pytest.mark.parametrize("ending", ["gif", "webp", "png", "tiff"])
def test_frames_are_seen_under_any_name(ending: str, tmp_path: Path) -> None:
    path = _animated(tmp_path / f"animation.{ending}").rename(tmp_path / f"\udcff.{ending}")  # no UTF-8
    with pytest.raises(PictureError, match="several frames"):
        read_picture(path.read_bytes(), path)


@pytest.mark.parametrize("name", ["out.pbm", "out.ras", "out.hdr", "out"])
def test_formats_that_are_not_written_name_the_mend(name: str, tmp_path: Path) -> None:
    picture = read_picture(write(tmp_path / "in.png").read_bytes(), tmp_path / "in.png")
    with pytest.raises(PictureError, match="use --format png"):
        encode_picture(picture, tmp_path / name)


def test_pillow_agrees_that_outputs_are_sound(tmp_path: Path) -> None:
    for ending in (".png", ".jpg", ".webp", ".tiff", ".bmp", ".jp2", ".avif", ".gif", ".ppm"):
        path = write(tmp_path / f"in{ending}", COLOUR)
        data = encode_picture(read_picture(path.read_bytes(), path), path)
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.size == (48, 40)
