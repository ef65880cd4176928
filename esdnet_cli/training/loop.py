"""Direct training with the surrogate gradient: steps, schedule, weight averaging, validation, exact resumption."""

from __future__ import annotations

import copy
import json
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from esdnet_cli.checkpoint.store import as_shipped, save
from esdnet_cli.errors import EsdnetError, one_line, printable
from esdnet_cli.metrics import quality, ssim
from esdnet_cli.model.config import ESDNetConfig
from esdnet_cli.model.inference import LOWERED, Inference, Precision, choose_batch, is_fast
from esdnet_cli.model.layers import TDBatchNorm2d
from esdnet_cli.model.network import ESDNet
from esdnet_cli.pipeline.tiling import Batches, Tiling, derain_tiled, is_out_of_memory
from esdnet_cli.training.budget import COUNTED, EVERY, SpikeBudget
from esdnet_cli.training.data import CropSource
from esdnet_cli.training.optimiser import MuonAdamW
from esdnet_cli.training.recorded import Ahead, Recorded
from esdnet_cli.training.state import BEST, LAST, LOG, STATE, Position, below, forget_after, read_state, write_state

VALIDATIONS = 10  # over a run
SAVE_SECONDS = 60.0  # what a kill may cost
MOST_WARMUP = 0.05  # share of a short run
L1_WEIGHT = 2.0
TONE_WEIGHT, TONE_SIDE = 4.0, 16
EXACT = 100.0  # dB that a pair which comes back exactly counts: with its infinity no validation would be the best
TAUGHT = 0.7  # share of the loss that a teacher's results have, if there is one


@dataclass(frozen=True)
class Recipe:
    """What a run is; it stands in the state, and a resumed run must have the same.

    steps or minutes: the length, one of them None. batch: crops of a step over all processes. crop: their side.
    lr: learning rate, reached after `warmup` steps (MOST_WARMUP of a short run), kept, and falling to 0 over the last
    `cooldown` of the run (a share; 0: it does not fall, for a run that another will go on from). frozen_norm: batch
    norm goes by the statistics that the run began with, as at inference, not by those of the few crops of a step.
    spike_budget: the share of the first weights' spike-driven accumulations that may be spent (None: any).
    teacher: which network teaches this one, and how (the crops come with its results). data, validation: which pictures
    it learns from, in which shares, and is validated on (None: not said). ema: decay of the averaged
    weights. clip: gradient norm. precision: fp32, or bf16 under autocast.
    """

    config: ESDNetConfig
    steps: int | None
    minutes: float | None
    batch: int
    crop: int
    lr: float
    seed: int
    precision: str
    cooldown: float
    frozen_norm: bool = False
    spike_budget: float | None = None
    teacher: str | None = None
    data: str | None = None
    validation: str | None = None
    warmup: int = 200
    weight_decay: float = 1e-4
    ema: float = 0.999
    clip: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; nothing frozen, no budget, no teacher and no data go unsaid, as in states of older versions."""
        optional = ("frozen_norm", "spike_budget", "teacher", "data", "validation")
        unsaid = [name for name in optional if not getattr(self, name)]
        return {key: value for key, value in asdict(self).items() if key not in unsaid} | {
            "config": self.config.to_dict()
        }


@dataclass(frozen=True)
class Validation:
    """Means over the validation pairs (Y channel, `metrics`' convention), computed in fp32.

    bf16_psnr_y_change, int8_psnr_y_change: what that precision adds to psnr_y, in dB, where the device has it.
    """

    psnr_y: float
    ssim_y: float
    bf16_psnr_y_change: float | None = None
    int8_psnr_y_change: float | None = None


@dataclass(frozen=True)
class Step:
    """One step done. progress: share of the run, 0 to 1. validation: if one followed it."""

    step: int
    progress: float
    loss: float
    lr: float
    seconds: float
    validation: Validation | None


class TrainingRun:
    """A training run in its folder: iterate over `train()`. Every process of torchrun has one, the first one writes."""

    def __init__(
        self,
        recipe: Recipe,
        crops: CropSource,
        validation: Sequence[tuple[str, NDArray[np.uint8], NDArray[np.uint8]]],
        folder: Path,
        device: torch.device,
        *,
        initial: dict[str, Tensor] | None = None,
        resume: bool = False,
        compiled: bool = False,
        origin: Mapping[str, str] | None = None,
    ) -> None:
        self.recipe, self.folder, self.device = recipe, folder, device
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        if recipe.batch % self.world:
            raise EsdnetError(
                f"--batch {recipe.batch} cannot be divided among {self.world} processes; use a multiple of {self.world}"
            )
        self._validation, self._origin = validation, origin or {}
        torch.manual_seed(recipe.seed)  # the same initial weights in every process
        try:
            self.network = ESDNet(recipe.config)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise EsdnetError("out of memory: no room for the network's weights; use a smaller --size") from error
        if initial is not None:
            self.network.load_state_dict(initial)
        self.network.to(device)
        if recipe.frozen_norm:
            for module in self.network.modules():
                if isinstance(module, TDBatchNorm2d):
                    module.eval()
        self._cuda = device.type == "cuda"
        if compiled or self._cuda:
            channels_last(self.network)  # on a CPU the compiled step is faster in this layout, the plain one is not
        # in the same layout, so that both are gone through side by side
        self.average = copy.deepcopy(self.network).requires_grad_(False).eval()
        # a GPU may sum parts of a product in bfloat16, too, and has float32 to spare
        products = torch.bfloat16 if recipe.precision == "bf16" and not self._cuda else torch.float32
        self._optimiser = MuonAdamW(self.network, recipe.lr, recipe.weight_decay, products)
        random = torch.Generator(device).manual_seed(recipe.seed * 1_000_003 + self.rank)
        self._batches = Ahead(
            lambda count, random: crops(count, recipe.crop, random), recipe.batch // self.world, random
        )
        self._budget = self._begin_budget(crops) if recipe.spike_budget else None
        self.step, self.saved, self.seconds, self.best = 0, 0, 0.0, -math.inf
        self.stopping = False  # set, it ends the run after the step under way, saved, with KeyboardInterrupt
        if resume:
            self._restore()
        self._forward = self._prepared(compiled)
        self._recorded: Recorded | None = None

    def _begin_budget(self, crops: CropSource) -> SpikeBudget:
        assert self.recipe.spike_budget is not None
        random = torch.Generator(self.device).manual_seed(self.recipe.seed)  # leaves the batches as they are
        rainy = crops(COUNTED, self.recipe.crop, random)[0]
        lowered = self.recipe.precision == "bf16"
        return SpikeBudget(self.network, self.average, self.recipe.spike_budget, rainy, lowered)

    def _prepared(self, compiled: bool) -> Callable[[Tensor], Tensor]:
        forward: Any = torch.compile(self.network, dynamic=False) if compiled else self.network
        if self.world == 1:
            return forward
        # it means 1x1 kernels, whose two layouts are the same in memory
        warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
        return DistributedDataParallel(forward)

    @property
    def progress(self) -> float:
        """Share of the run that is done."""
        if self.recipe.steps is not None:
            return min(1.0, self.step / self.recipe.steps)
        assert self.recipe.minutes is not None
        return min(1.0, self.seconds / (60 * self.recipe.minutes))

    def train(self) -> Iterator[Step]:
        """Go on to the end of the run; each step is yielded, and the folder is never more than a minute behind."""
        try:
            yield from self._steps()
        finally:
            self._batches.close()

    def _steps(self) -> Iterator[Step]:
        validated = int(self.progress * VALIDATIONS)
        begun, saved = time.perf_counter() - self.seconds, self.seconds
        while self.progress < 1:
            if self.stopping:
                self._save(None)
                self.saved = self.step
                raise KeyboardInterrupt
            try:
                loss, lr = self._train_step()
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise EsdnetError("out of memory in a training step; use a smaller --batch or --crop") from error
            self.step += 1
            self.seconds = self._agree(time.perf_counter() - begun)
            validation = None
            if int(self.progress * VALIDATIONS) > validated:
                validated = int(self.progress * VALIDATIONS)
                validation = self._validate()
            event = Step(self.step, self.progress, loss, lr, self.seconds, validation)
            self._log(event)
            if validation or self.seconds - saved > SAVE_SECONDS or self.progress >= 1:
                self._save(validation)
                self.saved, saved = self.step, self.seconds
            yield event

    def _learning_rate(self) -> float:
        warm = min(1.0, max((self.step + 1) / self.recipe.warmup, self.progress / MOST_WARMUP))
        left = (1 - self.progress) / self.recipe.cooldown if self.recipe.cooldown else 1.0
        return self.recipe.lr * warm * min(1.0, left)

    def _train_step(self) -> tuple[float, float]:
        if self._budget is not None and self.step % EVERY == 0:
            self._budget.charge(self._agree(self._budget.spent()))
        loss = self._gradients(*self._batches.take())
        lr = self._learning_rate()
        self._optimiser.step(lr)
        self._update_average()
        if self._cuda:
            self._batches.begin()  # beside what the device has yet to do
        value = float(loss)
        if not math.isfinite(value):
            raise EsdnetError(
                f"the loss became {value} at step {self.step + 1}; use a smaller --lr, or --precision fp32"
            )
        return value, lr

    def _gradients(self, *batch: Tensor) -> Tensor:
        """The loss of a batch, and its gradients, clipped, in the parameters."""
        if not self._cuda or self.world > 1:
            self._optimiser.zero_grad()
            return self._computed(*batch)
        if self._recorded is None:
            self._recorded = Recorded(self._computed, self.network, batch)
        return self._recorded(*batch)

    def _computed(self, rainy: Tensor, target: Tensor, taught: Tensor | None = None) -> Tensor:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bf16"):
            derained = self._forward(rainy).float()
        loss = restoration_loss(derained, target)
        if taught is not None:
            loss = (1 - TAUGHT) * loss + TAUGHT * restoration_loss(derained, taught)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        return loss.detach()

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))  # the first weights are soon forgotten
        pairs = list(zip(self.average.state_dict().values(), self.network.state_dict().values()))
        floats = [(mean, now) for mean, now in pairs if mean.is_floating_point()]
        torch._foreach_lerp_([mean for mean, _ in floats], [now for _, now in floats], 1 - decay)
        for mean, now in pairs:
            if not mean.is_floating_point():
                mean.copy_(now)

    def _validate(self) -> Validation | None:
        if not self._validation:
            return None
        if self.world > 1:  # batch norm saw each process's own crops; the first one's statistics are saved
            for buffer in self.average.buffers():
                dist.broadcast(buffer, 0)
        stored = copy.deepcopy(self.average)  # as a file will hold it, which rounds kernels
        stored.load_state_dict(as_shipped(self.average.state_dict()))
        tiling = tiling_for(self.recipe.crop)
        # by a stopwatch, so the first process's word counts
        levels = self.recipe.config.levels
        lowered = [precision for precision in LOWERED if self._agree(is_fast(precision, self.device, levels))]
        precisions: list[Precision] = ["fp32", *lowered]
        sums = torch.zeros(len(precisions), 2, dtype=torch.float64)
        for row, precision in enumerate(precisions):
            inference = Inference(copy.deepcopy(stored), self.device, precision)
            size = choose_batch(inference.network, tiling.tile, tiling.tile, self.device, side_by_side=1)
            tiles = Batches([inference], size, self.recipe.config.multiple)
            for _, rainy, target in self._validation[self.rank :: self.world]:
                figures = quality(derain_tiled(rainy, tiling, tiles), target)
                sums[row] += torch.tensor([min(figures.psnr_y, EXACT), figures.ssim_y])
        if self.world > 1:
            sums = sums.to(self.device)
            dist.all_reduce(sums)
        (psnr_y, ssim_y), *others = (sums / len(self._validation)).tolist()
        changes = {f"{name}_psnr_y_change": other - psnr_y for name, (other, _) in zip(lowered, others)}
        return Validation(psnr_y, ssim_y, **changes)

    def _agree(self, value: float) -> float:
        """The first process's value is everyone's: all must stop, save and validate at the same step."""
        if self.world == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, 0)
        return float(shared)

    def _log(self, event: Step) -> None:
        if self.rank == 0 and (event.validation or event.step % 50 == 0 or event.step == 1 or event.progress >= 1):
            line = {key: value for key, value in asdict(event).items() if value is not None}
            with (self.folder / LOG).open("a") as file:
                file.write(json.dumps(line) + "\n")

    def _save(self, validation: Validation | None) -> None:
        generators = self._gather(self._batches.state)
        if self.rank:
            return
        better = validation is not None and validation.psnr_y > self.best
        if validation is not None and better:
            self.best = validation.psnr_y
        metadata = self._metadata(validation)
        averaged = as_shipped(self.average.state_dict())
        if better:
            save(self.folder / BEST, averaged, self.recipe.config, metadata)
        save(self.folder / LAST, averaged, self.recipe.config, metadata)
        tensors = {f"network.{key}": value for key, value in self.network.state_dict().items()}
        tensors |= {f"average.{key}": value for key, value in self.average.state_dict().items()}
        tensors |= {f"optimiser.{key}": value for key, value in self._optimiser.state().items()}
        if self._budget is not None:
            tensors |= {f"budget.{key}": value for key, value in self._budget.state().items()}
        tensors |= {f"random.{rank}": state for rank, state in enumerate(generators)}
        here = Position(self.step, self.seconds, self.best if math.isfinite(self.best) else None, self._origin)
        # last of all: what a resumed run starts from is never ahead of the files beside it
        write_state(self.folder / STATE, tensors, self.recipe.to_dict(), here)

    def _gather(self, state: Tensor) -> list[Tensor]:
        if self.world == 1:
            return [state]
        states: list[Any] = [None] * self.world
        dist.all_gather_object(states, state)
        return states

    def _metadata(self, validation: Validation | None) -> dict[str, str]:
        tiling = tiling_for(self.recipe.crop)
        metadata = {"tile": str(tiling.tile), "overlap": str(tiling.overlap), **self._origin}
        if validation is not None:
            figures = {key: round(value, 4) for key, value in asdict(validation).items() if value is not None}
            metadata["metrics"] = json.dumps({"validation": figures, "steps": self.step})
        return metadata

    def _restore(self) -> None:
        path = self.folder / STATE
        tensors, here = read_state(path, self.recipe.to_dict(), self.world)
        try:
            self.network.load_state_dict(below(tensors, "network."))
            self.average.load_state_dict(below(tensors, "average."))
            self._optimiser.restore(below(tensors, "optimiser."))
            if self._budget is not None:
                self._budget.restore(below(tensors, "budget."))
        except (KeyError, RuntimeError) as error:
            fault = f"has not the tensors of this network and its optimiser ({one_line(error)[:200]})"
            raise EsdnetError(f"{printable(path)}: {fault}; start a new run") from error
        try:
            self._batches.restore(tensors[f"random.{self.rank}"], here.step)
        except RuntimeError as error:  # generators of other devices have other states
            raise EsdnetError(
                f"{printable(path)}: was started on another kind of device; resume with that --device"
            ) from error
        self.step = self.saved = here.step
        self.seconds = here.seconds
        self.best = -math.inf if here.best is None else here.best
        self._origin = self._origin if here.origin is None else here.origin
        if self.rank == 0:
            forget_after(self.folder / LOG, self.step)


def channels_last(network: nn.Module) -> None:
    """Lay out the weights of 2-D convolutions so that activations follow, in place."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def restoration_loss(derained: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM + L1_WEIGHT L1 + TONE_WEIGHT tone of [N, 3, H, W] in [0, 1], H and W at least TONE_SIDE.

    Song et al. (IJCAI 2024) train on SSIM; L1 holds the colours. Tone is the L1 of means over whole squares of
    TONE_SIDE: where dense rain before a light ground is taken for more than it is, the whole place comes back too dark,
    and SSIM's windows of 11 see little of that.
    """
    difference = derained - target
    tone = F.avg_pool2d(difference, TONE_SIDE).abs().mean()
    return 1 - ssim(derained, target, 1.0) + L1_WEIGHT * difference.abs().mean() + TONE_WEIGHT * tone


def tiling_for(crop: int) -> Tiling:
    """The tiles that suit a network trained on crops of this side: a little larger, as published (64 and 80)."""
    tile = crop * 5 // 4 // 8 * 8
    return Tiling(tile, tile // 10)
