"""Training the denoiser on cached latents and caption encodings, with a moving average of its weights."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from einops import rearrange
from torch import Tensor, nn

from diffusion import checkpoint, processes, rng
from diffusion.conditioning import Conditioning
from diffusion.data.latent_cache import cached_captions, cached_latents, encodings, moments
from diffusion.data.latents import Latents, PixelSamples, Posteriors, drawn
from diffusion.denoiser import Denoiser
from diffusion.ema import EMA
from diffusion.evaluation.generation import generate_many, pictures_of
from diffusion.latent import LatentDiffusion, Sampling
from diffusion.models.identity import Identity
from diffusion.objectives.diffusion import diffusion_loss
from diffusion.time_sampling import TimeSampler, stratified
from diffusion.training.base import Training

LOG_SNR_EDGES = [-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0]


class DiffusionTraining(Training):
    """E over data, t and eps of the objective; the caption is dropped with probability caption_dropout.

    objective         (denoiser, x0, t, eps, cond, weighting) -> loss per sample; may have parameters of its own
    coupling          (x0, eps) -> eps, reordered
    ema               function of the denoiser's network that makes its moving average
    offset_noise      standard deviation of what is added to the noise, one number per picture and channel, so that the
                      mean of a picture is learnt at every noise level (Guttenberg 2023); sampling starts without
    validation        number of held-out pictures, each with its own fixed t and noise
    """

    groups = ("autoencoder", "text_encoder", "backbone", "schedule", "parameterization", "time_sampler", "weighting",
              "objective", "coupling", "data", "task")
    kind = "latent_diffusion"

    def __init__(self, *, denoiser: Denoiser, autoencoder, text_encoder, nodes: dict, data, time_sampler: TimeSampler,
                 weighting: Callable | None, objective: Callable, coupling: Callable, sampling: Sampling, cache: Path,
                 ema: Callable = EMA, caption_dropout: float = 0.1, offset_noise: float = 0.0, validation: int = 512,
                 preview_steps: int = 20, **settings):
        super().__init__(**settings)
        self.denoiser, self.nodes, self.data = denoiser, nodes, data
        self.latent_shape = autoencoder.latent_shape(data.image_size)
        model = LatentDiffusion(autoencoder, text_encoder, denoiser, self.latent_shape)
        self._frozen = (model.requires_grad_(False),)  # in a tuple: no part of this module's state
        denoiser.requires_grad_(True)
        self._clipped = list(denoiser.parameters())  # not those of an objective that learns
        self.time_sampler, self.weighting, self.sampling = time_sampler, weighting, sampling
        self.objective, self.coupling = objective, coupling
        self.cache, self.caption_dropout, self.offset_noise = cache, caption_dropout, offset_noise
        self.remembers = hasattr(time_sampler, "update")  # a time sampler that learns from losses
        self._seen: list[tuple[Tensor, Tensor]] = []  # (t, loss) of this update, for it
        self.validation, self.preview_steps = validation, preview_steps
        self.make_ema = ema
        self.ema = ema(denoiser.network)

    @property
    def model(self) -> LatentDiffusion:
        """The whole model; its denoiser is the one that learns."""
        return self._frozen[0]

    @property
    def learns(self):
        return {"ema": self.denoiser.network}

    def start_from(self, file) -> None:
        super().start_from(file)
        self.ema = self.make_ema(self.denoiser.network)

    def place(self, device, plan) -> None:
        super().place(device, plan)
        self.model.to(device)
        self.model.accelerate(plan)
        self.ema.to(device)

    def fetcher(self):
        """Fills the caches."""
        train, fast = self.data.split("train"), self.acceleration
        autoencoder, text_encoder = self.model.autoencoder, self.model.text_encoder
        with self.eager():
            if isinstance(autoencoder, Identity):
                x0 = PixelSamples(self.placed(train.images), self.batch, self.seed, self.data.mirror)
            else:
                latents = cached_latents(self.cache, autoencoder, train, self.data.fingerprint(), fast,
                                         mirror=self.data.mirror, name="train")
                x0 = Posteriors(self.placed(latents), self.batch, self.seed)
            captions = null = None
            if text_encoder is not None:
                captions = cached_captions(self.cache, text_encoder, train.captions, fast)
                tokens = self.placed(captions.tokens)
                captions = dataclasses.replace(captions, tokens=tokens, pooled=captions.pooled.to(tokens.device))
                null = encodings(text_encoder, ("",), fast).to(tokens.device, torch.float32)
        self._held_out = self._hold_out()
        return len(train), Latents(x0, captions, null, train, batch=self.batch, seed=self.seed,
                                   caption_dropout=self.caption_dropout)

    @torch.no_grad()
    def _hold_out(self) -> tuple[Tensor, Conditioning | None]:
        """x_0 and conditioning of the held-out pictures."""
        test = self.data.split("test").pick(self.validation, self.seed)
        with self.eager():
            x0 = moments(self.model.autoencoder, test.images, self.acceleration)[:, 0, 0]
            if self.model.text_encoder is None:
                return x0, None
            captions = tuple(test.captions[i] for i in test.caption_ids[:, 0].tolist())
            return x0, encodings(self.model.text_encoder, captions, self.acceleration).to(torch.float32)

    def accelerated(self):
        rows, encoder = self.rows, self.model.text_encoder

        def example():
            x = torch.randn(rows, *self.latent_shape, device=self.device)
            cond = None if encoder is None else Conditioning(
                tokens=torch.randn(rows, encoder.length, encoder.context_dim, device=self.device),
                pooled=torch.randn(rows, encoder.pooled_dim, device=self.device))
            return x.contiguous(memory_format=self.acceleration.memory_format), torch.linspace(
                0, 1000, rows, device=self.device), cond

        return self.denoiser.network, example

    def loss(self, batch: dict) -> Tensor:
        rows, step = slice(*batch["rows"]), batch["step"]
        x0 = drawn(batch, self.batch, self.seed, step, rows)
        schedule = self.denoiser.schedule
        u = stratified(rng.uniform((1,), self.seed, step, "t"), self.batch)[rows]
        t, importance = self.time_sampler(schedule, u)
        eps = self.coupling(x0, self._noise(x0, step, rows))
        cond = Conditioning(batch["tokens"], pooled=batch["pooled"]) if "tokens" in batch else None
        loss = self.objective(self.denoiser, x0, t, eps, cond, self.weighting)
        self.meter.add("loss", loss)
        self.meter.add_bins("loss_log_snr", loss, schedule.log_snr(t), LOG_SNR_EDGES)
        if self.remembers:
            self._seen.append((t, loss.detach().cpu()))
        return (importance.to(loss, non_blocking=True) * loss).mean()

    def _noise(self, x0: Tensor, step: int, rows: slice) -> Tensor:
        """eps of these rows."""
        b, (c, *space) = self.batch, x0.shape[1:]
        eps = rng.normal((b, c, *space), self.seed, step, "eps", device=x0.device, rows=rows)
        if self.offset_noise:
            offset = rng.normal((b, c, *[1] * len(space)), self.seed, step, "offset", device=x0.device, rows=rows)
            eps = eps + self.offset_noise * offset
        return eps

    def configure_gradient_clipping(self, optimizer, *args, **kwargs) -> None:
        self.clip_gradients_of(self._clipped, optimizer)

    def optimizer_step(self, *args, **kwargs) -> None:
        super().optimizer_step(*args, **kwargs)
        self.ema.update()
        if self._seen:
            seen = [pair for share in processes.all_values(self._seen) for pair in share]
            self.time_sampler.update(*(torch.cat(column) for column in zip(*seen, strict=True)))
            self._seen = []

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["ema"] = self.ema.state_dict()
        if self.remembers:
            checkpoint["time_sampler"] = self.time_sampler.state_dict()

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        super().on_load_checkpoint(checkpoint)
        self.ema.load_state_dict(checkpoint["ema"])
        if self.remembers:
            self.time_sampler.load_state_dict(checkpoint["time_sampler"])

    # What it shows, and what it leaves behind

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """The held-out denoising loss of raw and averaged weights, over fixed times and noise."""
        x0, cond = self._held_out
        t = (torch.arange(len(x0), dtype=torch.float64) + 0.5) / len(x0)
        eps = torch.randn(x0.shape, generator=rng.generator(self.seed, 0, "validation"))
        scores = {}
        for name in ("raw", "ema"):
            with self.shown(name):
                parts = [diffusion_loss(self.denoiser, x0[i].to(self.device), t[i],
                                        eps[i].to(self.device), None if cond is None else cond[i].to(self.device))
                         for i in torch.arange(len(x0)).split(128)]
            scores[f"loss_{name}"] = torch.cat(parts).mean().item()
        return scores

    @contextlib.contextmanager
    def shown(self, weights: str) -> Iterator[LatentDiffusion]:
        """The model with its raw or averaged (ema) weights and without dropout, inside `with`; afterwards all is as it
        was."""
        swapped = {"raw": contextlib.nullcontext, "ema": lambda: self.ema.swapped(self.denoiser.network)}[weights]
        with self.eager(), swapped(), evaluating(self.denoiser):
            yield self.model

    @torch.no_grad()
    def pictures(self) -> dict[str, Tensor]:
        """The example prompts from the same noise each time: raw weights above, averaged below."""
        prompts = list(self.data.example_prompts)[:16]
        preview = dataclasses.replace(self.sampling, steps=min(self.preview_steps, self.sampling.steps))
        rows = []
        for name in ("raw", "ema"):
            with self.shown(name) as model:
                rows.append(generate_many(model, pictures_of(prompts, self.seed), preview))
        return {"samples": rearrange(torch.stack(rows), "r k c h w -> c (r h) (k w)")}

    def finish(self) -> dict:
        return self.validate()

    def save(self, path: Path, facts: dict) -> None:
        encoder = self.model.text_encoder
        state = self.denoiser.network.state_dict()
        buffers = {name: value.clone() for name, value in state.items() if name not in self.ema.shadows}
        tensors = {"raw": state, "ema": {**buffers, **self.ema.shadows},
                   "autoencoder": self.model.autoencoder.state_dict()}
        if encoder is not None and getattr(encoder, "trainable", True):
            tensors["text_encoder"] = encoder.state_dict()
        facts = {**facts, "latent_shape": list(self.latent_shape), "image_size": self.data.image_size,
                 "caption_dropout": self.caption_dropout, "threshold": self.sampling.threshold,
                 "example_prompts": list(self.data.example_prompts), "ema": dict(self.ema.facts)}
        if encoder is not None:
            facts["text_encoder_hash"] = checkpoint.weights_hash(encoder)
        checkpoint.save(path, self.kind, self.nodes, facts, tensors)


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Without dropout, inside `with`."""
    module.eval()
    try:
        yield
    finally:
        module.train()
