"""Every draw has an address: a generator is a function of (seed, step, purpose), never a state that runs on.

A draw is made for the whole batch and a slice takes its rows, so ranks and accumulation only split it:
`normal((8, 3), 0, 5, "eps", rows=slice(4, 8))` is the second half of `normal((8, 3), 0, 5, "eps")`, bitwise.
In sampling each picture has a generator of its own (`SampleNoise`), so that it does not know its neighbours.

The address is hashed to 63 bits. CUDA's engine uses them all, the CPU's (mt19937, as torch seeds it) the low
32: among 50 000 pictures there is one chance in four that some two share their noise, which is harmless.
"""

import hashlib
import json
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor


def generator(seed: int, step: int, purpose: str, device: str | torch.device = "cpu") -> torch.Generator:
    """Equal in every process, version of Python and order of calls."""
    return _seeded([seed, step, purpose], device)


def reseed(seed: int, step: int, purpose: str, device: torch.device) -> None:
    """Seed the global generators of the CPU and of the device, for what takes none of its own (dropout). As
    `torch.manual_seed` would, but without its 3 ms: it formats a stack for each backend that is not there."""
    number = _hashed([seed, step, purpose])
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":
        torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index
                                      ].manual_seed(number)


def normal(
    shape: Sequence[int],
    seed: int,
    step: int,
    purpose: str,
    device: str | torch.device = "cpu",
    rows=slice(None),
) -> Float[Tensor, "..."]:
    """N(0, 1), drawn for the whole shape; `rows` picks the part of the first axis that is wanted here."""
    return torch.randn(tuple(shape), generator=generator(seed, step, purpose, device), device=device)[rows]


def uniform(
    shape: Sequence[int],
    seed: int,
    step: int,
    purpose: str,
    device: str | torch.device = "cpu",
    rows=slice(None),
) -> Float[Tensor, "..."]:
    """U[0, 1), drawn for the whole shape."""
    return torch.rand(tuple(shape), generator=generator(seed, step, purpose, device), device=device)[rows]


def integers(
    high: int,
    shape: Sequence[int],
    seed: int,
    step: int,
    purpose: str,
    device: str | torch.device = "cpu",
    rows=slice(None),
) -> Int[Tensor, "..."]:
    """Uniform over 0 .. high - 1, drawn for the whole shape."""
    return torch.randint(high, tuple(shape), generator=generator(seed, step, purpose, device), device=device)[
        rows
    ]


class SampleNoise:
    """noise(x) -> z ~ N(0, 1) like x, whose row k comes from the k-th picture's own generator on the CPU.

    A picture is (prompt, seed, i): the i-th picture of that prompt and seed, which count without text, too.
    Each call draws on. The start is a draw too: `SampleNoise(pictures, "start")(torch.empty(n, c, h, w))`.
    """

    def __init__(self, pictures: Sequence[tuple[str | None, int, int]], purpose: str = "noise"):
        self.generators = [_seeded([seed, purpose, prompt, i]) for prompt, seed, i in pictures]

    def __call__(self, x: Float[Tensor, "b *d"]) -> Float[Tensor, "b *d"]:
        if len(x) != len(self.generators):
            raise ValueError(f"noise for {len(self.generators)} pictures was asked for a batch of {len(x)}")
        z = torch.stack([torch.randn(x.shape[1:], generator=own) for own in self.generators])
        return z.to(x)


def _seeded(address: list, device: str | torch.device = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(_hashed(address))


def _hashed(address: list) -> int:
    # JSON escapes what is not ASCII: the same bytes for a text in every version, lone surrogates included
    digest = hashlib.blake2b(json.dumps(address).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
