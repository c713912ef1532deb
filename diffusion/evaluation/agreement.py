"""Do samples show what their prompts ask for? As CLIP sees it, by retrieval (R-precision, Xu et al. 2018, section 4.2):

    the share of pictures to which their own prompt lies nearer than each of 99 prompts of other content
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from diffusion.data.pictures import chunks
from diffusion.text.clip import CLIP

DISTRACTORS = 99


@torch.no_grad()
def prompt_embeddings(clip: CLIP, prompts: Sequence[str]) -> Float[Tensor, "n e"]:
    """Each distinct prompt is encoded once."""
    row = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    table = torch.cat([clip.text_embedding(clip.tokenize(part)).cpu() for part in chunks(list(row), 500)])
    return table[torch.tensor([row[prompt] for prompt in prompts])]


def retrieved(images: Float[Tensor, "n e"], prompts: Float[Tensor, "n e"], content: Int64[Tensor, " n"]
              ) -> Bool[Tensor, " n"]:
    """Whether picture i finds prompt i before those of the 99 next rows of other content (of all, where there are
    fewer). The rows are in random order; a tie counts as not found."""
    own = (images * prompts).sum(1)
    found, seen = torch.ones(len(images), dtype=torch.bool), torch.zeros(len(images), dtype=torch.int64)
    for shift in range(1, len(images)):
        counts = (content.roll(-shift) != content) & (seen < DISTRACTORS)
        found &= ~(counts & ((images * prompts.roll(-shift, 0)).sum(1) >= own))
        seen += counts
        if seen.min() == DISTRACTORS:
            break
    return found
