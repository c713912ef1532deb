"""Training the judge: a classifier that says whether a sample shows what its prompt asked for."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion import checkpoint, rng
from diffusion.data.pictures import Pictures, at_once, chunks, share
from diffusion.models.classifier import Classifier
from diffusion.objectives.classification import all_right, classification_loss
from diffusion.pixels import to_float
from diffusion.training.base import Training


class JudgeTraining(Training):
    """Pictures are shifted by up to `shift` pixels, covered with noise of a standard deviation of up to `noise` (drawn
    per picture; samples are never as clean as the data), and mirrored where the data set allows it.

    Scored on the test split: the share of pictures whose attributes are all named right.
    """

    groups = ("judge", "data", "task")
    kind = "judge"

    def __init__(self, *, model: Classifier, node: dict, data, shift: int = 0,
                 noise: float = 0.0, smoothing: float = 0.0, **settings):
        super().__init__(**settings)
        self.model, self.node, self.data = model, node, data
        self.shift, self.noise, self.smoothing = shift, noise, smoothing
        self.train_set, self.test_set = data.judge_split("train"), data.judge_split("test")

    @property
    def learns(self):
        return {"judge": self.model}

    def fetcher(self):
        return len(self.train_set), Pictures(self.train_set, self.batch, self.seed, self.data.mirror,
                                             images=self.placed(self.train_set.images))

    def accelerated(self):
        shape = self.rows, self.data.channels, self.data.image_size, self.data.image_size
        return self.model, lambda: (self._format(torch.randn(shape, device=self.device)),)

    def _format(self, x: Tensor) -> Tensor:
        return x.contiguous(memory_format=self.acceleration.memory_format)

    def loss(self, batch: dict) -> Tensor:
        x = to_float(batch["image"])
        if self.shift:
            x = self._shifted(x, batch)
        if self.noise:
            x = self._noisy(x, batch)
        with self.acceleration.autocast(self.device):
            logits = self.model(self._format(x))
        loss = classification_loss(logits, batch["label"], self.smoothing)
        self.meter.add("loss", loss)
        self.meter.add("accuracy", all_right(logits, batch["label"]))
        return loss.mean()

    def _shifted(self, x: Tensor, batch: dict) -> Tensor:
        """A random crop of the reflected picture."""
        size, reach = x.shape[-1], 2 * self.shift + 1
        padded = F.pad(x, [self.shift] * 4, mode="reflect")
        by = rng.integers(reach * reach, (self.batch,), self.seed, batch["step"], "shift",
                          rows=slice(*batch["rows"])).to(x.device, non_blocking=True)
        rows = (by // reach)[:, None] + torch.arange(size, device=x.device)
        columns = (by % reach)[:, None] + torch.arange(size, device=x.device)
        return padded[torch.arange(len(x), device=x.device)[:, None, None], :, rows[:, :, None],
                      columns[:, None, :]].movedim(-1, 1)

    def _noisy(self, x: Tensor, batch: dict) -> Tensor:
        step, rows = batch["step"], slice(*batch["rows"])
        sigma = self.noise * rng.uniform((self.batch, 1, 1, 1), self.seed, step, "noise level", rows=rows)
        sigma = sigma.to(x, non_blocking=True)
        return x + sigma * rng.normal((self.batch, *x.shape[1:]), self.seed, step, "noise", rows=rows, device=x.device)

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        self.model.eval()
        size = at_once(self.test_set.images)
        self.meter_validation.add("accuracy", torch.empty(0, device=self.device))  # a share may be empty
        for index in chunks(share(len(self.test_set), self.rank, self.world), size):
            x = self._format(to_float(self.test_set.images[index.start : index.stop].to(self.device)))
            with self.eager(), self.acceleration.autocast(self.device):
                logits = self.model(x)
            labels = self.test_set.labels[index.start : index.stop].to(self.device)
            self.meter_validation.add("accuracy", all_right(logits, labels))
        self.model.train()
        return self.meter_validation.take()

    def finish(self) -> dict:
        return self.validate()

    def save(self, path: Path, facts: dict) -> None:
        checkpoint.save(path, self.kind, {"judge": self.node},
                        {**facts, "heads": {k: list(v) for k, v in self.data.heads.items()}},
                        {"judge": self.model.state_dict()})
