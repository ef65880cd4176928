"""Kinds of files by name or first bytes: what is not read, and what it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from esdnet_cli.errors import printable

_RAW, _CLIP = "camera raw", "clip"
_CLIPS = (
    (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".wmv", ".asf", ".flv", ".f4v", ".ogv", ".3gp", ".3g2", ".mxf")
    + (".mpg", ".mpeg", ".vob", ".ts", ".mts", ".m2ts", ".m2t", ".tp", ".trp")  # MPEG's program and transport streams
)
_SYNC, _PACKET = 0x47, 188  # of MPEG-TS: each packet of so many bytes begins with this one
UNREAD = {  # endings of pictures, and of clips, that are not read
    **dict.fromkeys((".cr2", ".cr3", ".crw"), f"Canon {_RAW}"),
    **dict.fromkeys((".nef", ".nrw"), f"Nikon {_RAW}"),
    **dict.fromkeys((".arw", ".sr2", ".srf"), f"Sony {_RAW}"),
    **dict.fromkeys((".orf", ".ori"), f"Olympus {_RAW}"),
    **dict.fromkeys((".rw2", ".rwl"), f"Panasonic or Leica {_RAW}"),
    **dict.fromkeys((".3fr", ".fff"), f"Hasselblad {_RAW}"),
    **dict.fromkeys((".dcr", ".kdc", ".erf", ".mrw", ".mos", ".mef", ".raw", ".gpr"), _RAW),
    ".dng": f"DNG {_RAW}", ".raf": f"Fujifilm {_RAW}", ".pef": f"Pentax {_RAW}", ".srw": f"Samsung {_RAW}",
    ".x3f": f"Sigma {_RAW}", ".iiq": f"Phase One {_RAW}",
    ".jxl": "JPEG XL", **dict.fromkeys((".psd", ".psb"), "Photoshop"), ".exr": "OpenEXR", ".hdr": "Radiance HDR",
    **dict.fromkeys((".jxr", ".wdp", ".hdp"), "JPEG XR"), ".jls": "JPEG-LS",
    **dict.fromkeys((".jpx", ".jpf", ".jpm"), "JPEG 2000 of several parts"), ".xcf": "GIMP", ".svg": "SVG",
    ".pdf": "PDF", ".tga": "TGA", ".pcx": "PCX", ".ico": "icon", ".dds": "DDS", ".qoi": "QOI", ".bpg": "BPG",
    ".avifs": "AVIF sequence", ".heics": "HEIC sequence", ".apng": "animated PNG", ".pfm": "PFM",
    **dict.fromkeys(_CLIPS, _CLIP),
}  # fmt: skip
_STARTS = (  # place, bytes there, kind
    (0, b"\xff\x0a", "JPEG XL"), (0, b"\0\0\0\x0cJXL ", "JPEG XL"), (0, b"8BPS", "Photoshop"),
    (0, b"v/1\x01", "OpenEXR"), (0, b"#?RADIANCE", "Radiance HDR"), (0, b"#?RGBE", "Radiance HDR"),
    (0, b"II\xbc", "JPEG XR"), (0, b"\xff\xd8\xff\xf7", "JPEG-LS"), (0, b"gimp xcf", "GIMP"), (0, b"%PDF", "PDF"),
    (0, b"<svg", "SVG"), (0, b"\0\0\x01\0", "icon"), (0, b"DDS ", "DDS"), (0, b"qoif", "QOI"), (0, b"BPG\xfb", "BPG"),
    (0, b"FUJIFILMCCD-RAW", f"Fujifilm {_RAW}"), (0, b"IIRO", f"Olympus {_RAW}"), (0, b"IIRS", f"Olympus {_RAW}"),
    (0, b"MMOR", f"Olympus {_RAW}"), (0, b"IIU\0", f"Panasonic or Leica {_RAW}"), (0, b"FOVb", f"Sigma {_RAW}"),
    (8, b"CR\x02", f"Canon {_RAW}"), (6, b"HEAPCCDR", f"Canon {_RAW}"), (4, b"ftypcrx", f"Canon {_RAW}"),
    (0, b"\x1aE\xdf\xa3", _CLIP), (8, b"AVI ", _CLIP), (4, b"ftyp", _CLIP), (0, b"SIMPLE  =", "FITS"),
    (128, b"DICM", "DICOM"), (0, b"PF\n", "PFM"), (0, b"Pf\n", "PFM"), (0, b"PK\x03\x04", "ZIP archive"),
    (0, b"Rar!", "RAR archive"), (0, b"7z\xbc\xaf", "7-Zip archive"), (0, b"\x1f\x8b", "gzip file"),
    (0, b"version https://git-lfs", "Git LFS pointer, not the file itself"),
)  # fmt: skip


def kind_of(data: bytes) -> str | None:
    """What a file is that is no picture of the kinds that are read, by its first bytes; None if they say nothing."""
    if data[4:8] == b"ftyp" and any(brand in data[8:64] for brand in (b"avif", b"mif1", b"heic", b"heix")):
        return None  # of a kind that is read, so damaged
    for place, start, kind in _STARTS:
        if data.startswith(start, place):
            return kind
    text = data[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "web page"
    return "SVG" if text.startswith(b"<?xml") and b"<svg" in text else None


def raw_kind(data: bytes, path: Path) -> str | None:
    """The kind of a camera's raw file, by its first bytes or its name: what decodes of one is a small preview."""
    kind = kind_of(data)
    if kind is None and data[:2] in (b"II", b"MM"):
        kind = UNREAD.get(path.suffix.lower())
    return kind if kind and kind.endswith(_RAW) else None


def mend(kind: str) -> str:
    """What to do about a file of such a kind."""
    if kind == _CLIP:
        return "esdnet video derains it"
    if kind.endswith(_RAW):
        return "develop it to TIFF, PNG or JPEG first"
    if kind.startswith(("web page", "Git LFS")):
        return "fetch the file itself"
    return "unpack it" if kind.endswith(("archive", "gzip file")) else "convert it to PNG"


def unread_lines(unread: Mapping[str, int]) -> list[str]:
    """What was passed over: a line for each link to a folder, and one that counts the rest by kind."""
    links = [key.rstrip("/") for key in sorted(unread) if key.endswith("/")]
    reason = "is a link to a folder, which -r does not follow; name it to include it"
    lines = [f"{printable(link)}: {reason}" for link in links]
    files = {ending: count for ending, count in unread.items() if not ending.endswith("/")}
    return [*lines, _counted(files)] if files else lines


def _counted(unread: Mapping[str, int]) -> str:
    """Such as "Not read: 2 JPEG XL (.jxl); ..."."""
    endings: dict[str, list[str]] = {}
    for ending in sorted(unread):
        endings.setdefault(UNREAD[ending], []).append(ending)
    counted = {kind: sum(unread[ending] for ending in group) for kind, group in endings.items()}
    counts = ", ".join(
        f"{counted[kind]} {kind}{'s' * (kind == _CLIP and counted[kind] > 1)} ({', '.join(group)})"
        for kind, group in endings.items()
    )
    kinds = {UNREAD[ending] for ending in unread}
    mends = ["develop raw files first"] if any(kind.endswith(_RAW) for kind in kinds) else []
    if any(kind != _CLIP and not kind.endswith(_RAW) for kind in kinds):
        mends.append("convert pictures of other kinds to PNG")
    if _CLIP in kinds:
        mends.append("esdnet video takes clips")
    return f"Not read: {counts}; {', '.join(mends)}."


def unread_ending(path: Path) -> str | None:
    """The ending by which a file is counted as not read, if it is one of those; TypeScript's .ts is none."""
    ending = path.suffix.lower()
    if ending == ".ts" and not _begins_as_transport_stream(path):
        return None
    return ending if ending in UNREAD else None


def is_clip(path: Path) -> bool:
    """Whether a file is a clip, by its ending."""
    ending = unread_ending(path)
    return ending is not None and UNREAD[ending] == _CLIP


def _begins_as_transport_stream(path: Path) -> bool:
    if not os.path.isfile(path):  # a pipe would keep us waiting
        return False
    try:
        with path.open("rb") as file:
            start = file.read(_PACKET + 1)
    except OSError:
        return False
    return start[:1] == start[_PACKET:] == bytes([_SYNC])
