"""What is made of each picture that is done: scores against targets, pictures of where neurons fire, previews."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from esdnet_cli.errors import PictureError, printable
from esdnet_cli.metrics import quality, spike_rain
from esdnet_cli.pipeline.images import Picture, eight_bit, read_picture
from esdnet_cli.pipeline.output import Output
from esdnet_cli.pipeline.results import ImageResult, Preview
from esdnet_cli.pipeline.run import Done, Observer
from esdnet_cli.pipeline.sources import Source, map_paths

SHOWN = (1, 99)  # percentiles of a map that become the darkest and the brightest colour
MAPS_SMALLER = 2  # a preview's maps, against its pictures
PREVIEW_SIDES = (1000, 800, 640, 480, 360, 280, 200, 140, 100)  # the longest that fits
PREVIEW_QUALITY = 80  # of WebP


def score(targets: Mapping[Source, Path]) -> Observer:
    """PSNR and SSIM of the result against its target, and how far spikes follow the true rain, where there are maps."""

    def observer(done: Done, result: ImageResult) -> ImageResult:
        path = targets[done.source]
        try:
            target = eight_bit(read_picture(path.read_bytes(), path).rgb)
        except PictureError as error:
            raise PictureError(f"its target {printable(path)}: {error}") from error
        try:
            result = replace(result, quality=quality(eight_bit(done.derained.rgb), target))
        except ValueError as error:
            raise PictureError(str(error)) from error
        if done.spike_map is None:
            return result
        return replace(result, spike_rain=spike_rain(done.spike_map, eight_bit(done.rainy.rgb), target))

    return observer


def previews(budget: int) -> Observer:
    """Small WebP pictures for the HTML report: rainy, derained, spike maps; at most `budget` bytes a picture."""

    def observer(done: Done, result: ImageResult) -> ImageResult:
        pictures = [eight_bit(picture.rgb)[..., ::-1] for picture in (done.rainy, done.derained)]
        maps, scales = heat(done.spike_map) if done.spike_map is not None else ([], ())
        for side in PREVIEW_SIDES:
            before, after, *spikes = (
                *(_webp(picture, side) for picture in pictures),
                *(_webp(picture, side // MAPS_SMALLER) for picture in maps),
            )
            if len(before) + len(after) + sum(map(len, spikes)) <= budget:
                break
        return replace(result, preview=Preview(before, after, tuple(spikes), scales))

    return observer


@dataclass(frozen=True)
class SpikeMaps:
    """A heat map of each level that has neurons as PNG: `sources.map_paths` of each source's name."""

    names: Mapping[Source, Path]
    output: Output
    levels: int

    def are_done(self, source: Source, sha256: str) -> bool:
        """As `Output.is_done`, of all of a source's."""
        return all([self.output.is_done(path, sha256) for path in map_paths(self.names[source])[: self.levels]])

    def write(self, done: Done) -> None:
        """As `Output.write`, of all of a picture's."""
        assert done.spike_map is not None
        colours, _ = heat(done.spike_map)
        for path, colour in zip(map_paths(self.names[done.source]), colours):
            self.output.write(path, Picture(colour[..., ::-1], None, False), done.sha256)


def heat(spike_map: NDArray[np.float16]) -> tuple[list[NDArray[Any]], tuple[tuple[float, float], ...]]:
    """Colours BGR uint8 [H, W, 3] of each level, dark to bright, and the firing rates at both ends."""
    colours, scales = [], []
    for level in np.moveaxis(spike_map, 2, 0):
        low, high = (float(rate) for rate in np.percentile(level.astype(np.float32), SHOWN))
        share = np.clip((level.astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
        colours.append(cv2.applyColorMap((255 * share).astype(np.uint8), cv2.COLORMAP_INFERNO))
        scales.append((low, high))
    return colours, tuple(scales)


def _webp(picture: NDArray[Any], side: int) -> bytes:
    scale = side / max(picture.shape[:2])
    if scale < 1:
        size = [max(1, round(length * scale)) for length in picture.shape[1::-1]]
        picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".webp", np.ascontiguousarray(picture), [cv2.IMWRITE_WEBP_QUALITY, PREVIEW_QUALITY])[
        1
    ].tobytes()
