"""What pictures carry besides pixels: EXIF, ICC, XMP, IPTC, comments, density; and how it is put right for others."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from xml.etree import ElementTree

from esdnet_cli.pipeline.directories import next_directory, numbers

ORIENTATION = 0x0112
_WIDTHS, _HEIGHTS = (0x0100, 0xA002), (0x0101, 0xA003)  # ImageWidth, PixelXDimension; ImageLength, PixelYDimension
_EXIF_DIRECTORY = 0x8769
_THUMBNAIL, _THUMBNAIL_LENGTH = 0x0201, 0x0202
_RESOURCE, IPTC_RESOURCE, _RESOURCE_THUMBNAILS = b"8BIM", 1028, (1033, 1036)

# how C2PA's outermost box begins, in which a camera or program has signed the picture as it was, in any format
_SIGNATURE = b"jumdc2pa" + bytes.fromhex("00110010800000aa00389b71")

_TIFF_NS, _EXIF_NS = "{http://ns.adobe.com/tiff/1.0/}", "{http://ns.adobe.com/exif/1.0/}"
_GONE = {  # beginnings of XMP names that speak of what an output does not have, and what that is
    "{http://ns.adobe.com/hdr-gain-map/1.0/}": "gain map",
    "{http://ns.apple.com/HDRGainMap/1.0/}": "gain map",
    "{http://ns.google.com/photos/1.0/camera/}MotionPhoto": "motion clip",
    "{http://ns.google.com/photos/1.0/camera/}MicroVideo": "motion clip",
    "{http://ns.google.com/photos/1.0/container/}": "",
    "{http://ns.google.com/photos/1.0/depthmap/}": "depth map",
    "{http://ns.google.com/photos/dd/1.0/": "depth map",
    "{http://ns.google.com/photos/1.0/image/}": "",  # the original of a depth picture
    "{http://ns.adobe.com/xmp/note/}HasExtendedXMP": "",
    "{http://ns.adobe.com/xap/1.0/}Thumbnails": "",  # they show the rain
    "{http://ns.adobe.com/xap/1.0/g/img/}": "",
}
_SEMANTICS = {"GainMap": "gain map", "MotionPhoto": "motion clip", "Depth": "depth map", "DepthMap": "depth map"}


@dataclass(frozen=True)
class Density:
    """Dots along x and y in a unit of which `units` make a metre; 0 units: only their ratio is known."""

    x: float
    y: float
    units: float

    @property
    def per_inch(self) -> tuple[float, float]:
        """Dots per inch; only for what has a unit."""
        return self.x * self.units * 0.0254, self.y * self.units * 0.0254


@dataclass(frozen=True)
class Metadata:
    """Each empty if there is none.

    exif: a TIFF block without JPEG's "Exif" before it. icc: a whole profile. xmp: one packet. iptc: Photoshop's image
    resources, in which IPTC lies. comments: texts. colour: PNG's chunks that say what the numbers mean.
    text: PNG's text chunks. Of chunks: kind and content.
    """

    exif: bytes = b""
    icc: bytes = b""
    xmp: bytes = b""
    iptc: bytes = b""
    comments: tuple[bytes, ...] = ()
    density: Density | None = None
    colour: tuple[tuple[bytes, bytes], ...] = ()
    text: tuple[tuple[bytes, bytes], ...] = ()


def checked_icc(profile: bytes) -> bytes:
    """A profile without what may follow it; empty if it is none (ICC.1:2022, 7.2: length first, "acsp" at 36)."""
    if len(profile) < 128 or profile[36:40] != b"acsp":
        return b""
    (length,) = struct.unpack_from(">I", profile)
    return profile[:length] if 128 <= length <= len(profile) else b""


def credentials(data: bytes) -> set[str]:
    """What a file that was signed has, and no other picture can have."""
    return {"content credentials"} if _SIGNATURE in data else set()


def icc_space(profile: bytes) -> bytes:
    """The colour space that a profile describes, such as b"RGB "; empty without one."""
    return profile[16:20]


def without_thumbnails(resources: bytes) -> bytes:
    """Photoshop's image resources without its thumbnails, which show the rain."""
    return b"".join(whole for kind, whole, _ in _resources(resources) if kind not in _RESOURCE_THUMBNAILS)


def iptc_of(resources: bytes) -> bytes:
    """IPTC's own records (IIM) among Photoshop's image resources; empty if there are none."""
    return next((content for kind, _, content in _resources(resources) if kind == IPTC_RESOURCE), b"")


def as_resource(iptc: bytes) -> bytes:
    """IPTC's records as one of Photoshop's image resources."""
    return _RESOURCE + struct.pack(">HHI", IPTC_RESOURCE, 0, len(iptc)) + iptc + bytes(len(iptc) % 2)


def _resources(block: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Number, the whole and the content of each image resource (Adobe's Photoshop File Formats), as far as they go."""
    position = 0
    while block[position : position + 4] == _RESOURCE and position + 8 <= len(block):
        (kind,) = struct.unpack_from(">H", block, position + 4)
        start = position + 6 + (block[position + 6] // 2 + 1) * 2 + 4  # after a Pascal string of even length
        if start > len(block):
            return
        (size,) = struct.unpack_from(">I", block, start - 4)
        end = start + size + size % 2
        yield kind, block[position:end], block[start : start + size]
        position = end


def orientation(block: bytes) -> int:
    """1 to 8, as EXIF or a whole TIFF asks for; 1 if it says nothing or nonsense."""
    return next((value for tag, value, *_ in numbers(block) if tag == ORIENTATION and 1 <= value <= 8), 1)


def upright(
    metadata: Metadata, width: int, height: int, turned: bool, as_stored: bool = False
) -> tuple[Metadata, set[str]]:
    """Metadata for pixels of this size that are shown as they lie; and what XMP promised that no output has.

    turned: the pixels were turned by a quarter, so x and y change places. as_stored: they lie as in the file; where XMP
    wants them turned all the same, it goes on to do so.
    """
    density = metadata.density
    if density is not None and turned:
        density = replace(density, x=density.y, y=density.x)
    xmp, gone = _upright_xmp(metadata.xmp, width, height, as_stored)
    return replace(metadata, exif=_upright_exif(metadata.exif, width, height), xmp=xmp, density=density), gone


def _upright_exif(exif: bytes, width: int, height: int) -> bytes:
    """EXIF with orientation 1, this size, and without its thumbnail, which shows the rain, and may lie on its side."""
    patched = bytearray(exif)
    first = list(numbers(exif))
    places = [value for tag, value, *_ in first if tag == _EXIF_DIRECTORY and value > 0]
    details = [entry for start in places for entry in numbers(exif, start)]
    sizes = {**dict.fromkeys(_WIDTHS, width), **dict.fromkeys(_HEIGHTS, height), ORIENTATION: 1}
    for tag, _, place, form in first + details:
        if tag in sizes:
            with suppress(struct.error):  # a number too small for it
                struct.pack_into(form, patched, place, sizes[tag])
    start, place = next_directory(exif)
    if start:
        patched[place : place + 4] = bytes(4)
        second = {tag: value for tag, value, *_ in numbers(exif, start)}
        begin = second.get(_THUMBNAIL, 0)
        end = min(begin + second.get(_THUMBNAIL_LENGTH, 0), len(patched))
        if begin >= 8 and begin < end:
            patched[begin:end] = bytes(end - begin)
            if end == len(patched):
                del patched[begin:]
    return bytes(patched)


def _upright_xmp(xmp: bytes, width: int, height: int, as_stored: bool) -> tuple[bytes, set[str]]:
    """As `_upright_exif`, without what speaks of pictures and clips that were behind this one; and what those were."""
    text = xmp.strip(b"\0 \n\r\t")
    if b"<!DOCTYPE" in text:  # XMP has none; entities would be a way to fill memory
        return b"", set()
    try:
        root = ElementTree.fromstring(re.sub(rb"<\?xpacket.*?\?>", b"", text, flags=re.DOTALL).strip())
    except (ElementTree.ParseError, ValueError, LookupError):
        return xmp, set()
    values = {
        **({} if as_stored else {f"{_TIFF_NS}Orientation": "1"}),
        f"{_TIFF_NS}ImageWidth": str(width),
        f"{_EXIF_NS}PixelXDimension": str(width),
        f"{_TIFF_NS}ImageLength": str(height),
        f"{_EXIF_NS}PixelYDimension": str(height),
    }
    gone: set[str] = set()
    changed = False
    for parent in list(root.iter()):
        for name, value in list(parent.attrib.items()):
            if (what := _gone(name)) is not None:
                gone.add(what)
                gone.add(_SEMANTICS.get(value, ""))
                del parent.attrib[name]
                changed = True
            elif name in values and value != values[name]:
                parent.set(name, values[name])
                changed = True
        for child in list(parent):
            if (what := _gone(child.tag)) is not None:
                gone.add(what)
                gone |= {_SEMANTICS.get(value, "") for each in child.iter() for value in each.attrib.values()}
                gone |= {_SEMANTICS.get((each.text or "").strip(), "") for each in child.iter()}
                parent.remove(child)
                changed = True
            elif child.tag in values and (child.text or "").strip() != values[child.tag]:
                child.text = values[child.tag]
                changed = True
    if not changed:
        return xmp, set()
    for prefix, name in re.findall(rb"xmlns:([\w.-]+)\s*=\s*[\"']([^\"']*)[\"']", text):
        if not re.fullmatch(rb"ns\d+", prefix):  # those are ElementTree's own
            ElementTree.register_namespace(prefix.decode(), name.decode("utf-8", "replace"))
    body = ElementTree.tostring(root, encoding="utf-8", xml_declaration=False)
    begin = b'<?xpacket begin="\xef\xbb\xbf" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
    return begin + body + b'\n<?xpacket end="w"?>', gone - {""}


def _gone(name: str) -> str | None:
    return next((what for beginning, what in _GONE.items() if name.startswith(beginning)), None)
