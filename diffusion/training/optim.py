"""Learning-rate factors over a run's steps: functions (step, steps) -> factor in [0, 1]."""

import math


def constant(step: int, steps: int, *, warmup: int = 0) -> float:
    """Linear warm-up over `warmup` steps, then 1."""
    return min((step + 1) / max(warmup, 1), 1.0)


def cosine(step: int, steps: int, *, warmup: int = 0, final: float = 0.0) -> float:
    """Linear warm-up, then half a cosine down to `final` (Loshchilov & Hutter 2017, Eq. 5, one cycle)."""
    done = max(step - warmup, 0) / max(steps - warmup, 1)
    return constant(step, steps, warmup=warmup) * (final + (1 - final) * (1 + math.cos(math.pi * min(done, 1))) / 2)


def linear(step: int, steps: int, *, warmup: int = 0, final: float = 0.0) -> float:
    """Linear warm-up, then a straight line down to `final`."""
    done = max(step - warmup, 0) / max(steps - warmup, 1)
    return constant(step, steps, warmup=warmup) * (1 - (1 - final) * min(done, 1))
