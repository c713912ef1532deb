"""What every stage's training shares: steps, draws, optimizer, log lines. The equations are elsewhere.

A stage is trained for `steps` updates of `batch` pictures each. Everything random comes from (seed, step, purpose);
dropout, which takes no generator, is seeded anew from (seed, step, slice) before each pass.
"""

import abc
import contextlib
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from diffusion import rng
from diffusion.acceleration import Acceleration
from diffusion.checkpoint import ModelFile
from diffusion.data.batches import Fetch
from diffusion.memory import resident
from diffusion.training.finite import FiniteGradients, refuse_scale
from diffusion.training.gathered import Gathered
from diffusion.training.meter import Meter
from diffusion.training.moments import lay_as_parameters


class Training(pl.LightningModule, abc.ABC):
    """One stage. Subclasses say what is trained and what its loss is.

    groups     the config groups whose content can change this stage's numbers: they make the run's key
    kind       what the model file holds
    seed       of every draw; steps: updates; batch: pictures of one, over all processes and passes
    log_every  updates from one log line to the next
    optimizer  function of the parameters
    lr         function (step, steps) -> factor
    clip       largest norm of the gradient
    rank, world, accumulate   how a batch is split; they change no numbers
    workers    how many processes fetch batches; without, data that fits lies on the device
    """

    groups: ClassVar[tuple[str, ...]]
    kind: ClassVar[str]

    def __init__(self, *, seed: int, steps: int, batch: int, optimizer: Callable, lr: Callable,
                 clip: float = 1.0, log_every: int = 50, rank: int = 0, world: int = 1, accumulate: int = 1,
                 workers: int = 0):
        super().__init__()
        self.workers, self.finite = workers, FiniteGradients()
        self.gathered: MutableMapping[torch.optim.Optimizer, Gathered] = weakref.WeakKeyDictionary()
        self.seed, self.steps, self.batch = seed, steps, batch
        self.rank, self.world, self.accumulate = rank, world, accumulate
        self.rows = batch // (world * accumulate)  # of one pass on one process
        self.seconds = 0.0  # spent on this stage before this start
        self.make_optimizer, self.lr, self.clip, self.log_every = optimizer, lr, clip, log_every
        self.acceleration = Acceleration()
        self.meter, self.meter_validation = Meter(), Meter()
        self.started, self._since = time.perf_counter(), (0, time.perf_counter())

    # What a stage provides

    @abc.abstractmethod
    def fetcher(self) -> tuple[int, Fetch]:
        """How many pictures there are, and how to fetch a batch's rows."""

    def place(self, device: torch.device, plan: Acceleration) -> None:
        """Move everything there, in the machine's fast setting."""
        self.acceleration = plan
        self.to(device)

    def placed(self, data):
        """A data set's tensor, or pictures on demand, where batches are fetched from: on the device, where it fits and
        no other process fetches."""
        return resident(data, self.device) if isinstance(data, Tensor) and self.workers == 0 else data

    @abc.abstractmethod
    def loss(self, batch: dict) -> Tensor:
        """Mean loss of these rows; adds what is worth a log line to self.meter."""

    @abc.abstractmethod
    def accelerated(self) -> tuple[nn.Module, Callable[[], tuple]]:
        """The network that costs the time, and example inputs at the training size."""

    @abc.abstractmethod
    def validate(self) -> dict[str, float]:
        """Scores on held-out data; equal whenever and however often it is called."""

    @abc.abstractmethod
    def save(self, path: Path, facts: dict[str, Any]) -> None:
        """Write the model file."""

    @property
    @abc.abstractmethod
    def learns(self) -> dict[str, nn.Module]:
        """What the model file holds of this stage: part -> module."""

    def start_from(self, file: ModelFile) -> None:
        """Begin with the weights of a model file of the same kind. Raises ValueError where they do not fit."""
        file.start(self.learns)

    def pictures(self) -> dict[str, Any]:
        """Named grids (uint8 c h w) worth a look now."""
        return {}

    def finish(self) -> dict[str, Any]:
        """After the last step: what the model file still needs. Returns facts for results.json."""
        return {}

    # What all stages share

    def training_step(self, batch: dict, batch_idx: int) -> Tensor:
        self.reseed(batch)
        return self.loss(batch)

    def reseed(self, batch: dict) -> None:
        """What takes no generator, before a pass."""
        rng.reseed(self.seed, batch["step"], f"dropout {batch['rows'][0]}", self.device)

    def optimizer_of(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """In the plan's precision, where it computes with more than element-wise operations."""
        optimizer = self.make_optimizer(parameters)
        if hasattr(optimizer, "compute_dtype") and self.acceleration.dtype == torch.bfloat16:
            optimizer.compute_dtype = torch.bfloat16
        if self.acceleration.precision == "16-mixed":
            optimizer._step_supports_amp_scaling = False  # a fused step would unscale, after the clipping
        return optimizer

    def configure_optimizers(self) -> dict:
        optimizer = self.optimizer_of([p for p in self.parameters() if p.requires_grad])
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.lr(step, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        self.clip_gradients_of([p for group in optimizer.param_groups for p in group["params"]], optimizer)

    def clip_gradients_of(self, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        """Clip to the norm `clip`; raises NonFinite, and nothing bad reaches the weights."""
        optimizer = getattr(optimizer, "optimizer", optimizer)
        norm = self.clipped(parameters, optimizer)
        # in fp16 the loss scaler tries scales that are too large, and skips those steps itself
        if self.acceleration.precision != "16-mixed":
            self.finite.look(norm, optimizer, self.updates_done)
        self.meter.add("gradient_norm", norm)

    def clipped(self, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> Tensor:
        """Their gradients clipped, in place; the norm before."""
        if self.device.type != "cuda":
            return nn.utils.clip_grad_norm_(parameters, self.clip)
        if optimizer not in self.gathered:
            chosen = set(parameters)
            others = [p for group in optimizer.param_groups for p in group["params"] if p not in chosen]
            self.gathered[optimizer] = Gathered(parameters, others)
        self.gathered[optimizer].gather()
        return self.gathered[optimizer].clip(self.clip)

    def eager(self):
        """Run compiled networks uncompiled: other batch sizes would each compile anew."""
        return torch.compiler.set_stance("force_eager")

    def on_train_start(self) -> None:
        for schedule in self.trainer.lr_scheduler_configs:  # a run that is extended has a new curve
            for group, base in zip(schedule.scheduler.optimizer.param_groups, schedule.scheduler.base_lrs, strict=True):
                group["lr"] = base * self.lr(self.updates_done, self.steps)
        for optimizer in self.trainer.optimizers:
            lay_as_parameters(optimizer)
        self._since = (self.updates_done, time.perf_counter())

    @property
    def updates_done(self) -> int:
        """Updates of the model so far."""
        return self.global_step

    def on_train_batch_end(self, outputs, batch: dict, batch_idx: int) -> None:
        self.tell()

    def tell(self) -> None:
        """The log line that is due, once."""
        done = self.updates_done
        if (done % self.log_every and done != self.steps) or done == self._since[0]:
            return
        if (scaler := getattr(self.trainer.precision_plugin, "scaler", None)) is not None:
            refuse_scale(scaler.get_scale(), done)
        before, then = self._since
        self._since = (done, time.perf_counter())
        rate = (done - before) * self.batch / (self._since[1] - then)
        line = {**self.meter.take(), "lr": self.trainer.optimizers[0].param_groups[0]["lr"], "images_per_second": rate}
        self.log_line({f"train/{name}": value for name, value in line.items()})

    @contextlib.contextmanager
    def off_the_clock(self) -> Iterator[None]:
        """What is done inside is no training: the next line's pictures a second leave its time out."""
        if self.device.type == "cuda":  # which may be some updates behind
            torch.cuda.synchronize(self.device)
        began = time.perf_counter()
        yield
        done, since = self._since
        self._since = done, since + time.perf_counter() - began

    def on_train_end(self) -> None:
        self.finite.wait()

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        self.finite.wait()
        checkpoint["updates"], checkpoint["meter"] = self.updates_done, self.meter.state_dict()
        checkpoint["seconds"] = self.seconds + time.perf_counter() - self.started

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        self.seconds = checkpoint["seconds"]
        self.meter.load_state_dict(checkpoint.get("meter", {}), self.device)
        # Lightning counts passes, of which an update may have had another number; and the last batch of a run that is
        # extended is not the last one any more. What was saved at the end of a pass is not yet `completed`
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        passes = checkpoint["updates"] * self.accumulate
        progress["current"] |= {"ready": passes, "started": passes, "processed": passes, "completed": passes - 1}
        progress["is_last_batch"] = checkpoint["updates"] == self.steps

    def log_line(self, metrics: dict[str, float]) -> None:
        """To every logger, at the current update."""
        self.trainer.callback_metrics.update({k: torch.tensor(v) for k, v in metrics.items()})
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics, step=self.updates_done)
