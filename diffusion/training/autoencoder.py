"""Training the autoencoder: reconstruction, KL, and on request a perceptual and an adversarial term.

With a discriminator the optimization is manual, because two networks learn in turn; clipping, accumulation and the
learning-rate schedule come from the same settings, and only updates of the autoencoder are counted.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from diffusion import checkpoint, processes, rng
from diffusion.data.captioned import CaptionedImages
from diffusion.data.pictures import Pictures, at_once, chunks, share
from diffusion.evaluation.reconstruction import quality
from diffusion.models.autoencoder import KLAutoencoder
from diffusion.objectives.autoencoder import adaptive_weight, hinge_discriminator, hinge_generator
from diffusion.pixels import to_float, to_uint8
from diffusion.training.base import Training


class Passes(nn.Module):
    """What is compiled: pixels and noise to the reconstruction and the KL, in one graph."""

    def __init__(self, autoencoder: KLAutoencoder):
        super().__init__()
        self.autoencoder = autoencoder

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        posterior = self.autoencoder.posterior(x)
        return self.autoencoder.reconstruct(posterior.sample(noise)), posterior.kl()


class AutoencoderTraining(Training):
    """L = reconstruction + perceptual_weight * ||f(x) - f(x')||^2 + kl_weight * KL + adversarial_weight * lambda * adv.

    reconstruction      diffusion.objectives.autoencoder.l1 or l2
    kl_weight           times the KL summed over a picture's latents and divided by its values: all terms are means
    discriminator       learns too, and counts from step adversarial_start on (None: after a quarter of the steps; of
                        those it had at first, where a run is extended)
    statistics_images   how many training pictures the latents' mean and standard deviation are measured on
    """

    groups = ("autoencoder", "data", "task")
    kind = "autoencoder"

    def __init__(self, *, model: KLAutoencoder, node: dict, data, reconstruction: Callable, perceptual=None,
                 kl_weight: float = 1e-6, perceptual_weight: float = 0.0,
                 discriminator: nn.Module | None = None, adversarial_weight: float = 0.5,
                 adversarial_start: int | None = None,
                 statistics_images: int = 10_000, **settings):
        super().__init__(**settings)
        self.model, self.node = model, node
        self.passes = Passes(model)
        self.data, self.train_set, self.test_set = data, data.split("train"), data.split("test")
        self.reconstruction, self.kl_weight, self.perceptual_weight = reconstruction, kl_weight, perceptual_weight
        self.discriminator, self.adversarial_weight = discriminator, adversarial_weight
        self.adversarial_start = self.steps // 4 if adversarial_start is None else adversarial_start
        self.statistics_images = statistics_images
        self.automatic_optimization = discriminator is None
        self.updates = 0
        self._perceptual = [perceptual]  # in a list: frozen, no part of this module's state
        if perceptual_weight and perceptual is None:
            raise ValueError("task.perceptual_weight needs features: name a parent text_encoder in the experiment "
                             "(parents.text_encoder), as cifar_autoencoder_adversarial does")

    @property
    def learns(self):
        return {"autoencoder": self.model}

    def fetcher(self):
        return len(self.train_set), Pictures(self.train_set, self.batch, self.seed, self.data.mirror,
                                             images=self.placed(self.train_set.images))

    def accelerated(self):
        rows, size = self.rows, self.data.image_size

        def example():
            x = torch.rand(rows, self.data.channels, size, size, device=self.device) * 2 - 1
            return self._format(x), torch.randn(rows, *self.model.latent_shape(size), device=self.device)

        return self.passes, example

    def _format(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=self.acceleration.memory_format)

    def loss(self, batch: dict) -> Tensor:
        return self._reconstruct(batch)[-1].mean()

    def _reconstruct(self, batch: dict) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures, their reconstructions, and the loss of each."""
        x = self._format(to_float(batch["image"]))
        shape = self.model.latent_shape(x.shape[-1])
        noise = rng.normal((self.batch, *shape), self.seed, batch["step"], "posterior", device=x.device,
                           rows=slice(*batch["rows"]))
        with self.acceleration.autocast(x.device):
            reconstruction, kl = self.passes(x, noise)
        reconstruction = reconstruction.float()
        error, kl = self.reconstruction(x, reconstruction), kl.float().flatten(1).sum(1) / x[0].numel()
        total = error + self.kl_weight * kl
        if self.perceptual_weight:
            distance = self._perceptual_distance(x, reconstruction)
            total = total + self.perceptual_weight * distance
            self.meter.add("perceptual", distance)
        for name, value in {"loss": total, "reconstruction": error, "kl": kl}.items():
            self.meter.add(name, value)
        return x, reconstruction, total

    def _perceptual_distance(self, x: Tensor, reconstruction: Tensor) -> Tensor:
        """Mean squared difference of the image tower's hidden states."""
        tower = self._perceptual[0].to(x.device)
        with self.acceleration.autocast(x.device):
            a, b = (tower.image_states(image).float() for image in (x, reconstruction))
        return (a - b).square().flatten(1).mean(1)

    # With a discriminator

    def training_step(self, batch: dict, batch_idx: int):
        if self.discriminator is None:
            return super().training_step(batch, batch_idx)
        self.reseed(batch)
        x, reconstruction, loss = self._reconstruct(batch)
        loss = loss.mean()
        generator, critic = self.optimizers()
        schedules, last_pass = self.lr_schedulers(), (batch_idx + 1) % self.accumulate == 0
        started = self.updates_done >= self.adversarial_start
        if started:
            self.discriminator.requires_grad_(False)
            adversarial = hinge_generator(self._criticise(reconstruction)).mean()
            weight = adaptive_weight(loss, adversarial, self.model.last_layer, reduce=processes.mean)
            loss = loss + self.adversarial_weight * weight * adversarial
            self.discriminator.requires_grad_(True)
            self.meter.add("adversarial", adversarial)
            self.meter.add("adaptive_weight", weight)
        self.manual_backward(loss / self.accumulate)
        if started:
            verdicts = self._criticise(x), self._criticise(reconstruction.detach())
            critic_loss = hinge_discriminator(*verdicts).mean()
            self.manual_backward(critic_loss / self.accumulate)
            self.meter.add("discriminator", critic_loss)
        if not last_pass:
            return None
        learning = (generator, critic) if started else (generator,)
        for optimizer in learning:
            self.clip_gradients_of([p for group in optimizer.param_groups for p in group["params"]], optimizer)
        for optimizer in learning:
            optimizer.step()
        for optimizer, schedule in zip((generator, critic), schedules, strict=True):
            optimizer.zero_grad()
            schedule.step()
        self.updates += 1
        return None

    def _criticise(self, pixels: Tensor) -> Tensor:
        with self.acceleration.autocast(pixels.device):
            return self.discriminator(pixels).float()

    def configure_optimizers(self):
        if self.discriminator is None:
            return super().configure_optimizers()
        optimizers = [self.optimizer_of(m.parameters()) for m in (self.model, self.discriminator)]
        schedules = [torch.optim.lr_scheduler.LambdaLR(o, lambda step: self.lr(step, self.steps)) for o in optimizers]
        return optimizers, schedules

    @property
    def updates_done(self) -> int:
        return self.global_step if self.discriminator is None else self.updates

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["adversarial_start"] = self.adversarial_start

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        super().on_load_checkpoint(checkpoint)
        self.updates, self.adversarial_start = checkpoint["updates"], checkpoint["adversarial_start"]

    # What it shows, and what it leaves behind

    @torch.no_grad()
    def validate(self, images: int = 1000) -> dict[str, float]:
        """PSNR (mean over pictures) and SSIM of reconstructions of the posterior's mean, on 8-bit pictures."""
        quality = self.quality(self.test_set, images)
        return {name: quality[name] for name in ("psnr", "ssim")}

    def quality(self, split: CaptionedImages, images: int) -> dict[str, float]:
        size = at_once(split.images)
        for name in ("psnr", "ssim"):  # a share may be empty
            self.meter_validation.add(name, torch.empty(0, device=self.device))
        for index in chunks(share(min(images, len(split)), self.rank, self.world), size):
            x = split.images[index.start : index.stop].to(self.device)
            y = self._round_trip(x)
            for name, values in quality(x, y).items():
                self.meter_validation.add(name, values)
        return self.meter_validation.take()

    def _round_trip(self, images: Tensor) -> Tensor:
        with self.eager(), self.acceleration.autocast(self.device):
            return torch.cat([to_uint8(self.model.decode(self.model.encode(self._format(to_float(some)))))
                              for some in chunks(images, at_once(images))])

    @torch.no_grad()
    def pictures(self) -> dict[str, Tensor]:
        columns = min(16, len(self.test_set))
        x = self.test_set.images[: min(32, len(self.test_set)) // columns * columns].to(self.device)
        pairs = torch.stack([x, self._round_trip(x)], 1).cpu()
        return {"reconstructions": rearrange(pairs, "(r k) two c h w -> c (r two h) (k w)", k=columns)}

    @torch.no_grad()
    def finish(self) -> dict:
        """Measures the statistics that whiten the latents, then the quality on the whole test split."""
        total = square = count = 0
        order = torch.randperm(len(self.train_set), generator=rng.generator(self.seed, 0, "statistics"))
        for index in chunks(order[: self.statistics_images], at_once(self.train_set.images)):
            x = to_float(self.train_set.images[index].to(self.device))
            with self.eager(), self.acceleration.autocast(self.device):
                posterior = self.model.posterior(self._format(x))
            z, variance = posterior.mean.cpu().double(), posterior.log_var.cpu().double().exp()
            total, square = total + z.sum((0, 2, 3)), square + (z.square() + variance).sum((0, 2, 3))
            count += z[:, 0].numel()
        mean = total / count
        std = (square / count - mean.square()).clamp(min=1e-12).sqrt()
        self.model.set_statistics(mean.float(), std.float())
        return {**self.quality(self.test_set, len(self.test_set)), "latent_mean": mean.tolist(),
                "latent_std": std.tolist(), "latent_shape": list(self.model.latent_shape(self.data.image_size))}

    def save(self, path: Path, facts: dict) -> None:
        checkpoint.save(path, self.kind, {"autoencoder": self.node}, facts, {"autoencoder": self.model.state_dict()})
