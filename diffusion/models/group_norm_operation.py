"""The kernels of group_norm_kernels as one operation of torch, which its compiler and its autograd know."""

import importlib.util

import torch
from jaxtyping import Float
from torch import Tensor

TRITON = importlib.util.find_spec("triton") is not None
MOST, WIDEST = 64 * 64, 64  # positions that one program goes through; channels of a group


def fits_kernel(x: Float[Tensor, "b c h w"], groups: int) -> bool:
    return (x.is_cuda and TRITON and x.is_contiguous(memory_format=torch.channels_last)
            and x.dtype in (torch.float32, torch.bfloat16, torch.float16)
            and x.shape[2] * x.shape[3] <= MOST and x.shape[1] // groups <= WIDEST)


@torch.library.custom_op("diffusion::group_norm", mutates_args=())
def in_one_kernel(x: Tensor, shift: Tensor | None, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
                  ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """group_norm_kernels.forward."""
    from diffusion.models.group_norm_kernels import forward  # triton: only where there is a CUDA device

    return forward(x, shift, weight, bias, groups, eps, silu)


@torch.library.custom_op("diffusion::group_norm_backward", mutates_args=())
def back_in_one_kernel(
    dy: Tensor, x: Tensor, weight: Tensor, bias: Tensor, centre: Tensor, rstd: Tensor, middle: Tensor,
    groups: int, silu: bool, shifted: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """group_norm_kernels.backward."""
    from diffusion.models.group_norm_kernels import backward

    return backward(dy, x, weight, bias, centre, rstd, middle, groups, silu, shifted)


@in_one_kernel.register_fake
def _(x, shift, weight, bias, groups, eps, silu):
    of_channels = (x.new_empty(x.shape[:2], dtype=torch.float32) for _ in range(3))
    return torch.empty_like(x, memory_format=torch.channels_last), *of_channels


@back_in_one_kernel.register_fake
def _(dy, x, weight, bias, centre, rstd, middle, groups, silu, shifted):
    return torch.empty_like(x, memory_format=torch.channels_last), *(torch.empty_like(centre) for _ in range(3))


def _keep(ctx, inputs: tuple, output: tuple[Tensor, ...]) -> None:
    x, shift, weight, bias, ctx.groups, _, ctx.silu = inputs
    ctx.shifted = shift is not None
    ctx.save_for_backward(x, weight, bias, *output[1:])


def _back(ctx, dy: Tensor, *_) -> tuple[Tensor | None, ...]:
    dx, dweight, dbias, dshift = back_in_one_kernel(dy, *ctx.saved_tensors, ctx.groups, ctx.silu, ctx.shifted)
    return dx, dshift if ctx.shifted else None, dweight.sum(0), dbias.sum(0), None, None, None


in_one_kernel.register_autograd(_back, setup_context=_keep)
