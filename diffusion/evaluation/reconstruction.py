"""What the autoencoder loses, on 8-bit pictures: PSNR = 10 log10(255^2 / MSE), and SSIM (Wang et al. 2004)."""

import math

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from diffusion.data.on_demand import OnDemand
from diffusion.data.pictures import at_once, chunks
from diffusion.latent import LatentDiffusion
from diffusion.pixels import to_float


@torch.no_grad()
def reconstructed(model: LatentDiffusion, images: UInt8[Tensor, "n c h w"] | OnDemand) -> UInt8[Tensor, "n c h w"]:
    """Through the autoencoder and back."""
    parts = []
    for part in chunks(images, at_once(images)):
        with model.autocast():
            z = model.autoencoder.encode(to_float(part.to(model.device)))
        parts.append(model.decode(z.float()).cpu())
    return torch.cat(parts)


def quality(images: UInt8[Tensor, "n c h w"], reconstructions: UInt8[Tensor, "n c h w"]
            ) -> dict[str, Float[Tensor, " n"]]:
    """psnr and ssim of each picture; a PSNR is finite, one wrong level being the least error."""
    x, y = images.float(), reconstructions.float()
    psnr = peak_signal_noise_ratio(y, x, data_range=255.0, dim=(1, 2, 3), reduction="none")
    return {"psnr": psnr.clamp(max=10 * math.log10(255**2 * x[0].numel())),
            "ssim": structural_similarity_index_measure(y, x, data_range=255.0, reduction="none")}
