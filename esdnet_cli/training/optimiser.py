"""What a step does with its gradients: Muon for the spike-driven convolutions, AdamW for everything else."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from esdnet_cli.model.layers import SeqConv2d

MOMENTUM = 0.95
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # a x + b x^3 + c x^5 brings singular values near 1 (Jordan et al., 2024)
_ITERATIONS = {torch.float32: (5,), torch.bfloat16: (2, 2, 1)}  # Newton-Schulz's, between one Gram matrix and the next
_LARGEST = 1.3  # singular value that the iteration leaves, generously
_RMS = 0.2  # of AdamW's steps, which Muon's are scaled to (Liu et al., "Muon is Scalable for LLM Training", 2025)


@torch.no_grad()
def orthogonalised(matrices: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The nearest semi-orthogonal matrices to [K, M, N], roughly: singular values between 0.7 and 1.2.

    Newton-Schulz on the Gram matrix of the shorter side: kernels are several times as wide as tall, so its powers cost
    a fraction of going through the whole matrix each time. dtype: of the products, float32 or bfloat16. Powers of a
    Gram matrix multiply its rounding error by twelve an iteration, so in bfloat16 it is made anew every second one.
    Where that was not enough and the iteration grew without bound, a matrix comes back as it was, its norm 1: a small
    step that way instead of one that the kernel never recovers from. Returns that dtype.
    """
    wide = matrices.float() if matrices.shape[1] <= matrices.shape[2] else matrices.mT.float()
    norm = torch.linalg.matrix_norm(wide, keepdim=True).clamp(min=1e-7)
    start = wide = wide.to(dtype) / norm.to(dtype)
    for iterations in _ITERATIONS[dtype]:
        wide = _iterated(wide, iterations)
    bounded = torch.linalg.matrix_norm(wide, keepdim=True, dtype=torch.float32) <= _LARGEST * wide.shape[1] ** 0.5
    wide = torch.where(bounded, wide, start)  # NaN is not bounded either
    return wide if matrices.shape[1] <= matrices.shape[2] else wide.mT


def _iterated(wide: Tensor, iterations: int) -> Tensor:
    gram = wide @ wide.mT
    a, b, c = _NEWTON_SCHULZ
    product: Tensor | None = None
    for iteration in range(iterations):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        product = factor if product is None else factor @ product
        if iteration + 1 < iterations:
            gram = factor @ gram @ factor  # all are polynomials of one matrix, so they commute
    assert product is not None
    return product @ wide


class MuonAdamW:
    """Muon (Jordan et al., 2024) for the body's convolutions, each kernel a matrix of outputs by inputs; else AdamW.

    Muon's step is scaled to the size of AdamW's, so that one learning rate serves both. Why not AdamW alone, and why
    not PyTorch's Muon: benchmarks/training.md. products: dtype of the matrix products, as of `orthogonalised`.
    """

    def __init__(
        self, network: nn.Module, lr: float, weight_decay: float, products: torch.dtype = torch.float32
    ) -> None:
        kernels = {f"{name}.weight" for name, module in network.named_modules() if isinstance(module, SeqConv2d)}
        named = dict(network.named_parameters())
        self._kernels = {name: parameter for name, parameter in named.items() if name in kernels}
        self._others = {name: parameter for name, parameter in named.items() if name not in kernels}
        self._momenta = {name: torch.zeros_like(kernel) for name, kernel in self._kernels.items()}
        self._alike: dict[torch.Size, list[str]] = defaultdict(list)  # kernels of one shape take their step at once
        for name, kernel in self._kernels.items():
            self._alike[kernel.shape].append(name)
        self._weight_decay, self._products = weight_decay, products
        self._adamw = AdamW(self._others.values(), lr, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Move the parameters by their gradients."""
        for group in self._adamw.param_groups:
            group["lr"] = lr
        self._adamw.step()
        for shape, names in self._alike.items():
            kernels, momenta = ([of[name] for name in names] for of in (self._kernels, self._momenta))
            grads = [kernel.grad for kernel in kernels if kernel.grad is not None]
            assert len(grads) == len(kernels)
            torch._foreach_lerp_(momenta, grads, 1 - MOMENTUM)
            ahead = torch._foreach_lerp(grads, momenta, MOMENTUM)  # Nesterov
            rows, columns = shape[0], shape[1:].numel()
            steps = orthogonalised(torch.stack([grad.flatten(1) for grad in ahead]), self._products)
            torch._foreach_mul_(kernels, 1 - lr * self._weight_decay)
            torch._foreach_add_(
                kernels, list(steps.unflatten(2, shape[1:]).unbind()), alpha=-lr * _RMS * max(rows, columns) ** 0.5
            )

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in (*self._kernels.values(), *self._others.values()):
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """What `restore` takes: by parameter name and key."""
        tensors = {f"{name}.momentum": momentum for name, momentum in self._momenta.items()}
        for name, parameter in self._others.items():
            tensors |= {f"{name}.{key}": value for key, value in self._adamw.state[parameter].items()}
        return tensors

    @torch.no_grad()
    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from a `state()`. Raises KeyError if it is another network's."""
        for name, momentum in self._momenta.items():
            momentum.copy_(tensors[f"{name}.momentum"])
        for name, parameter in self._others.items():
            self._adamw.state[parameter] = {
                "step": tensors[f"{name}.step"].to(parameter.device),  # where the fused step looks for it
                # in the parameter's own layout: the fused step goes through memory, not through indices
                **{
                    key: torch.empty_like(parameter).copy_(tensors[f"{name}.{key}"])
                    for key in ("exp_avg", "exp_avg_sq")
                },
            }
