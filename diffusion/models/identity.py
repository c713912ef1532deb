"""No autoencoder: z = x, so that diffusion in pixels takes the same path as diffusion in latents."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diffusion.models.gaussian import Gaussian


class Identity(nn.Module):
    """The interface of KLAutoencoder with shift 0 and scale 1."""

    sigma_data = 0.5  # of pixels in [-1, 1] (Karras et al. 2022, table 1)
    factor = 1
    trainable = False

    def __init__(self, image_channels: int = 3):
        super().__init__()
        self.image_channels = self.latent_channels = image_channels
        self.register_buffer("shift", torch.zeros(image_channels, 1, 1))
        self.register_buffer("scale", torch.ones(image_channels, 1, 1))

    def latent_shape(self, image_size: int) -> tuple[int, int, int]:
        return self.latent_channels, image_size, image_size

    def posterior(self, x: Float[Tensor, "b c h w"]) -> Gaussian:
        """A point mass at x: whatever the noise, the sample is x."""
        return Gaussian(x, torch.full_like(x, -torch.inf))

    def reconstruct(self, raw: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return raw

    def whiten(self, raw: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return raw

    def encode(
        self, x: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        return x

    def decode(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return z

    def set_statistics(self, shift: Tensor, scale: Tensor) -> None:
        """Refused: pixels keep their scale, which sigma_data tells."""
        raise ValueError("pixels are not whitened: autoencoder=identity has no latent statistics to set")
