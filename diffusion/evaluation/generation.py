"""Many pictures, in batches, shared out over processes. Picture i depends on (model, prompt, seed, i) only."""

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import UInt8
from torch import Tensor

from diffusion import processes
from diffusion.data.pictures import chunks, share
from diffusion.fast_sampling import WORTH_TRYING, fast
from diffusion.latent import LatentDiffusion, Sampling
from diffusion.rng import SampleNoise

Picture = tuple[str, int, int]  # prompt, seed, i: the i-th picture of that prompt and seed


def pictures_of(prompts: Sequence[str], seed: int, n: int = 1) -> list[Picture]:
    """n pictures of each prompt; a prompt that is listed again gets further ones."""
    count: dict[str, int] = {}
    out = []
    for prompt in prompts:
        for _ in range(n):
            out.append((prompt, seed, count.get(prompt, 0)))
            count[prompt] = count.get(prompt, 0) + 1
    return out


def of_this_process(n: int) -> int:
    """How many of n pictures this process draws."""
    return len(share(n, processes.rank(), processes.world()))


def drawn(model: LatentDiffusion, pictures: Sequence[Picture], sampling: Sampling, *, batch: int, negative: str
          ) -> Iterator[tuple[Sequence[Picture], UInt8[Tensor, "n c h w"]]]:
    """Batch by batch, the pictures that were asked for and what they show, on the CPU."""
    with fast(model.denoiser) as network:
        for number, some in enumerate(chunks(pictures, batch)):
            began = time.perf_counter()
            yield some, model.generate([prompt for prompt, _, _ in some], SampleNoise(some), sampling, negative).cpu()
            ahead = len(pictures) / batch - number - 1
            if number == 1 and ahead * (time.perf_counter() - began) > WORTH_TRYING:  # the first batch has more to do
                network.try_compiled()


def generate_many(model: LatentDiffusion, pictures: Sequence[Picture], sampling: Sampling, *, batch: int = 64,
                  negative: str = "", progress: Callable[[int], None] = lambda done: None
                  ) -> UInt8[Tensor, "n c h w"]:
    """All pictures, on every process. progress(n) is called after each batch with its size."""
    mine, parts = share(len(pictures), processes.rank(), processes.world()), []
    for some, shown in drawn(model, pictures[mine.start : mine.stop], sampling, batch=batch, negative=negative):
        parts.append(shown)
        progress(len(some))
    return torch.cat([part for of_process in processes.all_values(parts) for part in of_process])
