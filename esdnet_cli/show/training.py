"""A training run in a terminal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from esdnet_cli.show.terminal import print_rows, tell
from esdnet_cli.training.loop import TrainingRun


def show_training(run: TrainingRun, quiet: bool) -> None:
    """Train to the end, with a progress bar and a line for each validation; Ctrl-C says where --resume goes on."""
    if not quiet:
        parameters = sum(parameter.numel() for parameter in run.network.parameters())
        tell(f"{parameters / 1e6:.2f} M parameters, {run.recipe.precision} on {run.device}, from step {run.step}")
    bar = tqdm(
        total=1.0,
        initial=run.progress,
        bar_format="{percentage:3.0f}%|{bar}| {desc} [{elapsed}<{remaining}]",
        disable=True if quiet else None,
        leave=False,
    )
    with bar, _stopping_between_steps(run):
        try:
            for event in run.train():
                bar.set_description_str(f"step {event.step}, loss {event.loss:.4f}", refresh=False)
                bar.update(event.progress - bar.n)
                if event.validation is not None and not quiet:
                    figures = event.validation
                    best = ", the best so far" if figures.psnr_y >= run.best else ""
                    line = (
                        f"step {event.step}: validation PSNR {figures.psnr_y:.2f} dB, SSIM {figures.ssim_y:.4f}{best}"
                    )
                    print_rows(line)
        except KeyboardInterrupt:
            if not quiet:
                onward = f"--resume continues from step {run.saved}" if run.saved else "nothing was saved yet"
                tell(f"Interrupted at step {run.step}; {onward}.")
            raise
    if not quiet:
        print_rows(f"{run.step} steps in {run.seconds / 60:.1f} minutes: {run.folder}")


@contextmanager
def _stopping_between_steps(run: TrainingRun) -> Iterator[None]:
    """Within, Ctrl-C and SIGTERM let a run of one process finish its step and save; `cli` ends it at a second one."""

    def interrupt(*_: object) -> None:
        run.stopping = True

    # of several processes, each would stop at a step of its own; and only in the main thread are signals handled
    if run.world > 1 or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():  # not after an interruption or error: the process is about to end
        signal.signal(number, handler)
