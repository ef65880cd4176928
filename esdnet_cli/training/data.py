"""Training batches: crops of pictures that lie on the device as uint8, with rain made where they are cut."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from esdnet_cli.errors import EsdnetError, printable
from esdnet_cli.metrics import SMALLEST
from esdnet_cli.pipeline.images import eight_bit, open_picture
from esdnet_cli.pipeline.sources import Source, find_sources, pair_up
from esdnet_cli.training.rain import camera_rain, light, nearer, photograph, streak_layers

SMALLER = "take it out, or use a smaller --crop"
DRY = 0.17  # share of synthetic crops without rain: dry pictures must come back as they were
GIVEN = 0.75  # share of crops whose rain is given, as masks or pairs, where nothing is said; the others get our own
FAINTER = 0.45  # share of masks that are dimmed
TURNED = 0.5  # share of masks that are turned and stretched a little
MAX_VEIL = 0.12
DRAWN = 0.4  # share of our own rain that is `streak_layers` alone
BOTH = 0.25  # share that has both; the rest is `camera_rain` alone
NEARER = 0.3  # share of synthetic crops whose streaks are enlarged
NEAREST = 2.5  # times, at most
DARK = 0.2  # share of synthetic crops whose scene is darkened, and the rain in it dimmed
SOFT = 0.12  # share whose scene is out of focus, whole or in part
_BLURS = (4, 8, 16)  # pixels
LIT = 0.65  # share of our own rain whose streaks cover the scene, rather than add light to it


class CropSource(Protocol):
    """Where a step's crops come from."""

    def __call__(self, count: int, size: int, random: torch.Generator) -> tuple[Tensor, ...]:
        """(rainy, target), or one target more, float32 [count, 3, size, size] in [0, 1], on the generator's device."""


class Pictures:
    """Pictures of any sizes, packed as uint8 into one tensor on the device, so that a batch of crops is one gather."""

    def __init__(self, pictures: Sequence[NDArray[np.uint8]], device: torch.device) -> None:  # each [H, W, C]
        sizes = torch.tensor([picture.shape[:2] for picture in pictures])
        ends = torch.tensor([picture.size for picture in pictures]).cumsum(0)
        self.count, self.fingerprint = len(pictures), fingerprint(pictures)
        self.least = int(sizes.min())  # side of any
        self._channels = pictures[0].shape[2]
        self._heights, self._widths = sizes.to(device).unbind(1)
        self._starts = (ends - torch.tensor([picture.size for picture in pictures])).to(device)
        self._pixels = torch.from_numpy(np.concatenate([picture.reshape(-1) for picture in pictures])).to(device)

    def crops(self, count: int, size: int, random: torch.Generator, turn: bool) -> Tensor:
        """Random crops as float32 [count, C, size, size] in [0, 1], mirrored; turned and upside down too if `turn`."""
        device = random.device
        chance = torch.rand(6, count, 1, 1, 1, generator=random, device=device)
        index = (chance[0] * len(self._starts)).long()
        height, width = self._heights[index], self._widths[index]
        top, left = (chance[1] * (height - size + 1)).long(), (chance[2] * (width - size + 1)).long()
        steps = torch.arange(size, device=device)
        row, column = steps.view(1, 1, -1, 1), steps.view(1, 1, 1, -1)
        column = torch.where(chance[3] < 0.5, column, size - 1 - column)
        if turn:
            row = torch.where(chance[4] < 0.5, row, size - 1 - row)
            row, column = torch.where(chance[5] < 0.5, row, column), torch.where(chance[5] < 0.5, column, row)
        channel = torch.arange(self._channels, device=device).view(1, -1, 1, 1)
        position = self._starts[index] + ((top + row) * width + left + column) * self._channels + channel
        return self._pixels[position].float() / 255


@dataclass(frozen=True)
class OwnRain:
    """Clean photographs with rain of our own: streaks of all kinds, drops near the lens, mist."""

    clean: Pictures

    def __call__(self, count: int, size: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        clean, dim = scenes(self.clean.crops(count, size, random, turn=True), random)
        chance = torch.rand(4, count, 1, 1, 1, generator=random, device=random.device)
        wet = chance[0] >= DRY
        streaks = streak_layers(count, size, size, "mixed", random) * (chance[1] < DRAWN + BOTH)
        streaks = streaks + camera_rain(count, size, size, random) * (chance[1] >= DRAWN)
        streaks = nearer(streaks, NEARER, NEAREST, random) * wet * dim
        covered = streaks.clamp(0, 1) * (light(clean, random) - clean)
        streaks = torch.where(chance[3] < LIT, covered, streaks)
        veil = torch.rand(count, generator=random, device=random.device) * MAX_VEIL
        veil = veil * wet.flatten() * (chance[2].flatten() < 0.4)
        return photograph(clean, streaks, veil, random)


@dataclass(frozen=True)
class MaskedRain:
    """Clean photographs with streak masks added."""

    clean: Pictures
    masks: Pictures

    def __call__(self, count: int, size: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        clean, dim = scenes(self.clean.crops(count, size, random, turn=True), random)
        wet = torch.rand(count, 1, 1, 1, generator=random, device=random.device) >= DRY
        dry = clean.new_zeros(count)  # no veil: the masks' own pictures have none
        streaks = nearer(self._streaks(count, size, random), NEARER, NEAREST, random)
        return photograph(clean, streaks * wet * dim, dry, random)

    def _streaks(self, count: int, size: int, random: torch.Generator) -> Tensor:
        around = min(_around(size), (self.masks.least - size) // 2)  # beyond, masks are mirrored
        masks = self.masks.crops(count, size + 2 * around, random, turn=False)
        chance = torch.rand(6, count, generator=random, device=random.device)
        # streaks are alike upside down, and lean to the other side: as many masks again
        masks = torch.where(chance[5].view(-1, 1, 1, 1) < 0.5, masks.flip(2), masks)
        angle = (chance[0] - 0.5) * math.radians(20)
        zoom = (0.8 + 0.4 * chance[1]) * size / (size + 2 * around)
        still = chance[2] >= TURNED  # for these the grid meets the pixels exactly
        angle, zoom = torch.where(still, 0, angle), torch.where(still, size / (size + 2 * around), zoom)
        cos, sin, zero = torch.cos(angle) * zoom, torch.sin(angle) * zoom, torch.zeros_like(angle)
        affine = torch.stack((torch.stack((cos, -sin, zero), 1), torch.stack((sin, cos, zero), 1)), 1)
        grid = F.affine_grid(affine, [count, 1, size, size], align_corners=False)
        masks = F.grid_sample(masks, grid, align_corners=False, padding_mode="reflection")
        strength = torch.where(chance[3] < FAINTER, 0.15 + 0.85 * chance[4], 0.9 + 0.2 * chance[4])
        return masks * strength.view(-1, 1, 1, 1)


@dataclass(frozen=True)
class Paired:
    """Rainy pictures with their targets, [H, W, 6] each."""

    pairs: Pictures

    def __call__(self, count: int, size: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        rainy, target = self.pairs.crops(count, size, random, turn=False).split(3, dim=1)
        return rainy, target


@dataclass(frozen=True)
class Mixed:
    """Crops of several sources, each crop's drawn at random by the sources' shares, which sum to 1.

    identity: what they are, for a run's state.
    """

    sources: Sequence[tuple[CropSource, float]]
    identity: str = ""

    def __call__(self, count: int, size: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        shares = torch.tensor([share for _, share in self.sources], dtype=torch.float32, device=random.device)
        drawn = torch.multinomial(shares, count, replacement=True, generator=random)
        counts = torch.bincount(drawn, minlength=len(self.sources)).tolist()
        parts = [batches(some, size, random) for (batches, _), some in zip(self.sources, counts) if some]
        # in one layout, whatever was drawn: a compiled step is compiled for each
        rainy, target = (torch.cat([crops.contiguous() for crops in side]) for side in zip(*parts))
        return rainy, target


@dataclass(frozen=True)
class Taught:
    """Crops with what a teacher makes of the rainy ones, as a second target.

    teacher: [N, 3, H, W] -> derained, on the same device. at_once: crops that it takes.
    """

    crops: CropSource
    teacher: Callable[[Tensor], Tensor]
    at_once: int

    def __call__(self, count: int, size: int, random: torch.Generator) -> tuple[Tensor, ...]:
        rainy, target = self.crops(count, size, random)
        taught = torch.empty_like(rainy)  # what is made in inference mode itself could not enter a loss
        for some, into in zip(rainy.split(self.at_once), taught.split(self.at_once)):
            into.copy_(self.teacher(some).clamp(0, 1))
        return rainy, target, taught


@dataclass(frozen=True)
class Folder:
    """A folder of streak masks or pairs; share: of the crops, None for an equal part of what is left."""

    path: Path
    share: float | None = None


def reduced(picture: NDArray[np.uint8], least: int) -> list[NDArray[np.uint8]]:
    """A picture [H, W, C] and copies of it, each with half the pixels of the one before, to sides of `least`.

    Else a network that has learned from photographs of 481x321 takes for drops what is small and bright in one that
    shows more, or in a smaller copy of it.
    """
    copies = [picture]
    while min(size := [round(side / 2**0.5) for side in copies[-1].shape[1::-1]]) >= least:
        copy: NDArray[Any] = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        copies.append(copy)
    return copies


def scenes(clean: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Photographs [N, 3, H, W] as they are, darkened, or out of focus; and how bright rain is there, [N, 1, 1, 1].

    Most photographs to learn from show sharp things by day. In those of real rain, faint streaks stand before the night
    or an even ground.
    """
    count, _, height, width = clean.shape
    chance = torch.rand(7, count, 1, 1, 1, generator=random, device=random.device)
    blurred = clean
    for blur, most in zip(_BLURS, (1 / 3, 2 / 3, 1)):
        coarse = F.avg_pool2d(clean, blur, ceil_mode=True)
        smooth = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=False).clamp(0, 1)
        blurred = torch.where((chance[0] < most) & (chance[0] >= most - 1 / 3), smooth, blurred)
    # in half of them a part stays sharp
    ground = torch.rand(count, 1, 4, 4, generator=random, device=random.device)
    ground = F.interpolate(ground, (height, width), mode="bicubic", align_corners=False)
    behind = torch.where(chance[1] < 0.5, 1.0, ((ground - 0.4) * 8).clamp(0, 1))
    clean = torch.where(chance[2] < SOFT, torch.lerp(clean, blurred, behind), clean)
    dark = chance[3] < DARK
    darkened = clean ** (1 + 1.5 * chance[4]) * (0.25 + 0.75 * chance[5])
    return torch.where(dark, darkened, clean), torch.where(dark, 0.12 + 0.78 * chance[6], 1.0)


def shares(given: Sequence[Folder], own: bool) -> list[float]:
    """The share of each of these folders; with rain of our own (`own`) the rest of 1 is left for it.

    Raises EsdnetError if they come to more than 1, or to less where there is no rain of our own.
    """
    stated = sum(folder.share for folder in given if folder.share is not None)
    unstated = sum(folder.share is None for folder in given)
    most = max(GIVEN, stated) if own else 1.0
    if stated > 1 + 1e-6 or (not own and not unstated and stated < 1 - 1e-6):
        raise EsdnetError(
            f"the shares add up to {stated:g}; they must be at most 1 with --clean, and exactly 1 without it"
        )
    if unstated and most - stated < 1e-6:
        raise EsdnetError("nothing is left for the folders without a share; give smaller shares, or all of them")
    return [(most - stated) / unstated if folder.share is None else folder.share for folder in given]


def load_batches(
    clean: Sequence[Path], streaks: Sequence[Folder], pairs: Sequence[Folder], crop: int, device: torch.device
) -> Mixed:
    """What `clean` folders, with `streaks` masks and rain of our own, and `pairs` give to train on, on the device.

    Raises EsdnetError for an empty folder, a picture that is bad or smaller than a crop, a pair that does not fit,
    shares that do not add up.
    """
    parts = shares([*streaks, *pairs], own=bool(clean))
    sources: list[tuple[CropSource, float]] = []
    known: list[str] = []
    if clean:
        pictures = [_read(source.path, crop) for folder in clean for source in listing(folder)]
        photographs = Pictures([copy for picture in pictures for copy in reduced(picture, crop)], device)
        known.append(f"{len(pictures)} photographs {photographs.fingerprint}")
        sources.append((OwnRain(photographs), max(1 - sum(parts), 0.0)))
    for folder, share in zip(streaks, parts):
        masks = Pictures([read_mask(mask.path, crop) for mask in listing(folder.path)], device)
        known.append(f"{masks.count} masks {masks.fingerprint}={share:g}")
        sources.append((MaskedRain(photographs, masks), share))
    for folder, share in zip(pairs, parts[len(streaks) :]):
        both = Pictures([np.dstack((rainy, target)) for _, rainy, target in read_pairs(folder.path, crop)], device)
        known.append(f"{both.count} pairs {both.fingerprint}={share:g}")
        sources.append((Paired(both), share))
    return Mixed(sources, ", ".join(known))


def fingerprint(pictures: Iterable[NDArray[np.uint8]]) -> str:
    """Of pictures in their order, whatever their files are called and wherever they lie."""
    hashed = hashlib.sha256()
    for picture in pictures:
        hashed.update(f"{picture.shape}".encode())
        hashed.update(np.ascontiguousarray(picture).data)
    return hashed.hexdigest()[:8]


def read_mask(path: Path, least: int) -> NDArray[np.uint8]:
    """A streak mask, uint8 [H, W, 1]. Raises EsdnetError if it is bad or a side is below `least` pixels."""
    return np.ascontiguousarray(_read(path, least).max(axis=2, keepdims=True))


def read_pairs(folder: Path, least: int, mend: str = SMALLER) -> list[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
    """(name, rainy, target) for each picture of folder/input and its namesake in folder/target, uint8 RGB of one size.

    Raises EsdnetError for a name without partner, a pair whose sizes differ, a bad or small picture, no pair at all.
    """
    pairs = []
    couples, unusable = pair_up(listing(folder / "input"), folder / "target")
    for entry in unusable:
        raise EsdnetError(f"{entry.input}: {entry.error}")
    for source, partner in couples:
        path = source.path
        rainy, target = _read(path, least, mend), _read(partner, least, mend)
        if rainy.shape != target.shape:
            (h, w), (th, tw) = rainy.shape[:2], target.shape[:2]
            raise EsdnetError(f"{printable(path)} is {w}x{h}, {printable(partner)} {tw}x{th}; both must be of one size")
        pairs.append((path.name, rainy, target))
    return pairs


def listing(folder: Path) -> list[Source]:
    """The pictures of a folder, sorted by name. Raises EsdnetError if it is none or holds none."""
    if not folder.is_dir():
        raise EsdnetError(f"{printable(folder)}: is not a folder; name one with pictures")
    sources, unusable = find_sources([str(folder)], recursive=False)
    if unusable or not sources:
        raise EsdnetError(f"{printable(folder)}: contains no pictures; choose another folder")
    return sources


def _around(size: int) -> int:
    """How far beyond a crop of a mask a turned and shrunk one reaches, in pixels."""
    return math.ceil(size * 0.3)


def _read(path: Path, least: int, mend: str = SMALLER) -> NDArray[np.uint8]:
    rgb = eight_bit(open_picture(path).rgb)
    if min(rgb.shape[:2]) < least:
        raise EsdnetError(f"{printable(path)}: is {rgb.shape[1]}x{rgb.shape[0]}, smaller than {least} pixels; {mend}")
    return rgb


def load_validation(folder: Path) -> list[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]]:
    """The pairs of a folder, large enough to be scored. Raises EsdnetError as `read_pairs` does."""
    return read_pairs(folder, SMALLEST, mend="take it out")
