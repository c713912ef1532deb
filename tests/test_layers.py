"""The layers: what stands lower may import what stands higher, never the other way round."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "diffusion"
MATHEMATICS = ["conditioning", "estimate", "schedules", "parameterizations", "time_sampling", "loss_second_moment",
               "couplings", "discretizations", "weightings", "samplers", "models", "network", "denoiser", "ema",
               "guidance", "objectives", "likelihood", "pixels", "rng"]
SHELL = {"pytorch_lightning", "hydra", "omegaconf", "wandb", "datasets", "transformers", "safetensors", "PIL",
         "pathlib"}


def imports() -> dict[str, set[str]]:
    """part of the package -> what it imports: parts as "diffusion.part", others by package."""
    found: dict[str, set[str]] = {}
    for file in PACKAGE.rglob("*.py"):
        part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{a.name}" if node.module == "diffusion" else node.module for a in node.names]
            for name in names:
                own = name.startswith("diffusion.")
                found.setdefault(part, set()).add(".".join(name.split(".")[:2]) if own else name.split(".")[0])
    return found


def test_no_two_parts_import_each_other():
    reach = {part: {n.removeprefix("diffusion.") for n in names if n.startswith("diffusion.")} - {part}
             for part, names in imports().items()}
    changed = True
    while changed:
        changed = False
        for names in reach.values():
            more = set().union(*(reach.get(n, set()) for n in names)) - names
            changed |= bool(more)
            names |= more
    assert not [part for part, names in reach.items() if part in names]


def test_the_mathematics_knows_neither_lightning_nor_hydra_nor_files():
    found = imports()
    for part in MATHEMATICS:
        assert not found.get(part, set()) & SHELL, part
        own = {n.removeprefix("diffusion.") for n in found.get(part, set()) if n.startswith("diffusion.")}
        assert own <= set(MATHEMATICS), (part, own - set(MATHEMATICS))
