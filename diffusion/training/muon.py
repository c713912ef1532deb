"""Muon (Jordan et al. 2024): the momentum of a weight matrix, orthogonalized, so that none of its directions is slow.

    M <- mu M + (1 - mu) G        O = NewtonSchulz(mu M + (1 - mu) G), near U V^T of U S V^T
    W <- (1 - lr wd) W - lr 0.2 sqrt(max(rows, columns)) O

The factor makes an update as large as AdamW's (Liu et al. 2025, Section 2.2), so its learning rate and weight decay
serve both. A convolution's weight is the matrix of its outputs by all that they read. AdamW moves what is no matrix,
and what has a side under 16, as a U-Net's last convolution.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.adamw import adamw

QUINTIC = (3.4445, -4.7750, 2.0315)  # a x + b x^3 + c x^5: steep at 0, so that small singular values grow fast
NARROW = 16


def orthogonalized(matrices: Float[Tensor, "k m n"], dtype: torch.dtype = torch.float32, turns: int = 5
                   ) -> Float[Tensor, "k m n"]:
    """Each matrix with its singular values brought near 1: to between 0.68 and 1.21 where they are 1/500 of its norm
    or more. The iteration, computed in `dtype`, forgives the rounding of bfloat16."""
    a, b, c = QUINTIC
    x = matrices.to(dtype)
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)
    if tall := x.shape[1] > x.shape[2]:
        x = x.mT
    for _ in range(turns):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def is_wide(parameter: Tensor) -> bool:
    """Whether Muon moves it."""
    return parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) >= NARROW


class Muon(torch.optim.Optimizer):
    """betas, eps   AdamW's
    momentum     mu of the matrices
    fused        AdamW's kernel; with it, an update whose `found_inf` is set moves nothing, as that of torch's own

    It orthogonalizes in `compute_dtype`, which a training sets to its plan's (bfloat16 where that is fast).
    """

    compute_dtype = torch.float32

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 1e-3, betas: Sequence[float] = (0.9, 0.99),
                 momentum: float = 0.95, weight_decay: float = 0.01, eps: float = 1e-8, fused: bool = True):
        if not 0 <= momentum < 1:
            raise ValueError(f"optimizer.momentum: at least 0 and below 1, got {momentum}")
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "momentum": momentum, "weight_decay": weight_decay,
                                  "eps": eps, "fused": fused})

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        found_inf = getattr(self, "found_inf", None)
        for group in self.param_groups:
            learning = [p for p in group["params"] if p.grad is not None]
            self._orthogonal([p for p in learning if is_wide(p)], group, found_inf)
            self._adamw([p for p in learning if not is_wide(p)], group, found_inf)
        return loss

    def _orthogonal(self, weights: list[nn.Parameter], group: dict, found_inf: Tensor | None) -> None:
        by_shape: dict[tuple[int, int], list[nn.Parameter]] = defaultdict(list)
        for p in weights:
            by_shape[p.shape[0], p[0].numel()].append(p)
        mu, lr = group["momentum"], group["lr"]
        for (rows, columns), alike in by_shape.items():
            for p in alike:
                if not self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(p)
            momenta, gradients = [self.state[p]["momentum"] for p in alike], [p.grad for p in alike]
            if found_inf is not None:
                gradients = [torch.where(found_inf > 0, m, g) for m, g in zip(momenta, gradients, strict=True)]
            torch._foreach_lerp_(momenta, gradients, 1 - mu)
            looking_ahead = torch._foreach_lerp(gradients, momenta, mu)  # Nesterov's
            moves = orthogonalized(torch.stack([m.reshape(rows, columns) for m in looking_ahead]),
                                   self.compute_dtype)
            size, decay = 0.2 * max(rows, columns) ** 0.5, lr * group["weight_decay"]
            if found_inf is not None:
                moves, decay = moves * (1 - found_inf), decay * (1 - found_inf)
            torch._foreach_mul_(alike, 1 - decay)
            torch._foreach_add_(alike, [o.reshape(p.shape) for o, p in zip(moves, alike, strict=True)],
                                alpha=-lr * size)

    def _adamw(self, weights: list[nn.Parameter], group: dict, found_inf: Tensor | None) -> None:
        if not weights:
            return
        for p in weights:
            if not self.state[p]:
                self.state[p].update(step=torch.zeros((), device=p.device if group["fused"] else None),
                                     exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        beta1, beta2 = group["betas"]
        first, second, steps = ([self.state[p][name] for p in weights] for name in ("exp_avg", "exp_avg_sq", "step"))
        adamw(weights, [p.grad for p in weights], first, second, [], steps, fused=group["fused"], found_inf=found_inf,
              amsgrad=False, beta1=beta1, beta2=beta2, lr=group["lr"], weight_decay=group["weight_decay"],
              eps=group["eps"], maximize=False)
