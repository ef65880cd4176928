"""Makers of odd pictures: files as people have them that OpenCV and Pillow read, but do not write."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import IFDRational

CASES = Path(__file__).parent / "cases"
Pixels = NDArray[np.generic]
HEIGHT, WIDTH = 48, 64
_y, _x = np.mgrid[:HEIGHT, :WIDTH]
COLOUR = np.stack((255 * _y / HEIGHT, 255 * _x / WIDTH, np.full((HEIGHT, WIDTH), 128.0)), axis=2).astype(np.uint8)
GREY = COLOUR[..., 1]
ALPHA = np.where(_x < 16, 0, 64 + _y * 3).astype(np.uint8)
SCENE = np.asarray(Image.open(CASES / "gama1.png"))  # what most of the stored files show
NOISE = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
GRAIN = np.repeat(NOISE[..., :1], 3, axis=2)  # which no halved colours blur
DEEP = COLOUR.astype(np.uint16) * 257
# C2PA's outermost box, in which a manifest would follow its description
CREDENTIALS = b"\0\0\0\x26jumb\0\0\0\x1ejumdc2pa" + bytes.fromhex("00110010800000aa00389b7103") + b"c2pa\0"
PHOTOSHOP = b"Adobe Photoshop Document Data Block\0"  # how its own document in a TIFF begins
ICC = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def stored(name: str) -> bytes:
    """A file of tests/cases."""
    return (CASES / name).read_bytes()


def pillow(kind: str, pixels: Pixels = COLOUR, mode: str | None = None, **options: object) -> bytes:
    """As Pillow writes it."""
    data = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(data, kind, **options)
    return data.getvalue()


def opencv(ending: str, pixels: Pixels) -> bytes:
    """As OpenCV writes it; RGB or RGBA in."""
    order = {2: pixels, 3: pixels[..., [2, 1, 0, 3][: pixels.shape[-1]]]}[pixels.ndim]
    return cv2.imencode(ending, np.ascontiguousarray(order))[1].tobytes()


def jpeg(*segments: tuple[int, bytes], behind: bytes = b"", pixels: Pixels = COLOUR, **options: object) -> bytes:
    """JPEG with these segments (marker, content) after its JFIF one."""
    data = pillow("JPEG", pixels, quality=95, subsampling=0, **options)
    packed = b"".join(struct.pack(">BBH", 255, marker, len(content) + 2) + content for marker, content in segments)
    return data[:20] + packed + data[20:] + behind


def icc_segments(profile: bytes, parts: int, reverse: bool = False) -> list[tuple[int, bytes]]:
    """An ICC profile over several APP2 segments."""
    size = -(-len(profile) // parts)
    found = [
        (0xE2, b"ICC_PROFILE\0" + bytes((part + 1, parts)) + profile[part * size : (part + 1) * size])
        for part in range(parts)
    ]
    return found[::-1] if reverse else found


def signed_webp() -> bytes:
    """WebP with content credentials behind the picture."""
    data = pillow("WEBP", lossless=True, exif=exif()) + struct.pack("<4sI", b"C2PA", len(CREDENTIALS)) + CREDENTIALS
    return data[:4] + struct.pack("<I", len(data) - 8) + data[8:]


def signed_gif() -> bytes:
    """GIF with content credentials before the picture's end."""
    block = b"!\xff\x0bC2PA_GIF\1\0\0" + bytes((len(CREDENTIALS),)) + CREDENTIALS + b"\0"
    return pillow("GIF", GREY)[:-1] + block + b";"


def gif_with_xmp(packet: bytes) -> bytes:
    """GIF with XMP before the picture's end, as Adobe's programs write it."""
    trailer = b"\1" + bytes(range(255, -1, -1)) + b"\0"
    return pillow("GIF", GREY)[:-1] + b"!\xff\x0bXMP DataXMP" + packet + trailer + b";"


def jp2_with_box(kind: bytes, content: bytes) -> bytes:
    """JPEG 2000 with a box of this UUID before its picture."""
    data = opencv(".jp2", COLOUR)
    place = data.index(b"jp2c") - 4
    return data[:place] + struct.pack(">I", 24 + len(content)) + b"uuid" + kind + content + data[place:]


def signed_box(data: bytes) -> bytes:
    """HEIC or AVIF with content credentials behind the picture."""
    kind = b"uuid" + bytes.fromhex("d8fec3d61b0e483c92975828877ec481") + bytes(4) + b"manifest\0" + bytes(8)
    return data + struct.pack(">I", 4 + len(kind) + len(CREDENTIALS)) + kind + CREDENTIALS


def exif_segments(block: bytes) -> list[tuple[int, bytes]]:
    """EXIF over several APP1 segments, as long as they can be."""
    return [(0xE1, b"Exif\0\0" + block[start : start + 65527]) for start in range(0, len(block), 65527)]


def mpf(pictures: int) -> tuple[int, bytes]:
    """An APP2 segment that announces so many pictures (CIPA DC-007)."""
    block = b"MM\0*" + struct.pack(">IH", 8, 2) + struct.pack(">HHI4s", 0xB000, 7, 4, b"0100")
    return 0xE2, b"MPF\0" + block + struct.pack(">HHII", 0xB001, 4, 1, pictures) + bytes(4)


def xmp(attributes: str, inner: str = "") -> bytes:
    """A packet with these attributes and elements in its description."""
    spaces = {
        "tiff": "http://ns.adobe.com/tiff/1.0/",
        "exif": "http://ns.adobe.com/exif/1.0/",
        "dc": "http://purl.org/dc/elements/1.1/",
        "hdrgm": "http://ns.adobe.com/hdr-gain-map/1.0/",
        "GCamera": "http://ns.google.com/photos/1.0/camera/",
        "Container": "http://ns.google.com/photos/1.0/container/",
        "Item": "http://ns.google.com/photos/1.0/container/item/",
    }
    names = " ".join(f'xmlns:{prefix}="{name}"' for prefix, name in spaces.items())
    text = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
    xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description {names} {attributes}>{inner}
    </rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""
    return text.encode()


def exif(orientation: int = 1, thumbnail: bool = False, padding: int = 0) -> bytes:
    """A TIFF block with orientation, size (64x48), a description and a thumbnail."""
    description = b"a rainy day\0" + bytes(padding)
    entries = [(0x010E, 2, len(description), 200), (0x0112, 3, 1, orientation << 16), (0x8769, 4, 1, 80)]
    first = struct.pack(">H", 3) + b"".join(struct.pack(">HHII", *entry) for entry in entries)
    block = b"MM\0*" + struct.pack(">I", 8) + first + struct.pack(">I", 120 if thumbnail else 0)
    sizes = struct.pack(">HHHIIHHIII", 2, 0xA002, 4, 1, WIDTH, 0xA003, 4, 1, HEIGHT, 0)
    small = pillow("JPEG", COLOUR[::4, ::4])
    start = 200 + len(description)
    links = struct.pack(">HHHIIHHIII", 2, 0x0201, 4, 1, start, 0x0202, 4, 1, len(small), 0)
    block = block.ljust(80, b"\0") + sizes
    return (block.ljust(120, b"\0") + links).ljust(200, b"\0") + description + (small if thumbnail else b"")


def tiff_exif(orientation: int) -> Image.Exif:
    """With a camera's make, exposure and place."""
    block = Image.Exif()
    block[0x0112], block[0x010F], block[0x0132] = orientation, "Acme", "2026:11:26 01:02:03"
    block.get_ifd(0x8769).update({0x829A: IFDRational(1, 250), 0x8827: 400})
    block.get_ifd(0x8825).update({1: "N", 2: (IFDRational(47), IFDRational(22), IFDRational(13, 2))})
    return block


def exif_dpi(dots: int) -> Image.Exif:
    """With dots per inch."""
    block = Image.Exif()
    block[0x011A] = block[0x011B] = IFDRational(dots)
    block[0x0128] = 2
    return block


def photoshop(iptc: bytes, thumbnail: bool = True) -> bytes:
    """Image resources with IPTC, after a thumbnail."""
    parts = [(1036, b"the rainy thumbnail")] if thumbnail else []
    parts.append((1028, iptc))
    return b"Photoshop 3.0\0" + b"".join(
        b"8BIM" + struct.pack(">HHI", kind, 0, len(content)) + content + bytes(len(content) % 2)
        for kind, content in parts
    )


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(*chunks: tuple[bytes, bytes], data: bytes | None = None) -> bytes:
    """PNG with these chunks after IHDR."""
    data = pillow("PNG") if data is None else data
    return data[:33] + b"".join(chunk(*each) for each in chunks) + data[33:]


def raw_profile(block: bytes) -> bytes:
    """EXIF in a zTXt chunk as ImageMagick wrote it before eXIf came."""
    block = b"Exif\0\0" + block
    lines = [block.hex()[start : start + 72] for start in range(0, 2 * len(block), 72)]
    text = "\nexif\n{:8}\n{}\n".format(len(block), "\n".join(lines))
    return b"Raw profile type exif\0\0" + zlib.compress(text.encode())


def grey_png(bits: int, transparent: int) -> bytes:
    """Grey of 1 to 16 bits, one value of it transparent."""
    values = (GREY.astype(np.uint16) * 257) >> (16 - bits)
    if bits == 16:
        rows = [row.astype(">u2").tobytes() for row in values]
    else:
        unpacked = np.unpackbits(values.astype(np.uint8)[..., None], axis=2)[..., 8 - bits :]
        rows = [np.packbits(row).tobytes() for row in unpacked.reshape(HEIGHT, -1)]
    size = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, 0, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = ((b"IHDR", size), (b"tRNS", struct.pack(">H", transparent)), (b"IDAT", packed), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


def bmp(masks: tuple[int, ...], header: int = 40, down: bool = False) -> bytes:
    """BMP of 32 bits with masks for red, green, blue and maybe alpha."""
    value = np.zeros((HEIGHT, WIDTH), np.uint32)
    for mask, channel in zip(masks, (*np.moveaxis(COLOUR, 2, 0), ALPHA)):
        value |= channel.astype(np.uint32) << ((mask & -mask).bit_length() - 1)
    rows = (value if down else value[::-1]).astype("<u4").tobytes()
    height = -HEIGHT if down else HEIGHT
    info = struct.pack("<IiiHHIIiiII", header, WIDTH, height, 1, 32, 3, len(rows), 2835, 2835, 0, 0)
    info = (info + struct.pack(f"<{len(masks)}I", *masks)).ljust(max(header, 52), b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + len(rows), 0, 0, 14 + len(info)) + info + rows


def bmp_os2(pixels: Pixels = COLOUR, palette: bytes = b"", gap: int = 0) -> bytes:
    """BMP with OS/2's short header: 24 bits, or 8 with a palette and a gap after it."""
    rows = (pixels if palette else pixels[..., ::-1])[::-1].tobytes()
    info = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, 8 if palette else 24) + palette + bytes(gap)
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + len(rows), 0, 0, 14 + len(info)) + info + rows


def bmp_16(green: int, header: int = 40) -> bytes:
    """BMP of 16 bits, so many of them green."""
    red, middle, blue = (channel.astype(np.uint16) for channel in np.moveaxis(COLOUR, 2, 0))
    value = (red >> 3) << (5 + green) | (middle >> (8 - green)) << 5 | blue >> 3
    rows = value[::-1].astype("<u2").tobytes()
    masks = struct.pack("<III", 0x1F << (5 + green), ((1 << green) - 1) << 5, 0x1F)
    info = struct.pack("<IiiHHIIiiII", header, WIDTH, HEIGHT, 1, 16, 3, len(rows), 2835, 2835, 0, 0) + masks
    info = info.ljust(header, b"\0")
    return b"BM" + struct.pack("<IHHI", 14 + len(info) + len(rows), 0, 0, 14 + len(info)) + info + rows


def bmp_v5(profile: bytes) -> bytes:
    """BMP of 24 bits with this ICC profile behind its pixels."""
    rows = COLOUR[::-1, :, ::-1].tobytes()
    info = struct.pack("<IiiHHIIiiII", 124, WIDTH, HEIGHT, 1, 24, 0, len(rows), 2835, 2835, 0, 0).ljust(56, b"\0")
    info = (info + b"DEBM").ljust(112, b"\0") + struct.pack("<IIII", 124 + len(rows), len(profile), 0, 0)[:12]
    return b"BM" + struct.pack("<IHHI", 138 + len(rows) + len(profile), 0, 0, 138) + info + rows + profile


def of_16_bits(green: int) -> Pixels:
    """What `bmp_16` shows."""
    bits = np.array([5, green, 5])
    return np.round((COLOUR >> (8 - bits)) * 255 / ((1 << bits) - 1)).astype(np.uint8)


def pam(kind: bytes, pixels: Pixels, most: int = 255) -> bytes:
    """PAM of these tuples."""
    depth = pixels.shape[2] if pixels.ndim == 3 else 1
    header = b"P7\n# rain\nWIDTH %d\nHEIGHT %d\nDEPTH %d\nMAXVAL %d\nTUPLTYPE %s\nENDHDR\n"
    return header % (WIDTH, HEIGHT, depth, most, kind) + pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()


def avif_with_exif_behind() -> bytes:
    """AVIF whose EXIF lies behind the picture, as libheif writes it."""
    data = pillow("AVIF", GRAIN, quality=90, exif=b"Exif\0\0" + exif())
    start = data.index(b"\0\0\0\6Exif\0\0MM\0*")
    place = data.index(struct.pack(">I", start))  # in `iloc`, before its length
    (length,) = struct.unpack_from(">I", data, place + 4)
    return data[:place] + struct.pack(">I", len(data)) + data[place + 4 :] + data[start : start + length]


def moving_avif() -> bytes:
    """AVIF of three frames."""
    data = io.BytesIO()
    first, *others = (Image.fromarray(np.roll(COLOUR, 9 * index, axis=1)) for index in range(3))
    first.save(data, "AVIF", save_all=True, append_images=others)
    return data.getvalue()


def exif_nan() -> bytes:
    """EXIF whose dots per inch are no numbers."""
    nan = struct.pack(">ff", float("nan"), 1.0)
    lines = [(0x011A, 11, 2, 50), (0x011B, 11, 2, 58), (0x0128, 3, 1, 2 << 16)]
    table = struct.pack(">H", 3) + b"".join(struct.pack(">HHII", *line) for line in lines) + bytes(4)
    return b"MM\0*" + struct.pack(">I", 8) + table + nan + nan


def with_wrong_checksum(data: bytes) -> bytes:
    """A TIFF of `tiled_tiff` whose first tile ends in another checksum."""
    size = len(zlib.compress(COLOUR[:16, :16].tobytes()))
    return data[: 8 + size - 1] + bytes((data[8 + size - 1] ^ 1,)) + data[8 + size :]


def tiled_tiff(orientation: int, side: int = 16) -> bytes:
    """A TIFF of 8 bits in tiles, each packed by Deflate."""
    tiles = [
        zlib.compress(COLOUR[top : top + side, left : left + side].tobytes())
        for top in range(0, HEIGHT, side)
        for left in range(0, WIDTH, side)
    ]
    longs = lambda numbers: struct.pack(f"<{len(numbers)}I", *numbers)  # noqa: E731
    starts = longs([8 + sum(map(len, tiles[:index])) for index in range(len(tiles))])
    sizes = longs([len(tile) for tile in tiles])
    body = b"".join(tiles)
    body += bytes(len(body) % 2)
    lines = [
        (256, 3, 1, struct.pack("<HH", WIDTH, 0)), (257, 3, 1, struct.pack("<HH", HEIGHT, 0)),
        (258, 3, 3, longs([8 + len(body)])), (259, 3, 1, longs([8])), (262, 3, 1, longs([2])),
        (274, 3, 1, longs([orientation])), (277, 3, 1, longs([3])), (322, 3, 1, longs([side])),
        (323, 3, 1, longs([side])), (324, 4, len(tiles), longs([16 + len(body)])),
        (325, 4, len(tiles), longs([16 + len(body) + len(starts)])),
    ]  # fmt: skip
    body += struct.pack("<HHHH", 8, 8, 8, 0) + starts + sizes
    table = b"".join(struct.pack("<HHI", *line[:3]) + line[3] for line in lines)
    return b"II*\0" + struct.pack("<I", 8 + len(body)) + body + struct.pack("<H", len(lines)) + table + bytes(4)


def tiff(
    pixels: Pixels, photometric: int, *, big: bool = False, order: str = "<", planar: bool = False,
    extra: int | None = None, compression: int = 1, more: tuple[tuple[int, int, int, bytes], ...] = (),
) -> bytes:  # fmt: skip
    """An uncompressed TIFF or BigTIFF; more: further tags (tag, kind, count, content)."""
    height, width = pixels.shape[:2]
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    bits = 8 * pixels.itemsize
    planes = [pixels[..., band] for band in range(samples)] if planar and samples > 1 else [pixels]
    strips = [plane.astype(plane.dtype.newbyteorder(order)).tobytes() for plane in planes]
    head = 16 if big else 8
    starts = [head + sum(map(len, strips[:index])) for index in range(len(strips))]
    body = b"".join(strips)
    tags = {
        256: (3, [width]), 257: (3, [height]), 258: (3, [bits] * samples), 259: (3, [compression]),
        262: (3, [photometric]), 273: (4, starts), 277: (3, [samples]), 278: (3, [height]),
        279: (4, list(map(len, strips))), 284: (3, [2 if planar else 1]),
    }  # fmt: skip
    if extra is not None:
        tags[338] = (3, [extra])
    contents = {
        tag: (kind, len(v), struct.pack(f"{order}{len(v)}{'H' if kind == 3 else 'I'}", *v))
        for tag, (kind, v) in tags.items()
    }
    contents |= {tag: (kind, count, content) for tag, kind, count, content in more}
    inline = 8 if big else 4
    entries, place = b"", head + len(body)
    for tag in sorted(contents):
        kind, count, content = contents[tag]
        value = content.ljust(inline, b"\0")
        if len(content) > inline:
            value = struct.pack(f"{order}{'Q' if big else 'I'}", place)
            body += content + bytes(len(content) % 2)
            place = head + len(body)
        entries += struct.pack(f"{order}HH{'Q' if big else 'I'}", tag, kind, count) + value
    first = struct.pack(f"{order}HHHQ", 43, 8, 0, place) if big else struct.pack(f"{order}HI", 42, place)
    counted = struct.pack(f"{order}{'Q' if big else 'H'}", len(contents))
    return (b"II" if order == "<" else b"MM") + first + body + counted + entries + bytes(inline)


def with_nclx(data: bytes, primaries: int, transfer: int) -> bytes:
    """AVIF or HEIF that says these code points (H.273)."""
    place = data.index(b"colrnclx") + 8
    return data[:place] + struct.pack(">HH", primaries, transfer) + data[place + 4 :]


def tiff_with_exif(orientation: int, big: bool, order: str) -> bytes:
    """TIFF of the camera of `tiff_exif`, with its directories of EXIF and GPS behind everything."""

    def directory(start: int, *lines: tuple[int, int, int, bytes]) -> bytes:
        counts, offset, inline = ("Q", "Q", 8) if big else ("H", "I", 4)
        head = struct.calcsize(order + counts) + len(lines) * (4 + 2 * inline) + inline
        table, behind = struct.pack(order + counts, len(lines)), b""
        for tag, kind, count, content in lines:
            value = content.ljust(inline, b"\0")
            if len(content) > inline:
                value = struct.pack(order + offset, start + head + len(behind))
                behind += content
            table += struct.pack(f"{order}HH{offset}", tag, kind, count) + value
        return table + bytes(inline) + behind

    def whole(exif: int, gps: int) -> bytes:
        more = (
            (271, 2, 5, b"Acme\0"),
            (274, 3, 1, struct.pack(order + "H", orientation)),
            (306, 2, 20, b"2026:11:26 01:02:03\0"),
            (34665, 4, 1, struct.pack(order + "I", exif)),
            (34853, 4, 1, struct.pack(order + "I", gps)),
        )
        return tiff(COLOUR, 2, big=big, order=order, more=more)

    start = len(whole(0, 0))
    exposure = (0x829A, 5, 1, struct.pack(order + "II", 1, 250)), (0x8827, 3, 1, struct.pack(order + "H", 400))
    exif = directory(start, *exposure, (37500, 7, 9, b"the maker"))
    place = struct.pack(order + "6I", 47, 1, 22, 1, 13, 2)
    gps = directory(start + len(exif), (1, 2, 2, b"N\0"), (2, 5, 3, place))
    return whole(start, start + len(exif)) + exif + gps


def with_less_data(data: bytes) -> dict[str, bytes]:
    """JPEG that ends as one should, of whose middle a part is missing."""
    half, later = len(data) // 2, len(data) * 3 // 4
    return {"cut": data[:half] + b"\xff\xd9", "gap": data[:half] + data[later:]}


def with_noise(data: bytes, size: int = 4096) -> bytes:
    """A copy in whose middle a block of the disk is another file's."""
    half = len(data) // 2
    return data[:half] + np.random.default_rng(0).bytes(size) + data[half + size :]


def hollow(data: bytes, start: float = 0.5, end: float = 1) -> bytes:
    """A copy of which a part is missing; the file system put zeros there."""
    first, last = int(start * len(data)), int(end * len(data))
    return data[:first] + bytes(last - first) + data[last:]
