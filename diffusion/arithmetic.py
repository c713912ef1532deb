"""How much arithmetic a training is, counted before it begins: for the plan's estimates, and for how parents share a
short budget.

One picture goes through what is trained on the meta device, where tensors have shapes but no numbers.
"""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from diffusion.assembly import autoencoder_node, clip_node, describe, judge_node, kind_of, text_encoder
from diffusion.conditioning import Conditioning
from diffusion.config import build
from diffusion.training.autoencoder import Passes
from diffusion.training.contrastive import Towers
from diffusion.training.muon import Muon, as_matrix, is_wide, orthogonalized


def flop_per_step(cfg, data, processes: int = 1) -> float:
    """Of an update on each process: for its pictures of the batch a pass forwards, and one backwards, which is twice as
    much; and Muon's products."""
    try:
        picture, moves = counted(cfg, data, "meta")
    except Exception:  # a network of one's own that looks at its numbers
        picture, moves = counted(cfg, data, "cpu")
    return 3 * cfg.batch * picture / processes + moves


@torch.no_grad()
def counted(cfg, data, device: str) -> tuple[int, int]:
    """Operations of one picture forwards, and of the optimizer."""
    with torch.device(device), FlopCounterMode(display=False) as forwards:
        trained = PASSES[kind_of(cfg)](cfg, data)
    with FlopCounterMode(display=False) as moves:
        if getattr(build(cfg.optimizer, cfg.trusted), "func", None) is Muon:
            for parameter in filter(is_wide, trained.parameters()):
                orthogonalized(as_matrix(parameter, parameter)[None])
    return forwards.get_total_flops(), moves.get_total_flops()


# One picture through what each kind of stage trains


def picture(data) -> Tensor:
    return torch.zeros(1, data.channels, data.image_size, data.image_size)


def autoencoder(cfg, data) -> nn.Module:
    """A discriminator judges the reconstruction twice and the picture once; a perceptual distance is left out."""
    model = build(autoencoder_node(cfg, data), cfg.trusted)
    Passes(model)(picture(data), torch.zeros(1, *model.latent_shape(data.image_size)))
    discriminator = build(cfg.task.get("discriminator"), cfg.trusted)
    for _ in range(0 if discriminator is None else 3):
        discriminator(picture(data))
    return model


def contrastive(cfg, data) -> nn.Module:
    model = build({**clip_node(cfg, data), "tokenizer": None}, cfg.trusted)
    Towers(model)(picture(data), torch.zeros(1, model.length, dtype=torch.int64))
    return model


def judge(cfg, data) -> nn.Module:
    model = build(judge_node(cfg, data), cfg.trusted)
    model(picture(data))
    return model


def diffusion(cfg, data) -> nn.Module:
    with torch.device("cpu"):  # where a pretrained one is loaded
        encoder = text_encoder(cfg, {}, data.image_size)
        parts = describe(cfg, data, {}, encoder)
        shape = build(parts["autoencoder"], cfg.trusted).latent_shape(data.image_size)
    cond = None if encoder is None else Conditioning(
        torch.zeros(1, encoder.length, encoder.context_dim), pooled=torch.zeros(1, encoder.pooled_dim))
    network = build(parts["network"], cfg.trusted)
    network(torch.zeros(1, *shape), torch.zeros(1), cond)
    return network


PASSES = {"autoencoder": autoencoder, "clip": contrastive, "judge": judge, "latent_diffusion": diffusion}
