"""The training recipe of diffusers' documentation (unconditional image generation), with classes: what a user would
otherwise train CIFAR-10 with.

UNet2DModel, DDPMScheduler with linear betas, eps, AdamW at 1e-4 (betas 0.95, 0.999, weight decay 1e-6), a cosine with
500 updates of warm-up, EMAModel with its warm-up (inverse gamma 1, power 3/4, at most 0.9999), gradients clipped at 1,
bf16. Better off than there: data lie in memory, one class in ten is dropped, so that guidance works, and warm-up is a
tenth of the updates where 500 would be more.
"""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from diffusers.training_utils import EMAModel
from torch import Tensor

WIDTHS = (64, 128, 128)
WARMUP = 500
TIMED = 20


class Rival:
    """channels, size   of what it denoises: pixels or latents
    batches(step) -> (x_0, classes)
    """

    def __init__(self, channels: int, size: int, classes: int, device: torch.device, batch: int = 64):
        self.null, self.device, self.batch, self.shape = classes, device, batch, (channels, size, size)
        widths = WIDTHS if size >= 32 else WIDTHS[:2]
        attends = ["", *["Attn"] * (len(widths) - 1)]
        self.network = UNet2DModel(
            sample_size=size, in_channels=channels, out_channels=channels, block_out_channels=widths,
            layers_per_block=2, num_class_embeds=classes + 1,
            down_block_types=[f"{kind}DownBlock2D" for kind in attends],
            up_block_types=[f"{kind}UpBlock2D" for kind in reversed(attends)],
        ).to(device)
        self.noise = DDPMScheduler(1000, clip_sample=size >= 32)  # pixels end at -1 and 1, latents do not
        self.ema = EMAModel(self.network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
        self.updates = 0

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)

    def update(self, x0: Tensor, classes: Tensor, optimizer, rate) -> None:
        classes = torch.where(torch.rand(len(classes), device=self.device) < 0.1, self.null, classes)
        eps, t = torch.randn_like(x0), torch.randint(1000, (len(x0),), device=self.device)
        with self.autocast():
            y = self.network(self.noise.add_noise(x0, eps, t), t, class_labels=classes).sample
        F.mse_loss(y.float(), eps).backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        self.ema.step(self.network.parameters())
        self.updates += 1

    def train(self, seconds: float, fetch: Callable[[int], tuple[Tensor, Tensor]]) -> None:
        """As many updates as fit, found out by timing some; fetch(n) gives x_0 in about [-1, 1], and classes."""
        began = time.perf_counter()
        optimizer = torch.optim.AdamW(self.network.parameters(), 1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8)
        constant = get_cosine_schedule_with_warmup(optimizer, WARMUP, 10**9)
        for count in (5, TIMED):  # the first ones find their memory
            start = time.perf_counter()
            for _ in range(count):
                self.update(*fetch(self.batch), optimizer, constant)
        each = (time.perf_counter() - start) / TIMED
        left = int((seconds - (time.perf_counter() - began)) / each)
        cosine = get_cosine_schedule_with_warmup(optimizer, min(WARMUP, left // 10), left)
        for _ in range(left):
            self.update(*fetch(self.batch), optimizer, cosine)

    @torch.no_grad()
    def sample(self, classes: Tensor, *, steps: int = 50, scale: float = 2.0, batch: int = 64) -> Tensor:
        """x_0 for the classes, by DDIM with guidance, from the averaged weights."""
        self.ema.store(self.network.parameters())
        self.ema.copy_to(self.network.parameters())
        self.network.eval()
        sampler = DDIMScheduler.from_config(self.noise.config, timestep_spacing="trailing")
        sampler.set_timesteps(steps)
        parts = []
        for some in classes.to(self.device).split(batch):
            x, told = torch.randn(len(some), *self.shape, device=self.device), torch.cat([some, some * 0 + self.null])
            for t in sampler.timesteps:
                with self.autocast():
                    eps = self.network(torch.cat([x, x]), t, class_labels=told).sample.float()
                conditional, null = eps.chunk(2)
                x = sampler.step(null + scale * (conditional - null), t, x).prev_sample
            parts.append(x)
        self.network.train()
        self.ema.restore(self.network.parameters())
        return torch.cat(parts)
