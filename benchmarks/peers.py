"""Networks of diffusers with the architecture and the weights of ours: what is raced against, and what tests compare
with. Needs the extra `bench` (or `test`)."""

from collections.abc import Mapping
from typing import Any

import torch

from diffusion.models.autoencoder import KLAutoencoder
from diffusion.models.unet import UNet

UNUSED = 6  # channels of the tokens that diffusers wants where our network reads none

# names here -> names there
UNET = {
    "pooled_embedding.": "class_embedding.",
    "downsample.": "downsamplers.0.",
    "upsample.": "upsamplers.0.",
    "to_out.": "to_out.0.",
    "ff.proj.": "ff.net.0.proj.",
    "ff.out.": "ff.net.2.",
    "norm_out.": "conv_norm_out.",
}
AUTOENCODER = {
    "attentions.0.norm.": "attentions.0.group_norm.",
    "attentions.0.attention.": "attentions.0.",
    "downsample.": "downsamplers.0.",
    "upsample.": "upsamplers.0.",
    "to_out.": "to_out.0.",
    "norm_out.": "conv_norm_out.",
}


def renamed(name: str, names: Mapping[str, str]) -> str:
    for ours, theirs in names.items():
        name = name.replace(ours, theirs)
    return name


def diffusers_unet(network: UNet, config: Mapping[str, Any]):
    """UNet2DConditionModel with the weights of `network`, which was built from `config`.

    It attends both ways on every level that attends, and always in the middle: what ours leaves out is multiplied by
    zero.
    """
    from diffusers import UNet2DConditionModel

    kinds = ["CrossAttn" * (to_self or to_tokens)
             for to_self, to_tokens in zip(config["self_attention"], config["cross_attention"])]
    theirs = UNet2DConditionModel(
        in_channels=network.channels, out_channels=network.out_channels,
        block_out_channels=config["widths"], layers_per_block=config["blocks_per_level"],
        down_block_types=[f"{kind}DownBlock2D" for kind in kinds],
        up_block_types=[f"{kind}UpBlock2D" for kind in reversed(kinds)],
        # there it means how many heads
        attention_head_dim=[width // config["heads_dim"] for width in config["widths"]],
        cross_attention_dim=config["context_dim"] or UNUSED, norm_num_groups=config.get("norm_groups", 32),
        transformer_layers_per_block=config.get("transformer_depth", 1), use_linear_projection=True,
        class_embed_type="projection" if network.pooled_dim else None,
        projection_class_embeddings_input_dim=network.pooled_dim,
    )
    state = {renamed(name, UNET): value for name, value in network.state_dict().items()}
    missing, unexpected = theirs.load_state_dict(state, strict=False)
    attends = any(config["self_attention"]), any(config["cross_attention"])
    left_out = [".attn1.", ".norm1.", ".attn2.", ".norm2."] if any(attends) else ["mid_block.attentions."]
    strangers = [*unexpected, *(name for name in missing if not any(part in name for part in left_out))]
    if strangers:
        raise ValueError(f"diffusers' U-Net has no counterpart for {', '.join(strangers)}")
    for name in missing:
        if "to_out.0" in name or "proj_out" in name:
            torch.nn.init.zeros_(theirs.get_parameter(name))
    return theirs.eval()


def diffusers_autoencoder(network: KLAutoencoder, config: Mapping[str, Any]):
    """AutoencoderKL with the weights of `network`, which was built from `config`; its latents are the raw ones."""
    from diffusers import AutoencoderKL

    levels = len(config["widths"])
    theirs = AutoencoderKL(
        in_channels=network.image_channels, out_channels=network.image_channels,
        latent_channels=network.latent_channels, block_out_channels=config["widths"],
        layers_per_block=config.get("blocks_per_level", 1), norm_num_groups=config.get("norm_groups", 32),
        down_block_types=["DownEncoderBlock2D"] * levels, up_block_types=["UpDecoderBlock2D"] * levels,
        mid_block_add_attention=config.get("mid_attention", True), scaling_factor=1.0,
    )
    theirs.load_state_dict({renamed(name, AUTOENCODER): value for name, value in network.named_parameters()})
    return theirs.eval()
