"""The patch discriminator: one logit per patch of a picture (Isola et al. 2017, section 3.2.2).

    4x4 convolutions: stride 2 to each width but the last, stride 1 to the last, stride 1 to the logit
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from diffusion.models.normalization import GroupNorm


class Discriminator(nn.Module):
    """widths sets the size of a patch: three see 34 x 34 pixels, four the paper's 70 x 70.

    norm_groups  groups of the normalizations between the convolutions; None leaves them out
    """

    def __init__(
        self, channels: int = 3, *, widths: Sequence[int] = (64, 128, 256), norm_groups: int | None = 32
    ):
        super().__init__()
        if len(widths) < 2:
            raise ValueError(f"discriminator.widths needs two widths or more, not {list(widths)}")
        wrong = [width for width in widths[1:] if norm_groups and width % norm_groups]
        if wrong:
            raise ValueError(
                f"discriminator.widths {wrong} are no multiples of discriminator.norm_groups={norm_groups};"
                " choose multiples, or norm_groups=null"
            )
        self.channels, self.smallest = channels, 3 * 2 ** (len(widths) - 1)
        layers: list[nn.Module] = []
        before = channels
        for level, width in enumerate(widths):
            layers.append(nn.Conv2d(before, width, 4, stride=2 if level < len(widths) - 1 else 1, padding=1))
            if level and norm_groups:  # none on the first, as in the paper
                layers.append(GroupNorm(norm_groups, width))
            layers.append(nn.LeakyReLU(0.2))
            before = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 1, 4, padding=1))
        for module in self.modules():  # section 6.2: weights from N(0, 0.02)
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 i j"]:
        """Logits: positive where a patch looks real."""
        if x.shape[1] != self.channels or min(x.shape[2:]) < self.smallest:
            raise ValueError(
                f"the discriminator expects {self.channels} channels and at least {self.smallest} pixels"
                f" a side (one less in discriminator.widths halves that), not {tuple(x.shape[1:])}"
            )
        return self.layers(x)
