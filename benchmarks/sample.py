"""Pictures per second with guidance, against diffusers' pipeline with the same weights, grid, noise and sampler.

    python -m benchmarks.sample [--size tiny|small|base] [--n 64] [--steps 20] [--rounds 3] [--device auto]

DDIM, eps-prediction, guidance 3; from the prompts' tokens to 8-bit pictures. The float32 pictures of both are compared
first: it is the same work.
"""

import argparse
import copy
import dataclasses
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.peers import diffusers_autoencoder, diffusers_unet
from benchmarks.record import record, rounded
from benchmarks.timing import in_turn, say
from benchmarks.train_step import SIZES, TOKENS, jittered
from diffusion.acceleration import Acceleration, choose, compiler
from diffusion.conditioning import Conditioning
from diffusion.denoiser import Denoiser
from diffusion.fast_sampling import fast
from diffusion.guidance import classifier_free
from diffusion.latent import LatentDiffusion, Sampling
from diffusion.machine import has_fast_bf16
from diffusion.memory import keep_freed_memory
from diffusion.models.autoencoder import KLAutoencoder
from diffusion.models.unet import UNet
from diffusion.parameterizations import Epsilon
from diffusion.sampling import device_named
from diffusion.schedules import ScaledLinear

SCALE = 3.0
AUTOENCODER = {"widths": [32, 64], "mid_attention": False}


class Told(LatentDiffusion):
    """A model that knows two prompts, a caption's tokens and the empty one's: encoding text is not raced."""

    def __init__(self, tokens: Tensor, *parts):
        super().__init__(*parts)
        self.register_buffer("tokens", tokens)

    def condition(self, prompts: list[str]) -> Conditioning:
        return Conditioning(torch.stack([self.tokens[int(prompt != "")] for prompt in prompts]))


def pipeline(unet: nn.Module, autoencoder: nn.Module, dtype: torch.dtype, plan: Acceleration):
    """diffusers' own, in one setting."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    scheduler = DDIMScheduler(1000, 0.00085, 0.012, "scaled_linear", clip_sample=False, set_alpha_to_one=True,
                              prediction_type="epsilon", timestep_spacing="trailing")
    unet, autoencoder = (copy.deepcopy(part).to(dtype) for part in (unet, autoencoder))
    for part in (unet, autoencoder) if plan.channels_last else ():
        part.to(memory_format=torch.channels_last)
    if plan.compile:
        plan.compile_in_place(unet)
        autoencoder.decoder.compile(**compiler())
    made = StableDiffusionPipeline(vae=autoencoder, text_encoder=None, tokenizer=None, unet=unet, scheduler=scheduler,
                                   safety_checker=None, feature_extractor=None, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--n", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    keep_freed_memory()
    device = device_named(asked.device)
    config, side = SIZES[asked.size]

    torch.manual_seed(0)
    network, autoencoder = jittered(UNet(4, **config)), jittered(KLAutoencoder(**AUTOENCODER))
    tokens, noise = torch.randn(2, TOKENS, config["context_dim"]), torch.randn(asked.n, 4, side, side)
    model = Told(tokens, autoencoder, None, Denoiser(network, ScaledLinear(), Epsilon()), (4, side, side))
    model = model.requires_grad_(False).eval().to(device)
    sampling = Sampling(steps=asked.steps,
                        guidance=partial(classifier_free, scale=SCALE))
    peer = diffusers_unet(network, config).to(device), diffusers_autoencoder(autoencoder, AUTOENCODER).to(device)
    tokens, noise = tokens.to(device), noise.to(device)

    def ours(plan: Acceleration) -> Tensor:
        model.accelerate(plan)
        return model.generate(["a picture"] * asked.n, lambda like: noise, sampling)

    @torch.no_grad()
    def theirs(made, dtype: torch.dtype) -> Tensor:
        null, caption = (row.to(dtype).expand(asked.n, -1, -1) for row in tokens)
        pictures = made(prompt_embeds=caption, negative_prompt_embeds=null, latents=noise.to(dtype),
                        num_inference_steps=asked.steps, guidance_scale=SCALE, height=side * autoencoder.factor,
                        width=side * autoencoder.factor, output_type="pt").images
        return (255 * pictures.float()).round().to(torch.uint8)

    exact = pipeline(*peer, torch.float32, Acceleration())
    difference = (ours(Acceleration()).int() - theirs(exact, torch.float32).int()).abs()
    say(f"same work: 8-bit pictures differ by {difference.max()} at most")

    plans = [(torch.float32, Acceleration()), (torch.float32, Acceleration(channels_last=True))]
    if has_fast_bf16(device):
        graphs = [(False, False), (True, False), *([(True, True)] if device.type == "cuda" else [])]
        plans += [(torch.bfloat16, Acceleration(channels_last=layout, compile=compiled, graphs=graphed))
                  for layout in ((True,) if device.type == "cuda" else (False, True)) for compiled, graphed in graphs]
    calls = {}
    for dtype, plan in plans:
        name = f"diffusers, {str(dtype).removeprefix('torch.')}, {str(plan).removeprefix('32, ')}"
        calls[name] = partial(theirs, pipeline(*peer, dtype, plan), dtype)
    default, mine = next(iter(calls)), "ours"
    plan = choose("auto", False, device)
    calls[mine] = lambda: ours(plan)
    with fast(model.denoiser) as quick:  # as in a long job: recording and compiling are in the first call, like theirs
        ours(plan)
        uncompiled = set(quick.ways.values())
        quick.try_compiled()
        times = in_turn(calls, asked.rounds, device)
        compiled = uncompiled.isdisjoint(quick.ways.values())
    best = min((name for name in times if name != mine), key=times.get)
    record(f"sample_{asked.size}_{device.type}", rounded({
        "vs_diffusers": times[best] / times[mine], "vs_default": times[default] / times[mine],
        "ours": str(dataclasses.replace(plan, compile=compiled)),
        "default": default, "best": best, "n": asked.n, "steps": asked.steps, "guidance": SCALE,
        "largest_difference_in_float32": int(difference.max()),
        "images_per_second": {name: asked.n / t for name, t in times.items()},
    }), device)


if __name__ == "__main__":
    main()
