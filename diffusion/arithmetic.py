"""How much arithmetic a training is, counted before it begins: for the plan's estimates, and for how parents share a
short budget.

One picture goes through what is trained on the meta device, where tensors have shapes but no numbers.
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffusion.assembly import autoencoder_node, clip_node, describe, judge_node, kind_of, text_encoder
from diffusion.conditioning import Conditioning
from diffusion.config import build
from diffusion.training.autoencoder import Passes
from diffusion.training.contrastive import Towers


def flop_per_step(cfg, data) -> int:
    """Of an update: for each picture of the batch a pass forwards, and one backwards, which is twice as much."""
    try:
        flop = flop_per_picture(cfg, data, "meta")
    except Exception:  # a network of one's own that looks at its numbers
        flop = flop_per_picture(cfg, data, "cpu")
    return 3 * cfg.batch * flop


def flop_per_picture(cfg, data, device: str) -> int:
    with torch.device(device), torch.no_grad(), FlopCounterMode(display=False) as counter:
        PASSES[kind_of(cfg)](cfg, data)
    return counter.get_total_flops()


def picture(data) -> Tensor:
    return torch.zeros(1, data.channels, data.image_size, data.image_size)


def autoencoder(cfg, data) -> None:
    """A discriminator judges the reconstruction twice and the picture once; a perceptual distance is left out."""
    model = build(autoencoder_node(cfg, data), cfg.trusted)
    Passes(model)(picture(data), torch.zeros(1, *model.latent_shape(data.image_size)))
    discriminator = build(cfg.task.get("discriminator"), cfg.trusted)
    for _ in range(0 if discriminator is None else 3):
        discriminator(picture(data))


def contrastive(cfg, data) -> None:
    model = build({**clip_node(cfg, data), "tokenizer": None}, cfg.trusted)
    Towers(model)(picture(data), torch.zeros(1, model.length, dtype=torch.int64))


def judge(cfg, data) -> None:
    build(judge_node(cfg, data), cfg.trusted)(picture(data))


def diffusion(cfg, data) -> None:
    with torch.device("cpu"):  # where a pretrained one is loaded
        encoder = text_encoder(cfg, {}, data.image_size)
        parts = describe(cfg, data, {}, encoder)
        shape = build(parts["autoencoder"], cfg.trusted).latent_shape(data.image_size)
    cond = None if encoder is None else Conditioning(
        torch.zeros(1, encoder.length, encoder.context_dim), pooled=torch.zeros(1, encoder.pooled_dim))
    build(parts["network"], cfg.trusted)(torch.zeros(1, *shape), torch.zeros(1), cond)


PASSES = {"autoencoder": autoencoder, "clip": contrastive, "judge": judge, "latent_diffusion": diffusion}
