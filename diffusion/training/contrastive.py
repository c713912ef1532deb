"""Training a small CLIP from scratch on the data set's own pictures and captions."""

import math
from pathlib import Path

import torch
import torch.distributed.nn.functional as gathered
from torch import Tensor, nn

from diffusion import checkpoint, processes
from diffusion.data.captioned import CaptionedImages
from diffusion.data.pictures import Pictures, at_once, chunks
from diffusion.objectives.contrastive import contrastive_loss, retrieval
from diffusion.pixels import to_float
from diffusion.text.clip import SmallCLIP
from diffusion.training.base import Training


class Towers(nn.Module):
    """What is compiled: pixels and tokens to their embeddings."""

    def __init__(self, clip: SmallCLIP):
        super().__init__()
        self.clip = clip

    def forward(self, pixels: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return self.clip.image_embedding(pixels), self.clip.text_embedding(tokens)


class ContrastiveTraining(Training):
    """The batch of the loss is the global one: embeddings are gathered over processes."""

    groups = ("text_encoder", "data", "task")
    kind = "clip"

    def __init__(self, *, model: SmallCLIP, node: dict, data, **settings):
        super().__init__(**settings)
        if self.accumulate > 1:
            raise ValueError("accumulate: the contrastive loss compares all pairs of a batch, so it cannot be split in "
                             "time; take accumulate=1 (parents.text_encoder.overrides)")
        self.model, self.node, self.data = model, node, data
        self.towers = Towers(model)
        self.train_set = data.split("train")
        self.tokens = model.tokenize(self.train_set.captions)

    @property
    def learns(self):
        return {"text_encoder": self.model}

    def fetcher(self):
        return len(self.train_set), Pictures(self.train_set, self.batch, self.seed, self.data.mirror, self.tokens,
                                             images=self.placed(self.train_set.images))

    def accelerated(self):
        size, rows = self.data.image_size, self.rows

        def example():
            return (torch.rand(rows, self.data.channels, size, size, device=self.device) * 2 - 1,
                    self.tokens[torch.arange(rows) % len(self.tokens)].to(self.device))

        return self.towers, example

    def loss(self, batch: dict) -> Tensor:
        with self.acceleration.autocast(self.device):
            image, text = self.towers(to_float(batch["image"]), batch["tokens"])
        content = batch["content"]
        if processes.world() > 1:
            image, text = (torch.cat(gathered.all_gather(part)) for part in (image, text))
            content = torch.cat(gathered.all_gather(content))
        scale = self.model.model.logit_scale.clamp(max=math.log(100)).exp()
        loss = contrastive_loss(image, text, content, scale)
        self.meter.add("loss", loss)
        self.meter.add("scale", scale)
        return loss.mean()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Share of pictures whose caption is found, among all the captions of each retrieval set."""
        with self.eager(), self.acceleration.autocast(self.device):
            return {f"retrieval_{name}": self._retrieval(split) for name, split in self.data.retrieval().items()}

    def _retrieval(self, split: CaptionedImages) -> float:
        """Candidates: one caption of each content in the set."""
        contents, which = torch.unique(split.content, return_inverse=True)
        chosen = torch.zeros(len(contents), dtype=torch.int64).scatter_(0, which, split.caption_ids[:, 0])
        captions = [split.captions[i] for i in chosen.tolist()]
        text = self.model.text_embedding(self.model.tokenize(captions))
        image = torch.cat([self.model.image_embedding(to_float(split.images[i.start : i.stop].to(self.device)))
                           for i in chunks(range(len(split)), at_once(split.images))])
        return retrieval(image, text, which.to(image.device))

    def finish(self) -> dict:
        return self.validate()

    def save(self, path: Path, facts: dict) -> None:
        node = {**self.node, "tokenizer": self.model.tokenizer_json}
        checkpoint.save(path, self.kind, {"text_encoder": node}, facts, {"text_encoder": self.model.state_dict()})
