"""Model files: one safetensors file that rebuilds itself.

Tensors carry the name of their part (`ema.*`, `raw.*`, `autoencoder.*`, `text_encoder.*`); the metadata holds a plain
JSON description: for each part the class and its arguments, beside facts (data, step, metrics, versions). Only classes
of this project's model packages, and of packages that the caller trusts, are ever called. No pickle.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffusion.config import ConfigError, build
from diffusion.files import atomic

FORMAT = 1
MODEL_PACKAGES = ("diffusion.models", "diffusion.schedules", "diffusion.parameterizations", "diffusion.text",
                  "diffusion.samplers", "diffusion.discretizations", "diffusion.guidance")


class BadModelFile(ValueError):
    """Not a model file, not the kind asked for, or not readable by this version."""


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """kind, the parts' descriptions, the facts, and the tensors by part."""

    path: Path
    kind: str
    parts: dict[str, Any]
    facts: dict[str, Any]
    tensors: dict[str, dict[str, Tensor]]
    trusted: tuple[str, ...]

    def describe(self, part: str, **objects):
        """The object that a description builds, without tensors."""
        try:
            return build(self.parts[part], self.trusted, **objects)
        except ConfigError as error:
            raise BadModelFile(f"{self.path}: its part {part!r} cannot be rebuilt: {error}. A class of your own needs "
                               "trust=[your_package]") from None

    def module(self, part: str, tensors: str | None = None) -> nn.Module:
        """The module of a part with its weights; `tensors` names another set of them (ema, raw)."""
        module = self.describe(part)
        module.load_state_dict(self.tensors.get(tensors or part, {}))
        return module.eval()

    def start(self, modules: Mapping[str, nn.Module]) -> None:
        """init_from: give each module the weights of its part. Raises BadModelFile where they do not fit."""
        for part, module in modules.items():
            try:
                module.load_state_dict(self.tensors[part])
            except RuntimeError as error:
                first = str(error).splitlines()[1].strip()
                raise BadModelFile(f"init_from = {self.path}: its {part} does not fit this configuration: {first}"
                                   ) from None


def save(path: Path, kind: str, parts: Mapping[str, Any], facts: Mapping[str, Any],
         tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Write a model file; an interrupted or failed write leaves the file that was there."""
    flat = {f"{part}.{name}": tensor.detach().cpu().contiguous() for part, state in tensors.items()
            for name, tensor in state.items()}
    header = json.dumps({"format": FORMAT, "kind": kind, "parts": parts, "facts": facts})
    atomic(path, lambda temporary: save_file(flat, temporary, metadata={"diffusion": header}))


def load(path: str | Path, kind: str | None = None, trust: Iterable[str] = ()) -> ModelFile:
    """Read a model file, or the one in a run's folder.

    Raises BadModelFile with what the file is instead; FileNotFoundError where there is none.
    """
    path = model_path(path)
    told = header(path)
    if kind is not None and told["kind"] != kind:
        raise BadModelFile(f"{path} holds a model of kind {told['kind']}; this needs one of kind {kind}")
    tensors: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(path).items():
        part, _, rest = name.partition(".")
        tensors.setdefault(part, {})[rest] = tensor
    return ModelFile(path, told["kind"], told["parts"], told["facts"], tensors, (*MODEL_PACKAGES, *trust))


def header(path: Path) -> dict[str, Any]:
    """What a model file says (format, kind, parts, facts), without its tensors. Raises BadModelFile with what it is."""
    if path.suffix == ".ckpt":
        raise BadModelFile(f"{path} serves to resume training; to use is model.safetensors in the same folder")
    try:
        with safe_open(path, "pt") as file:
            found, names = json.loads((file.metadata() or {}).get("diffusion", "null")), list(file.keys())
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise BadModelFile(f"{path} is no readable safetensors file ({error})") from None
    if found is None:
        raise BadModelFile(f"{path} is a safetensors file, but not a model of this project: it has no description "
                           f"(first tensors: {', '.join(names[:3])})")
    if found["format"] > FORMAT:
        raise BadModelFile(f"{path} has format {found['format']}, this version reads up to {FORMAT}: upgrade")
    return found


def model_path(path: str | Path, option: str = "ckpt") -> Path:
    """The model file, or the one in a run's folder. Raises FileNotFoundError where there is none."""
    path = Path(path).expanduser()
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.exists():
        raise FileNotFoundError(f"{option} = {path}: no such file (a run's folder holds model.safetensors once its "
                                "training has finished)")
    return path


def weights_hash(module: nn.Module) -> str:
    """Names a module's weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def versions() -> dict[str, str]:
    """What wrote the file."""
    from importlib.metadata import version

    return {name: version(name) for name in ("diffusion", "torch", "pytorch-lightning", "transformers")}

