"""Where pictures go: into files, each whole and known to a journal; or nowhere, if they are only measured."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from esdnet_cli.errors import PictureError, printable
from esdnet_cli.files import NAME_BYTES, digest, write_atomically
from esdnet_cli.pipeline.images import Picture, check_output, encode_picture, writer_for
from esdnet_cli.pipeline.journal import Journal
from esdnet_cli.pipeline.results import ModelInfo

# of the code that makes pixels, raised with every change to what comes out for the same input and network: decoding,
# colours, tiles, arithmetic, encoding; outputs of another number are made again
PIXELS = 10


def pixel_settings(model: ModelInfo) -> dict[str, Any]:
    """Everything that shapes an output's pixels: what the journal compares before it skips a picture."""
    return {
        "pixels": PIXELS,
        "weights": model.weights_sha256,
        "precision": model.precision,
        "tile": model.tile,
        "overlap": model.overlap,
        "ensemble": model.ensemble,
        "scales": model.scales,
        **({"fitted": True} if model.fitted else {}),  # unsaid in older journals
    }


@dataclass(frozen=True)
class Output:
    """Files: `journal` knows what is done; `overwrite` replaces whatever is in the way.

    mend: what to do about it otherwise. dates: outputs carry their input's modification time.
    """

    writes: ClassVar = True
    verb: ClassVar = "derain"
    journal: Journal
    overwrite: bool
    mend: str = field(default="--overwrite replaces it", kw_only=True)
    dates: bool = field(default=True, kw_only=True)

    def prepare(self) -> None:
        """Make the folder, and see that files can be written there. Raises EsdnetError."""
        self.journal.prepare()

    def check_ending(self, path: Path) -> None:
        """Raises PictureError if no format of that name is written."""
        writer_for(path)

    def loses(self, picture: Picture, path: Path) -> tuple[str, ...]:
        """What of a picture the file will lack, before the work. Raises PictureError if there can be none."""
        return check_output(picture, path)

    def is_done(self, path: Path, source_sha256: str) -> bool:
        """True to skip, False to go on. Raises PictureError if something that is not ours is in the way."""
        if len(os.fsencode(path.name)) > NAME_BYTES:
            raise PictureError(f"its output name would exceed {NAME_BYTES} bytes; rename the input")
        if os.path.isdir(path):
            raise PictureError(
                f"a folder already has the name {printable(path)}; move it, or choose another output folder"
            )
        if self.overwrite:
            return False
        state = self.journal.state(path, source_sha256)
        if state == "foreign":
            raise PictureError(
                f"{printable(path)} already exists and was not written by esdnet from this input, "
                f"or has changed since; {self.mend}"
            )
        return state == "done"

    def write(self, path: Path, picture: Picture, source_sha256: str, modified_ns: int | None = None) -> None:
        """Encode one picture, note it, give it its name and its input's modification time.

        Raises PictureError if something came in the way meanwhile.
        """
        encoded = encode_picture(picture, path)
        if self.is_done(path, source_sha256):
            return  # by another run, while this one computed
        path.parent.mkdir(parents=True, exist_ok=True)
        self.journal.note(path, source_sha256, digest(encoded))
        try:
            replaced = self.overwrite or os.path.lexists(path)
            write_atomically(path, encoded, replaced, modified_ns if self.dates else None)
        except FileExistsError:
            self.is_done(path, source_sha256)


@dataclass(frozen=True)
class Nowhere:
    """No file: pictures are only measured. As Output, for jobs that name none. verb: what a plan calls that."""

    writes: ClassVar = False
    overwrite: ClassVar = False
    verb: str = "measure"

    def prepare(self) -> None:
        """Nothing is needed."""

    def check_ending(self, path: Path) -> None:
        """Any will do."""

    def loses(self, picture: Picture, path: Path) -> tuple[str, ...]:
        """Nothing that was to be kept."""
        return ()

    def is_done(self, path: Path, source_sha256: str) -> bool:
        """Never: what is measured leaves nothing behind."""
        return False

    def write(self, path: Path, picture: Picture, source_sha256: str, modified_ns: int | None = None) -> None:
        """The picture goes."""
