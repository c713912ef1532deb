"""Stages and their folders: what a run needs first, what is finished, and where everything lies.

A stage is an experiment with its parents trained. Its folder, runs/<experiment>/<key>/, is a function of what can
change its numbers: the content of the config groups that its task reads, seed, steps, batch, optimizer, the data's
fingerprint and the parents' keys - not of devices, logger, paths or cadence. So the same command finds the same
folder, goes on or says that it is done, and a sweep over schedules trains its autoencoder once.
"""

import dataclasses
import hashlib
import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from diffusion.arithmetic import flop_per_step
from diffusion.budget import seconds_of
from diffusion.checkpoint import ModelFile, load, model_path
from diffusion.config import canonical, key_in, locate, plain, trained_here
from diffusion.files import file_hash, write_json, write_text
from diffusion.machine import TYPICAL

RECIPE = 10  # raised with every entry under "Numbers changed" in CHANGELOG.md
NUMBERS = ("seed", "steps", "batch", "clip", "precision", "optimizer", "lr")
SHARED = ("data", "paths", "logger", "trainer", "debug")  # groups that a parent takes over from its child
SHARED_KEYS = ("precision", "compile", "trusted", "workers", "save_minutes")
REFERENCE = TYPICAL / 2  # operations a second in a training on such cores: the same on every machine

Compose = Callable[[list[str]], tuple[DictConfig, dict[str, str | None]]]  # overrides -> configuration, group -> option


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training: `part` is what it is to its child."""

    part: str
    experiment: str
    cfg: DictConfig
    overrides: tuple[str, ...]
    parents: dict[str, "Stage"]
    data_fingerprint: str
    key: str

    @property
    def folder(self) -> Path:
        return Path(self.cfg.paths.runs) / self.experiment / self.key

    @property
    def model_path(self) -> Path:
        return self.folder / "model.safetensors"

    @property
    def resume_path(self) -> Path:
        return self.folder / "last.ckpt"

    @property
    def command(self) -> str:
        """What one types for this run, quoted for a shell."""
        asked = [o for o in self.overrides if not o.startswith("experiment=")]
        return shlex.join(["python", "train.py", f"experiment={self.experiment}", *asked])

    def results(self) -> dict[str, Any]:
        """results.json, or nothing."""
        path = self.folder / "results.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def finished(self) -> bool:
        return bool(self.results().get("finished")) and self.model_path.exists()

    def started(self) -> bool:
        return self.resume_path.exists()

    def done(self) -> bool:
        """Whether nothing is left to train."""
        return self.finished() and self.cfg.resume != "never"

    def goes_on(self) -> bool:
        """Whether training begins where an earlier start of this run has stopped."""
        return self.started() and self.cfg.resume != "never" and not self.finished()

    def model(self) -> ModelFile:
        return load(self.model_path, trust=self.cfg.trusted)

    def walk(self) -> Iterator["Stage"]:
        """Parents first, each stage once."""
        seen = set()
        for stage in self._walk():
            if stage.folder not in seen:
                seen.add(stage.folder)
                yield stage

    def _walk(self) -> Iterator["Stage"]:
        for parent in self.parents.values():
            yield from parent._walk()
        yield self

    def write(self, name: str, content: Mapping) -> None:
        """results.json, plan.yaml, ...: whole or not at all."""
        path = self.folder / name
        if path.suffix == ".json":
            write_json(path, content)
        else:
            write_text(path, yaml.safe_dump(dict(content)))


def plan(cfg: DictConfig, choices: Mapping[str, str | None], overrides: list[str], compose: Compose, data,
         part: str = "model") -> Stage:
    """The stage that a configuration describes, with its parents."""
    parents = {}
    for name, parent in (plain(cfg.parents) or {}).items():
        if cfg.get(name) is not None and not trained_here(cfg[name], cfg.trusted):
            continue
        parents[name] = parent_stage(name, parent, choices, overrides, compose, data)
        refuse_another(name, parent, cfg, parents[name])
    for name, share in parents_shares(cfg, parents, data).items():
        parent = plain(cfg.parents)[name]
        asked = [*parent.get("overrides", []), f"budget={share}s", "at_most=true"]
        parents[name] = parent_stage(name, {**parent, "overrides": asked}, choices, overrides, compose, data)
    return Stage(part, choices["experiment"], cfg, tuple(overrides), parents, data.fingerprint(),
                 key_of(cfg, parents, data))


def refuse_another(name: str, parent: Mapping, cfg: DictConfig, stage: Stage) -> None:
    """Raise ValueError where the child's experiment file sets keys of this part: only options and the command line are
    handed on to the parent, which would train something else."""
    explicit = any(key_in(o).partition(".")[0] == name for o in parent.get("overrides", []))
    mine, its = (canonical(c.get(name), c.trusted) for c in (cfg, stage.cfg))
    if explicit or mine is None or mine == its:
        return
    raise ValueError(f"{name}: the configuration describes another one than {stage.experiment} trains; change it by "
                     f"parents.{name}.overrides=[{name}.KEY=VALUE], by {name}.KEY=VALUE on the command line, or as an "
                     f"option of its own in configs/{name}/")


def parents_shares(cfg: DictConfig, parents: Mapping[str, Stage], data) -> dict[str, int]:
    """Seconds for each parent of a run with a budget, where the parents would take more than a third of it on the
    reference machine: of one machine, so that every other finds the same run."""
    if cfg.budget is None:
        return {}
    seconds = {name: p.cfg.steps * flop_per_step(p.cfg, data) / REFERENCE for name, p in parents.items()}
    if sum(seconds.values()) <= seconds_of(cfg.budget) / 3:
        return {}
    if any(p.parents or p.cfg.budget for p in parents.values()):  # chosen by hand: they take what they take
        return {}
    return {name: max(round(seconds_of(cfg.budget) / 3 * s / sum(seconds.values())), 1) for name, s in seconds.items()}


def parent_stage(name: str, parent: Mapping, choices: Mapping[str, str | None], overrides: list[str],
                 compose: Compose, data) -> Stage:
    """A parent is its own experiment, with the child's choices for what both share and for this part."""
    groups = (*SHARED, name)
    chosen = [f"{group}={choices[group]}" for group in groups if choices.get(group) is not None]
    dotted = [o for o in overrides if "." in key_in(o) and key_in(o).partition(".")[0] in groups]
    plain_keys = [o for o in overrides if key_in(o) in SHARED_KEYS]
    mine = [f"experiment={parent['experiment']}", *chosen, *plain_keys, *dotted, *parent.get("overrides", [])]
    composed, its_choices = compose(mine)
    return plan(composed, its_choices, mine, compose, data, part=name)


def key_of(cfg: DictConfig, parents: Mapping[str, Stage], data) -> str:
    """Ten hexadecimal digits."""
    groups = locate(cfg.task["_target_"], cfg.trusted).groups
    content = {name: canonical(cfg[name], cfg.trusted) for name in (*groups, *NUMBERS) if name != "data"}
    content |= {"data": data.fingerprint(), "precision": str(cfg.precision)}
    if "text_encoder" in content and cfg.text_encoder and cfg.text_encoder.get("path"):
        weights = sorted(Path(cfg.text_encoder.path).expanduser().glob("*.safetensors"))
        if weights:  # a local folder, wherever it lies
            content["text_encoder"]["path"] = [file_hash(path) for path in weights]
    content["parents"] = {name: parent.key for name, parent in sorted(parents.items())}
    content["recipe"] = RECIPE
    if cfg.budget is not None:
        content |= {"steps": cfg.steps if cfg.at_most else None, "budget": seconds_of(cfg.budget)}
    origins = {"init_from": init_path(cfg), "extend_from": extend_path(cfg)}
    content |= {name: file_hash(path) for name, path in origins.items() if path is not None}
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=5).hexdigest()


def init_path(cfg: DictConfig) -> Path | None:
    """The model file to take the first weights from. Raises FileNotFoundError."""
    return None if cfg.init_from is None else model_path(cfg.init_from, "init_from")


def extend_path(cfg: DictConfig) -> Path | None:
    """The state of the run to go on from. Raises FileNotFoundError."""
    if cfg.extend_from is None:
        return None
    path = Path(cfg.extend_from).expanduser() / "last.ckpt"
    if not path.exists():
        raise FileNotFoundError(f"extend_from = {cfg.extend_from}: a run's folder with last.ckpt is expected there")
    return path


def config_yaml(cfg: DictConfig) -> str:
    """The configuration as it was asked for, without what the environment put in."""
    return OmegaConf.to_yaml(cfg, resolve=False)
