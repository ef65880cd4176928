"""One picture from standard input or a file to standard output; what else is printed goes to stderr."""

from __future__ import annotations

import sys
import tempfile
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

from esdnet_cli.errors import EsdnetError
from esdnet_cli.files import write_atomically
from esdnet_cli.pipeline.derainer import AsIs, Derainer
from esdnet_cli.pipeline.images import ending_of
from esdnet_cli.pipeline.journal import Journal
from esdnet_cli.pipeline.output import Nowhere, Output, pixel_settings
from esdnet_cli.pipeline.sources import Source, Unusable, find_sources, plan_maps, plan_outputs
from esdnet_cli.settings import RunOptions
from esdnet_cli.show.network import load_derainer
from esdnet_cli.show.pictures import show_plan, show_run, spike_maps


def derain_stream(name: str, recursive: bool, file_format: str | None, overwrite: bool, options: RunOptions) -> int:
    """Derain the picture that `name` names, - for standard input, to standard output; returns the exit code.

    overwrite: of spike maps, the only files that stay. The picture takes the way of all files, in a folder of its own
    that goes afterwards. Nothing is written to standard output if it fails.
    """
    out = sys.stdout.buffer
    if out.isatty() and not options.dry_run:
        raise EsdnetError("-o - would print a picture into this terminal; send it to a file: > clear.png")
    with tempfile.TemporaryDirectory(prefix="esdnet-") as temporary, redirect_stdout(sys.stderr):
        place = Path(temporary)
        unusable: list[Unusable] = []
        if name == "-":
            data = sys.stdin.buffer.read()
            relative = Path("stdin").with_suffix(ending_of(data))
            write_atomically(place / relative, data)  # whose errors name the file: that disk may be full, too
            sources = [Source(place / relative, relative, shown="-")]
        else:
            sources, unusable = find_sources([name], recursive)
            if len(sources) > 1:
                raise EsdnetError(f"{name}: names {len(sources)} pictures, and -o - takes one; name a file")
        jobs = [replace(job, shown="-") for job in plan_outputs(sources, place / "out", file_format)]
        derainer: Derainer | AsIs = AsIs()
        output: Output | Nowhere = Nowhere()
        if sources:
            derainer = load_derainer(options)
            output = Output(Journal(place / "out", pixel_settings(derainer.info)), False)
        names = plan_maps(jobs, options.spike_map)
        maps = spike_maps(derainer.info, names, options, overwrite)
        if options.dry_run:
            return show_plan(derainer, jobs, unusable, output, maps=maps)
        code = show_run(derainer, jobs, unusable, output, options, maps=maps)
        if code == 0:
            out.write(jobs[0].output.read_bytes())
            out.flush()
    return code
