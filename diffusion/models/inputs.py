"""What every backbone is given must be what it was built for; where it is not, the message is the same for all."""

from jaxtyping import Float
from torch import Tensor, nn

from diffusion.conditioning import Conditioning


def check_inputs(
    network: nn.Module, x: Float[Tensor, "b c h w"], cond: Conditioning, *, multiple: int, because: str
) -> None:
    """Raise ValueError, in the words of the config.

    network    has channels, context_dim and pooled_dim; None ignores that part of cond
    x          x_t and cond.image together
    multiple   divides height and width, because of what the config says there
    """
    channels, height, width = x.shape[1:]
    if channels != network.channels:
        raise ValueError(
            f"the backbone was given {channels} channels (x_t and conditioning.image together),"
            f" but backbone.channels is {network.channels}"
        )
    if height % multiple or width % multiple:
        raise ValueError(
            f"the backbone was given {height} x {width} positions; both must be multiples of {multiple} ({because})"
        )
    told = (("tokens", "context_dim", cond.tokens), ("pooled", "pooled_dim", cond.pooled))
    for name, key, part in told:
        expected = getattr(network, key)
        if expected is not None and (part is None or part.shape[-1] != expected):
            given = "nothing" if part is None else f"{part.shape[-1]} channels"
            raise ValueError(
                f"conditioning.{name} has {given}, but backbone.{key} asks for {expected} channels"
                " (those of the text encoder)"
            )
