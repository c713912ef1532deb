"""Model files with random weights, as training would write them."""

import torch

from diffusion import checkpoint
from diffusion.config import build
from diffusion.text import tokenizer

STORED = {"_target_": "diffusion.guidance.classifier_free", "_partial_": True, "scale": 3.0, "rescale": 0.7}


def saved(path, seed=0, text_seed=0, captioned=True, image_channels=3, schedule="Cosine", whitened=1.0,
          size=8, **facts):
    """A pixel model with a small CLIP; its path."""
    text = {"_target_": "diffusion.text.clip.SmallCLIP", "tokenizer": tokenizer.learn(["a red circle"], 520),
            "width": 64, "layers": 1, "vision_width": 64, "vision_layers": 1, "patch": 16}
    torch.manual_seed(text_seed)
    encoder = build(text)
    network = {"_target_": "diffusion.models.unet.UNet", "channels": image_channels, "widths": [32],
               "blocks_per_level": 1, "self_attention": [False], "cross_attention": [False], "heads_dim": 32,
               "context_dim": None, "norm_groups": 8, "pooled_dim": encoder.pooled_dim if captioned else None}
    torch.manual_seed(seed)
    made = build(network)
    for parameter in made.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    parts = {"autoencoder": {"_target_": "diffusion.models.identity.Identity", "image_channels": image_channels},
             "network": network, "schedule": {"_target_": f"diffusion.schedules.{schedule}"},
             "parameterization": {"_target_": "diffusion.parameterizations.V"}, "guidance": STORED,
             "sampler": {"_target_": "diffusion.samplers.ddim", "_partial_": True},
             "discretization": {"_target_": "diffusion.discretizations.trailing", "_partial_": True}}
    tensors = {"ema": made.state_dict(), "autoencoder": build(parts["autoencoder"]).state_dict()}
    tensors["autoencoder"]["scale"] = whitened * tensors["autoencoder"]["scale"]
    if captioned:
        parts["text_encoder"], tensors["text_encoder"] = text, encoder.state_dict()
        facts["text_encoder_hash"] = checkpoint.weights_hash(encoder)
    if "data" in facts:
        facts["data_fingerprint"] = build(facts["data"]).fingerprint()
    checkpoint.save(path, "latent_diffusion", parts,
                    {"steps": 1, "sampling_steps": 2, "latent_shape": [image_channels, size, size], **facts}, tensors)
    return path
