"""Group normalisation, what is added before it and SiLU after it: one Triton kernel there, one back.

    x_hat = (x + shift - mu) rstd        z = weight x_hat + bias        y = silu(z), or z

with mu and rstd of each group over its channels and the n positions. Backwards, with g = dL/dz,

    dx = rstd (weight g - B - A x_hat)        A, B = means over the group and all positions of weight g x_hat, weight g

One program has a few whole groups of one picture and goes through its positions twice: for sums, and for what they
give. The second time, its numbers are still in the cache, so memory is read once and written once.
"""

import math
from typing import no_type_check

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, STAGES = 64, 3  # positions that a program has in hand; how many such are on their way
MANY = 512  # positions, from which on a program has more channels (all measured on an H200)


@triton.jit
@no_type_check  # triton reads what is written here, not what wraps it
def over_group(m, same, SIZE: tl.constexpr):
    """The mean of a group's channels, for each of them."""
    return tl.sum(tl.where(same, m[None, :], 0.0), axis=1) / SIZE


@triton.jit
@no_type_check
def own(N: tl.constexpr, C: tl.constexpr, SIZE: tl.constexpr, USED: tl.constexpr, LANES: tl.constexpr):
    """A program's channels, which of them are there and which in one group, where they lie in [pictures, channels], and
    where its picture begins."""
    lane = tl.arange(0, LANES)
    pieces: tl.constexpr = (C + USED - 1) // USED
    number, c = tl.program_id(0) // pieces, tl.program_id(0) % pieces * USED + lane
    ok = (lane < USED) & (c < C)
    same = (lane[:, None] // SIZE == lane[None, :] // SIZE) & ok[None, :]
    return c, ok, same, number * C + c, number.to(tl.int64) * N * C


@triton.jit
@no_type_check
def forward_kernel(x, shift, weight, bias, y, centre, rstd, middle, eps,
                   N: tl.constexpr, C: tl.constexpr, SIZE: tl.constexpr, USED: tl.constexpr, SHIFTED: tl.constexpr,
                   SILU: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, STAGES: tl.constexpr):
    c, ok, same, at, picture = own(N, C, SIZE, USED, LANES)
    first = tl.load(x + picture + c, mask=ok, other=0.0).to(tl.float32)  # sums of differences from it keep their digits
    sums, squares = tl.zeros((ROWS, LANES), tl.float32), tl.zeros((ROWS, LANES), tl.float32)
    for start in tl.range(0, N, ROWS, num_stages=STAGES):
        row = start + tl.arange(0, ROWS)[:, None]
        inside = (row < N) & ok[None, :]
        value = tl.load(x + picture + row * C + c[None, :], mask=inside, other=0.0)
        difference = tl.where(inside, value.to(tl.float32) - first[None, :], 0.0)
        sums += difference
        squares += difference * difference
    moved = tl.sum(sums, axis=0) / N
    variance = tl.sum(squares, axis=0) / N - moved * moved
    added = tl.load(shift + at, mask=ok, other=0.0).to(tl.float32) if SHIFTED else tl.zeros((LANES,), tl.float32)
    mean = first + moved + added
    mu = over_group(mean, same, SIZE)
    deviation = tl.rsqrt(over_group(variance + (mean - mu) * (mean - mu), same, SIZE) + eps)
    tl.store(centre + at, mu - added, mask=ok)
    tl.store(rstd + at, deviation, mask=ok)
    tl.store(middle + at, (mean - mu) * deviation, mask=ok)
    scale = tl.load(weight + c, mask=ok, other=0.0).to(tl.float32) * deviation
    offset = tl.load(bias + c, mask=ok, other=0.0).to(tl.float32) + (added - mu) * scale
    for start in tl.range(0, N, ROWS, num_stages=STAGES):
        row = start + tl.arange(0, ROWS)[:, None]
        inside, place = (row < N) & ok[None, :], picture + row * C + c[None, :]
        value = tl.load(x + place, mask=inside, other=0.0)
        z = value.to(tl.float32) * scale[None, :] + offset[None, :]
        tl.store(y + place, (z * tl.sigmoid(z) if SILU else z).to(y.dtype.element_ty), mask=inside)


@triton.jit
@no_type_check
def before_activation(x, dy, place, inside, centre, rstd, weight, bias, SILU: tl.constexpr):
    """x_hat and g of some positions."""
    x_hat = (tl.load(x + place, mask=inside, other=0.0).to(tl.float32) - centre[None, :]) * rstd[None, :]
    g = tl.load(dy + place, mask=inside, other=0.0).to(tl.float32)
    if SILU:
        z = x_hat * weight[None, :] + bias[None, :]
        s = tl.sigmoid(z)
        g = g * s * (1 + z * (1 - s))
    return x_hat, g


@triton.jit
@no_type_check
def backward_kernel(x, dy, weight, bias, centre, rstd, middle, dx, dweight, dbias, dshift,
                    N: tl.constexpr, C: tl.constexpr, SIZE: tl.constexpr, USED: tl.constexpr, SHIFTED: tl.constexpr,
                    SILU: tl.constexpr, ROWS: tl.constexpr, LANES: tl.constexpr, STAGES: tl.constexpr):
    c, ok, same, at, picture = own(N, C, SIZE, USED, LANES)
    w = tl.load(weight + c, mask=ok, other=0.0).to(tl.float32)
    b = tl.load(bias + c, mask=ok, other=0.0).to(tl.float32)
    mu, deviation = tl.load(centre + at, mask=ok, other=0.0), tl.load(rstd + at, mask=ok, other=0.0)
    of_g, of_products = tl.zeros((ROWS, LANES), tl.float32), tl.zeros((ROWS, LANES), tl.float32)
    for start in tl.range(0, N, ROWS, num_stages=STAGES):
        row = start + tl.arange(0, ROWS)[:, None]
        inside, place = (row < N) & ok[None, :], picture + row * C + c[None, :]
        x_hat, g = before_activation(x, dy, place, inside, mu, deviation, w, b, SILU)
        of_g += g
        of_products += g * x_hat
    db, dw = tl.sum(of_g, axis=0), tl.sum(of_products, axis=0)
    tl.store(dbias + at, db, mask=ok)
    tl.store(dweight + at, dw, mask=ok)
    A, B = over_group(w * dw, same, SIZE) / N, over_group(w * db, same, SIZE) / N
    if SHIFTED:  # the sum of dx
        of_x_hat = tl.load(middle + at, mask=ok, other=0.0) * N
        tl.store(dshift + at, deviation * (w * db - B * N - A * of_x_hat), mask=ok)
    for start in tl.range(0, N, ROWS, num_stages=STAGES):
        row = start + tl.arange(0, ROWS)[:, None]
        inside, place = (row < N) & ok[None, :], picture + row * C + c[None, :]
        x_hat, g = before_activation(x, dy, place, inside, mu, deviation, w, b, SILU)
        d = deviation[None, :] * (w[None, :] * g - B[None, :] - A[None, :] * x_hat)
        tl.store(dx + place, d.to(dx.dtype.element_ty), mask=inside)


def programs(x: Tensor, groups: int) -> tuple[tuple[int], dict[str, int]]:
    """How many there are, and what each has."""
    b, c, h, w = x.shape
    n, size = h * w, c // groups
    lanes, warps = (64, 4) if n >= MANY else (32, 2)
    lanes = max(lanes, triton.next_power_of_2(size))
    aligned = math.lcm(size, 8)  # channels that 16 bytes and whole groups divide, if so many fit
    used = lanes // aligned * aligned or lanes // size * size
    return (b * triton.cdiv(c, used),), {
        "N": n, "C": c, "SIZE": size, "USED": used, "LANES": lanes, "ROWS": min(ROWS, triton.next_power_of_2(n)),
        "STAGES": STAGES, "num_warps": warps}


def forward(x: Tensor, shift: Tensor | None, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
            ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, and of each picture's channels mu - shift, rstd and the mean of x_hat."""
    x = x.contiguous(memory_format=torch.channels_last)
    y, of_channels = torch.empty_like(x), [x.new_empty(x.shape[:2], dtype=torch.float32) for _ in range(3)]
    grid, sizes = programs(x, groups)
    with torch.cuda.device_of(x):
        forward_kernel[grid](x, None if shift is None else shift.contiguous(), weight, bias, y, *of_channels, eps,
                             SHIFTED=shift is not None, SILU=silu, **sizes)
    return y, *of_channels


def backward(dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, centre: Tensor, rstd: Tensor, middle: Tensor,
             groups: int, silu: bool, shifted: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dx, and of each picture's channels the gradients of weight, bias and shift (unwritten if there is none)."""
    x, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy))
    dx, of_channels = torch.empty_like(x), [torch.empty_like(centre) for _ in range(3)]
    grid, sizes = programs(x, groups)
    with torch.cuda.device_of(x):
        backward_kernel[grid](x, dy, weight, bias, centre, rstd, middle, dx, *of_channels, SHIFTED=shifted, SILU=silu,
                              **sizes)
    return dx, *of_channels
