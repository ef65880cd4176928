"""The finished segments of a clip in the making, in a hidden folder beside its output: what a rerun goes on from."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from esdnet_cli.energy.cost import Activity, LayerActivity
from esdnet_cli.errors import PictureError
from esdnet_cli.files import digest, fitting_name, write_atomically
from esdnet_cli.video.encoder import EncodedPacket, Segment, reordering

_COUNTED = ("spikes", "ac", "nonzero")  # what differs between frames of one size


@dataclass(frozen=True)
class FrameRecord:
    """One frame's figures. counts: of each layer, those of _COUNTED."""

    number: int
    pts: int
    seconds: float
    counts: list[int]


@dataclass(frozen=True)
class Part:
    """A segment with what is known of its frames. activity: the layers, without counts. state: of the deflicker."""

    segment: Segment
    frames: list[FrameRecord]
    activity: Activity
    state: bytes


def counts_of(activity: Activity) -> list[int]:
    """What depends on a frame's content, layer by layer."""
    return [getattr(layer, field) for layer in activity.layers for field in _COUNTED]


def without_counts(activity: Activity) -> Activity:
    """What depends on a frame's size alone."""
    nothing: dict[str, Any] = dict.fromkeys(_COUNTED, 0)
    return replace(activity, layers=tuple(replace(layer, **nothing) for layer in activity.layers))


def with_counts(activity: Activity, counts: Sequence[int]) -> Activity:
    """The activity of a frame again, from both."""
    size = len(_COUNTED)
    layers = []
    for index, layer in enumerate(activity.layers):
        counted: dict[str, Any] = dict(zip(_COUNTED, counts[index * size : (index + 1) * size]))
        layers.append(replace(layer, **counted))
    return replace(activity, layers=tuple(layers))


class ActivitySum:
    """Adds up the activity of frames of one size, in memory that does not grow with them."""

    def __init__(self) -> None:
        self.frames = 0
        self._shape: Activity | None = None
        self._counts: list[int] = []

    def add(self, shape: Activity, counts: Sequence[int]) -> None:
        """One more frame, as `without_counts` and `counts_of` give it."""
        self._counts = [a + b for a, b in zip(self._counts, counts)] if self._shape else list(counts)
        self._shape = self._shape or shape
        self.frames += 1

    def total(self) -> Activity | None:
        """All layers' sums; None of no frame, and where nothing was counted."""
        if self._shape is None or not self._counts:
            return None
        layers = []
        for layer in self._shape.layers:
            sums: dict[str, Any] = {
                key: value * self.frames for key, value in asdict(layer).items() if isinstance(value, int)
            }
            layers.append(replace(layer, **sums))
        return with_counts(replace(self._shape, layers=tuple(layers)), self._counts)


def parts_folder(output: Path) -> Path:
    """Where the parts of an output are."""
    return output.with_name(f".{fitting_name(output.name, len('..esdnet-parts'))}.esdnet-parts")


class Parts:
    """The folder. `identity` is all that shapes the result: parts made under another are not used."""

    def __init__(self, output: Path, identity: dict[str, Any]) -> None:
        self.folder = parts_folder(output)
        self._job = self.folder / "job.json"
        self._identity = json.dumps(identity, sort_keys=True)
        self._sha256 = digest(self._identity.encode())

    def begin(self) -> bool:
        """Make the folder ready; False if parts of another identity had to go."""
        # one without parts may be that of a run which begins at the same time
        ours = self.are_ours() or not any(self.folder.glob("*.part"))
        if not ours:
            shutil.rmtree(self.folder)
        write_atomically(self._job, self._identity.encode())
        return ours

    def are_ours(self) -> bool:
        """Is there a folder, of this identity?"""
        return self._job.is_file() and self._job.read_text() == self._identity

    def write(self, index: int, part: Part) -> None:
        """Store a finished segment: whole, or not at all.

        Raises OSError, and PictureError if the folder has become another run's meanwhile.
        """
        if not self.are_ours():
            raise PictureError("another run with other options is making this output now; name another one, or wait")
        payload = b"".join([*(packet.data for packet in part.segment.packets), part.state])
        head = {
            "job": self._sha256,  # a run that began before this one may be about to write a part, too
            "extradata": part.segment.extradata.hex(),
            "packets": [[*packet[:3], len(packet.data)] for packet in part.segment.packets],
            "frames": [[frame.number, frame.pts, frame.seconds, frame.counts] for frame in part.frames],
            "activity": asdict(part.activity),
            "state": len(part.state),
            "sha256": digest(payload),
        }
        write_atomically(self._path(index), json.dumps(head).encode() + b"\n" + payload)

    def read(self) -> Iterator[Part]:
        """The parts from the first on, to before the first that is missing or damaged."""
        index = 0
        while (part := self._read(index)) is not None:
            yield part
            index += 1

    def remove(self) -> None:
        """All is in the output: the folder can go."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self, index: int) -> Part | None:
        try:
            line, _, payload = self._path(index).read_bytes().partition(b"\n")
            head = json.loads(line)
            if head["job"] != self._sha256 or digest(payload) != head["sha256"]:
                return None
            packets, start = [], 0
            for pts, duration, key, size in head["packets"]:
                packets.append(EncodedPacket(pts, duration, key, payload[start : start + size]))
                start += size
            shape = head["activity"]
            activity = Activity(shape["virtual_steps"], tuple(LayerActivity(**layer) for layer in shape["layers"]))
            frames = [FrameRecord(*frame) for frame in head["frames"]]
            return Part(Segment(bytes.fromhex(head["extradata"]), packets), frames, activity, payload[start:])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06}.part"


def delay_of(part: Part) -> int:
    """As `reordering`, of a part."""
    return reordering([packet.pts for packet in part.segment.packets])
