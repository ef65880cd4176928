"""What a step does with its gradients: Muon for the spike-driven convolutions, AdamW for everything else."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon

from esdnet_cli.model.layers import SeqConv2d


class MuonAdamW:
    """Muon (Jordan et al., 2024) for the body's convolutions, each kernel a matrix of outputs by inputs; else AdamW.

    Muon's step is scaled to the size of AdamW's (Liu et al., 2025), so that one learning rate serves both. Why not
    AdamW alone: benchmarks/training.md. The convolutions' `weight.data` must not be replaced afterwards.
    """

    def __init__(self, network: nn.Module, lr: float, weight_decay: float) -> None:
        kernels = {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, SeqConv2d)}
        named = dict(network.named_parameters())
        self._kernels = {name: parameter for name, parameter in named.items() if name in kernels}
        self._others = {name: parameter for name, parameter in named.items() if name not in kernels}
        self._matrices = {name: nn.Parameter(_matrix(kernel, kernel)) for name, kernel in self._kernels.items()}
        self._muon = Muon(self._matrices.values(), lr, weight_decay, adjust_lr_fn="match_rms_adamw")
        self._adamw = AdamW(self._others.values(), lr, weight_decay=weight_decay, fused=True)

    def step(self, lr: float) -> None:
        """Move the parameters by their gradients."""
        for optimiser in (self._muon, self._adamw):
            for group in optimiser.param_groups:
                group["lr"] = lr
        for name, kernel in self._kernels.items():
            assert kernel.grad is not None
            self._matrices[name].grad = _matrix(kernel.grad, kernel)
        self._muon.step()
        self._adamw.step()

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in (*self._kernels.values(), *self._others.values()):
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """What `restore` takes: by parameter name and key, momenta of kernels in the kernels' shape."""
        tensors = {}
        for name, kernel in self._kernels.items():
            momentum = kernel.detach().clone()
            _matrix(momentum, kernel).copy_(self._muon.state[self._matrices[name]]["momentum_buffer"])
            tensors[f"{name}.momentum"] = momentum
        for name, parameter in self._others.items():
            tensors |= {f"{name}.{key}": value for key, value in self._adamw.state[parameter].items()}
        return tensors

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a `state()`. Raises KeyError if it is another network's."""
        for name, kernel in self._kernels.items():
            momentum = kernel.detach().clone().copy_(tensors[f"{name}.momentum"])
            self._muon.state[self._matrices[name]] = {"momentum_buffer": _matrix(momentum, kernel)}
        for name, parameter in self._others.items():
            self._adamw.state[parameter] = {
                "step": tensors[f"{name}.step"],
                # in the parameter's own layout: the fused step goes through memory, not through indices
                **{
                    key: torch.empty_like(parameter).copy_(tensors[f"{name}.{key}"])
                    for key in ("exp_avg", "exp_avg_sq")
                },
            }


def _matrix(tensor: Tensor, kernel: Tensor) -> Tensor:
    """[out, in, h, w] as [out, in * h * w], columns in the order of the kernel's memory, of itself a view."""
    tensor = tensor.detach()
    return (tensor if kernel.is_contiguous() else tensor.permute(0, 2, 3, 1)).flatten(1)
