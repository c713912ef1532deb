"""The contract of every backbone: U-Net, transformer and toy MLP alike map (x, label, cond) to y like x, or to twice
the channels where the variance is learned."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from diffusion.conditioning import Conditioning


@runtime_checkable
class Network(Protocol):
    """`label` stands for t (`Parameterization.label`); x comes scaled (`Parameterization.input_scale`).

    A network whose course does not depend on the values it is given, and whose `Attention` reads cond.tokens as they
    are, may say so, `recordable = True`: it is then recorded and compiled for sampling (`fast_sampling`).
    """

    def __call__(
        self, x: Float[Tensor, "b *d"], label: Float[Tensor, " b"], cond: Conditioning | None
    ) -> Float[Tensor, "b ..."]: ...
