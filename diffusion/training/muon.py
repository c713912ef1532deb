"""Muon (Jordan et al. 2024): the momentum of a weight matrix, orthogonalized, so that none of its directions is slow.

    M <- mu M + (1 - mu) G        O = NewtonSchulz(mu M + (1 - mu) G), near U V^T of U S V^T
    W <- (1 - lr wd) W - lr 0.2 sqrt(max(rows, columns)) O

The factor makes an update as large as AdamW's (Liu et al. 2025, Section 2.2), so its learning rate and weight decay
serve both. A convolution's weight is the matrix of its outputs by all that they read. AdamW moves what is no matrix,
and what has a side under 16, as a U-Net's last convolution.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.adamw import adamw

from diffusion.training.replayed import Replayed

QUINTIC = (3.4445, -4.7750, 2.0315)  # a x + b x^3 + c x^5: steep at 0, so that small singular values grow fast
NARROW = 16
LONG = 4  # columns to a row, from which a CPU is faster by way of the rows' products alone


def orthogonalized(matrices: Float[Tensor, "k m n"], dtype: torch.dtype = torch.float32, turns: int = 5
                   ) -> Float[Tensor, "k m n"]:
    """Each matrix with its singular values brought near 1: to between 0.68 and 1.21 where they are 1/500 of its norm
    or more. The iteration, computed in `dtype`, forgives the rounding of bfloat16. On a CPU long matrices take its
    shorter form, in float32."""
    a, b, c = QUINTIC
    rows, columns = matrices.shape[1:]
    if rows > columns:
        return orthogonalized(matrices.mT, dtype, turns).mT
    if matrices.is_cpu and columns >= LONG * rows:
        square = matrices @ matrices.mT
        scale = 1 / (square.diagonal(dim1=1, dim2=2).sum(1).sqrt() + 1e-7)[:, None, None]
        return scale * all_turns(scale.square() * square, turns) @ matrices
    x = matrices.to(dtype)
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    for _ in range(turns):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x.to(matrices.dtype)


def all_turns(square: Float[Tensor, "k m m"], turns: int) -> Float[Tensor, "k m m"]:
    """F with X_turns = F X_0, from X_0 X_0^T alone (Zhang, Amsel, Chen & Dao 2026, Gram Newton-Schulz): a turn
    multiplies X by a polynomial P of X X^T, and so makes P X X^T P of it. An eigenvalue that rounding made negative
    grows twelvefold a turn; float32's, near -1e-7, stay small for five, those of 16 bits would not."""
    a, b, c = QUINTIC
    factor = None
    for turn in range(turns):
        polynomial = torch.baddbmm(square, square, square, beta=b, alpha=c)
        polynomial.diagonal(dim1=1, dim2=2).add_(a)
        factor = polynomial if factor is None else polynomial @ factor
        if turn < turns - 1:
            square = polynomial @ square @ polynomial
    return factor


def is_wide(parameter: Tensor) -> bool:
    """Whether Muon moves it."""
    return parameter.ndim >= 2 and min(parameter.shape[0], parameter.numel() // parameter.shape[0]) >= NARROW


def as_matrix(tensor: Tensor, parameter: Tensor) -> Float[Tensor, "m n"]:
    """A view of a parameter, or of what is laid out as it is, its columns in the order in which they lie in memory: the
    order changes no singular value and no direction."""
    channels_last = parameter.ndim == 4 and parameter.is_contiguous(memory_format=torch.channels_last)
    return (tensor.permute(0, 2, 3, 1) if channels_last else tensor).view(len(tensor), -1)


def update(weights: Sequence[Tensor], momenta: Sequence[Tensor], gradients: Sequence[Tensor], mu: float, decay: float,
           dtype: torch.dtype, rate: Float[Tensor, ""], found_inf: Float[Tensor, ""] | None) -> None:
    """In place, those of one shape at once. Nothing moves where `found_inf` is 1, whatever the gradients are."""
    kept = None if found_inf is None else 1 - found_inf
    rate = rate if kept is None else kept * rate
    by_shape: dict[tuple[int, ...], list[tuple[Tensor, ...]]] = defaultdict(list)
    for p, m, g in zip(weights, momenta, gradients, strict=True):
        g = g if g.stride() == p.stride() else torch.empty_like(p).copy_(g)
        matrices = tuple(as_matrix(x, p) for x in (p, m, g))
        by_shape[matrices[0].shape].append(matrices)
    for shape, alike in by_shape.items():
        matrices, held, arrived = zip(*alike, strict=True)
        before, gradient = torch.stack(held), torch.stack(arrived)
        if kept is not None:
            gradient = torch.where(kept > 0, gradient, before)
        momentum = before.lerp(gradient, 1 - mu)
        torch._foreach_copy_(held, momentum.unbind())
        moves = orthogonalized(gradient.lerp(momentum, mu), dtype)  # Nesterov's
        torch._foreach_mul_(matrices, 1 - rate * decay)
        torch._foreach_add_(matrices, (moves.contiguous() * (-rate * 0.2 * max(shape) ** 0.5)).unbind())


class Muon(torch.optim.Optimizer):
    """Orthogonalized momentum for matrices, AdamW for the rest.

    betas, eps   AdamW's
    momentum     mu of the matrices
    fused        AdamW's kernel; with it, an update whose `found_inf` is set moves nothing, as that of torch's own

    It orthogonalizes in `compute_dtype`, which a training sets to its plan's (bfloat16 where that is fast). Matrices
    lie contiguously or in channels_last. On a CUDA device its thousand small kernels are recorded, where it is `fused`
    and gradients stay where they are in memory (see Gathered), and from the third update on launched as one.
    """

    compute_dtype = torch.float32

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 1e-3, betas: Sequence[float] = (0.9, 0.99),
                 momentum: float = 0.95, weight_decay: float = 0.01, eps: float = 1e-8, fused: bool = True):
        if not 0 <= momentum < 1:
            raise ValueError(f"optimizer.momentum: at least 0 and below 1, got {momentum}")
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "momentum": momentum, "weight_decay": weight_decay,
                                  "eps": eps, "fused": fused})
        self.recorded: dict[nn.Parameter, tuple[tuple, Replayed]] = {}  # by the first parameter of a group

    def __getstate__(self):
        return {**super().__getstate__(), "compute_dtype": self.compute_dtype}

    def __setstate__(self, state: dict) -> None:
        super().__setstate__(state)
        self.recorded = {}  # what a state that was loaded or copied replaces

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf = getattr(self, "found_inf", None)
        for group in self.param_groups:
            self._move([p for p in group["params"] if p.grad is not None], group, found_inf)
        return loss

    def _move(self, learning: list[nn.Parameter], group: dict, found_inf: Tensor | None) -> None:
        if not learning:
            return
        first, states = learning[0], [self._state(p, group["fused"]) for p in learning]
        wide, narrow = ([(p, p.grad, *(state[name] for name in names))
                         for p, state in zip(learning, states, strict=True) if names[0] in state]
                        for names in (["momentum"], ["step", "exp_avg", "exp_avg_sq"]))
        move = partial(moved, wide, narrow, self.compute_dtype, dict(group))
        if not (first.is_cuda and group["fused"]):
            move(group["lr"], found_inf)
            return
        constants = self.compute_dtype, *(value for name, value in group.items() if name not in ("params", "lr"))
        written = constants, [x.data_ptr() for worked_on in (*wide, *narrow) for x in worked_on]
        if first not in self.recorded or self.recorded[first][0] != written:
            self.recorded[first] = written, Replayed(move)
        rate = torch.full((), group["lr"], device=first.device)
        self.recorded[first][1](rate, torch.zeros_like(rate) if found_inf is None else found_inf)

    def _state(self, p: nn.Parameter, fused: bool) -> dict[str, Tensor]:
        state = self.state[p]
        if not state and is_wide(p):
            state["momentum"] = torch.zeros_like(p)
        elif not state:
            state.update(step=torch.zeros((), device=p.device if fused else None), exp_avg=torch.zeros_like(p),
                         exp_avg_sq=torch.zeros_like(p))
        return state


def moved(wide: Sequence[tuple[Tensor, ...]], narrow: Sequence[tuple[Tensor, ...]], dtype: torch.dtype, group: dict,
          rate: float | Float[Tensor, ""], found_inf: Float[Tensor, ""] | None) -> None:
    """An update, in place: of each wide (weight, gradient, momentum) by Muon, of each narrow (weight, gradient, step,
    first moment, second moment) by AdamW."""
    if wide:
        weights, gradients, momenta = zip(*wide, strict=True)
        update(weights, momenta, gradients, group["momentum"], group["weight_decay"], dtype,
               rate if torch.is_tensor(rate) else torch.full((), rate, device=weights[0].device), found_inf)
    if narrow:
        weights, gradients, steps, first, second = map(list, zip(*narrow, strict=True))
        beta1, beta2 = group["betas"]
        adamw(weights, gradients, first, second, [], steps, fused=group["fused"], found_inf=found_inf, amsgrad=False,
              beta1=beta1, beta2=beta2, lr=rate, weight_decay=group["weight_decay"], eps=group["eps"], maximize=False)
