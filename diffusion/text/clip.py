"""CLIP (Radford et al. 2021): a text and an image tower that meet in one embedding space.

The text tower's hidden states are what the denoiser's cross-attention reads; the image tower's embedding is a feature
space for evaluation. Both towers are `transformers`' classes. `SmallCLIP` is trained here from scratch and travels
inside the model file; `PretrainedCLIP` is a folder or a hub name, and the model file carries its name and hash.
"""

import abc
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.utils import logging as transformers_logging

from diffusion.conditioning import Conditioning
from diffusion.text import tokenizer as bpe


class CLIP(nn.Module, abc.ABC):
    """Both towers. Tokens come padded to the context `length`, so shapes are static; pads are attended, as in Stable
    Diffusion. The null condition is the encoding of the empty caption."""

    model: CLIPModel
    tokenizer: CLIPTokenizer
    length: int

    @property
    def context_dim(self) -> int:
        """Channels of one token."""
        return self.model.config.text_config.hidden_size

    @property
    def pooled_dim(self) -> int:
        """Channels of the pooled text vector: the end token's hidden state."""
        return self.model.config.text_config.hidden_size

    def tokenize(self, captions: Sequence[str]) -> Int[Tensor, "b l"]:
        """Token ids, cut and padded to `length`."""
        rows = self.tokenizer([bpe.clean(c) for c in captions], padding="max_length", truncation=True,
                              max_length=self.length, return_tensors="pt")
        return rows["input_ids"]

    def token_count(self, caption: str) -> int:
        """How many tokens the caption has before it is cut, start and end included."""
        return len(self.tokenizer(bpe.clean(caption))["input_ids"])

    def encode(self, ids: Int[Tensor, "b l"]) -> Conditioning:
        """Hidden states after the last norm, and the end token's."""
        out = self.model.text_model(input_ids=ids.to(self.device))
        return Conditioning(tokens=out.last_hidden_state.float(), pooled=out.pooler_output.float())

    def forward(self, captions: Sequence[str]) -> Conditioning:
        return self.encode(self.tokenize(captions))

    def text_embedding(self, ids: Int[Tensor, "b l"]) -> Float[Tensor, "b e"]:
        """The caption in the joint space, of length 1."""
        pooled = self.model.text_model(input_ids=ids.to(self.device)).pooler_output
        return F.normalize(self.model.text_projection(pooled).float(), dim=-1)

    def image_embedding(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b e"]:
        """The picture (pixels in [-1, 1], any size) in the joint space, of length 1."""
        pooled = self.model.vision_model(pixel_values=self.preprocess(pixels)).pooler_output
        return F.normalize(self.model.visual_projection(pooled).float(), dim=-1)

    @abc.abstractmethod
    def preprocess(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c s s"]:
        """Pixels in [-1, 1] as the image tower was trained on them."""

    def image_states(self, pixels: Float[Tensor, "b c h w"]) -> Float[Tensor, "b l e"]:
        """The image tower's hidden states: features for a perceptual distance."""
        return self.model.vision_model(pixel_values=self.preprocess(pixels)).last_hidden_state

    @property
    def device(self) -> torch.device:
        return self.model.logit_scale.device

    def save_pretrained(self, folder: str | Path) -> None:
        """The hub's folder format: config.json, model.safetensors, tokenizer.json."""
        self.model.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


class SmallCLIP(CLIP):
    """A small CLIP of the same classes, for training from scratch.

    tokenizer   JSON from `diffusion.text.tokenizer.learn`; training learns it from the captions
    image_size  of the pictures it is trained on; patch: side of what the image tower takes for a token
    width       channels of the text tower, in `layers` layers; vision_width and vision_layers of the image tower (both
                have heads of `head_dim` channels)
    embedding   dimensions of the space that both towers share
    length      context length in tokens; captions are cut there
    vocabulary  tokens that are learnt at most
    """

    def __init__(self, tokenizer: str | None = None, *, image_size: int = 32, patch: int = 4, width: int = 128,
                 layers: int = 4, vision_width: int = 128, vision_layers: int = 4, head_dim: int = 64,
                 embedding: int = 128, length: int = 24, vocabulary: int = 1024):
        super().__init__()
        for name, value in {"width": width, "vision_width": vision_width}.items():
            if value % head_dim:
                raise ValueError(f"text_encoder.{name} = {value} is no multiple of text_encoder.head_dim = {head_dim}")
        if image_size % patch:
            raise ValueError(f"text_encoder.patch = {patch} does not divide the data's image_size = {image_size}")
        self.length = length
        self.tokenizer_json = tokenizer or bpe.learn([], vocabulary)
        self.tokenizer = bpe.read(self.tokenizer_json, length)
        common = {"projection_dim": embedding, "attention_dropout": 0.0, "_attn_implementation": "eager"}
        self.model = CLIPModel(CLIPConfig(
            text_config={"vocab_size": len(self.tokenizer), "hidden_size": width, "intermediate_size": 4 * width,
                         "num_hidden_layers": layers, "num_attention_heads": width // head_dim,
                         "max_position_embeddings": length, "bos_token_id": self.tokenizer.bos_token_id,
                         "eos_token_id": self.tokenizer.eos_token_id, "pad_token_id": self.tokenizer.pad_token_id,
                         **common},
            vision_config={"image_size": image_size, "patch_size": patch, "hidden_size": vision_width,
                           "intermediate_size": 4 * vision_width, "num_hidden_layers": vision_layers,
                           "num_attention_heads": vision_width // head_dim, **common},
            projection_dim=embedding, attn_implementation="eager"))

    def preprocess(self, pixels):
        size = self.model.config.vision_config.image_size
        if pixels.shape[-1] != size or pixels.shape[-2] != size:
            pixels = F.interpolate(pixels, (size, size), mode="bicubic", antialias=True, align_corners=False)
        return pixels


class PretrainedCLIP(CLIP):
    """A CLIP from the hub or from a local folder in the hub's format, frozen.

    Raises OSError, with what to do, where it cannot be loaded.
    """

    trainable = False

    def __init__(self, path: str = "openai/clip-vit-base-patch32"):
        super().__init__()
        self.path = path
        if Path(path).expanduser().exists():
            path = str(Path(path).expanduser())
        elif path.startswith((".", "/", "~")):
            raise OSError(f"text_encoder.path = {path}: no such folder")
        transformers_logging.disable_progress_bar()
        try:
            self.model = CLIPModel.from_pretrained(path, attn_implementation="sdpa")
            self.tokenizer = CLIPTokenizer.from_pretrained(path)
        except OSError as error:
            raise OSError(f"the CLIP {path} cannot be loaded ({str(error).splitlines()[0]}). Fetch it where there is a "
                          "network with `python -m diffusion.prepare`, name a local folder with "
                          "text_encoder.path=FOLDER, or train one: text_encoder=clip_small") from error
        self.length = self.model.config.text_config.max_position_embeddings
        self.register_buffer("mean", torch.tensor(OPENAI_CLIP_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(OPENAI_CLIP_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def preprocess(self, pixels):
        size = self.model.config.vision_config.image_size
        pixels = F.interpolate(pixels, (size, size), mode="bicubic", antialias=True, align_corners=False).clamp(-1, 1)
        return ((pixels + 1) / 2 - self.mean) / self.std
