"""Training steps per second: the straightforward way against ours, in turn, in one run.

    python benchmarks/training.py --rounds 7 [--compile]

Straightforward: float32, the neuron as a loop over T of element-wise operations under plain autograd. Ours: `esdnet
train`'s step, bf16 autocast where the device has it (not in a step compiled for a CPU), the neuron as one autograd
function. Same network, crops and loss.
"""

from __future__ import annotations

import argparse
import statistics
import time
from unittest import mock

import torch
from torch import Tensor

from esdnet_cli.model import layers
from esdnet_cli.model.config import SIZES
from esdnet_cli.model.inference import choose_device
from esdnet_cli.model.network import ESDNet
from esdnet_cli.model.neurons import SURROGATE_ALPHA, TAU, V_THRESHOLD
from esdnet_cli.training.loop import channels_last, restoration_loss
from esdnet_cli.training.start import autocast_precision


def plain_lif(x_seq: Tensor, spike_dtype: None = None) -> Tensor:
    """The neuron as one would write it: autograd keeps every intermediate of every step."""
    v = torch.zeros_like(x_seq[0])
    spikes = []
    for x in x_seq:
        h = v * (1 - 1 / TAU) + x
        smooth = torch.sigmoid(SURROGATE_ALPHA * (h - V_THRESHOLD))
        spike = smooth + ((h >= V_THRESHOLD).to(h.dtype) - smooth).detach()
        v = h * (1 - spike)
        spikes.append(spike)
    return torch.stack(spikes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    sizes = [name for name, size in SIZES.items() if size.neuron == "lif"]  # the straightforward way is a LIF neuron's
    parser.add_argument("--size", choices=sizes, default="lif")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--compile", action="store_true")
    options = parser.parse_args()
    device = choose_device(options.device)
    precision = autocast_precision("auto", device, options.compile)
    torch.manual_seed(0)
    network = ESDNet(SIZES[options.size]).to(device)
    target = torch.rand(options.batch, 3, options.crop, options.crop, device=device)
    rainy = (target + 0.3 * torch.rand_like(target)).clamp(0, 1)
    ours = network
    if options.compile:
        channels_last(network)
        ours = torch.compile(network, dynamic=False)

    def step(forward: torch.nn.Module, dtype: str) -> float:
        started = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bf16"):
            derained = forward(rainy)
        loss = restoration_loss(derained.float(), target)
        loss.backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - started

    def straightforward() -> float:
        with mock.patch.object(layers, "lif", plain_lif):
            return step(network, "fp32")

    step(ours, precision)  # compiles
    ratios, times = [], []
    for _ in range(options.rounds):
        plain, fast = straightforward(), step(ours, precision)
        ratios.append(plain / fast)
        times.append(fast)
    how = f"{precision}{', compiled' if options.compile else ''}"
    print(
        f"{options.size} on {device}, {torch.get_num_threads()} threads, {options.batch} crops of {options.crop}: "
        f"{how} {statistics.median(times):.2f} s a step, "
        f"{statistics.median(ratios):.2f} times as fast as the straightforward way (median of {options.rounds})"
    )


if __name__ == "__main__":
    main()
