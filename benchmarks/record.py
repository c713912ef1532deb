"""What a benchmark leaves behind: one JSON object with the machine, printed as the last line and kept in results/."""

import json
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from diffusion.machine import has_fast_bf16

RESULTS = Path(__file__).parent / "results"


def machine(device: torch.device) -> dict[str, Any]:
    """Names what the figures were measured on."""
    processor = platform.processor()
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        lines = cpuinfo.read_text().splitlines()
        processor = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), processor)
    packages = {name: version(name) for name in ("torch", "diffusers")}
    accelerator = {"accelerator": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return {"processor": processor, "cores": os.cpu_count(), "fast_bf16": has_fast_bf16(device), **accelerator,
            "python": platform.python_version(), **packages}


def record(name: str, result: dict[str, Any], device: torch.device) -> None:
    """Write results/NAME.json and print it on one line."""
    result = {"benchmark": name, **result, "machine": machine(device)}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


def rounded(value: Any, digits: int = 4) -> Any:
    """The same with every float to so many significant digits."""
    if isinstance(value, dict):
        return {key: rounded(part, digits) for key, part in value.items()}
    if isinstance(value, list):
        return [rounded(part, digits) for part in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value
