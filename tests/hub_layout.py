"""A data set of noise in the layout of the hub's uoft-cs/cifar10."""

import io
from pathlib import Path

import datasets
import numpy as np
from PIL import Image

from diffusion.data.cifar10 import NAMES


def write(folder: Path, sizes=None, side: int = 32, seed: int = 0, column: str = "img") -> Path:
    """plain_text/{split}-00000-of-00001.parquet and the README that names them."""
    (folder / "plain_text").mkdir(parents=True)
    generator = np.random.default_rng(seed)
    features = datasets.Features({column: datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    listing = ""
    for split, n in (sizes or {"train": 20, "test": 10}).items():
        rows = {column: [], "label": [i % 10 for i in range(n)]}
        for _ in range(n):
            file = io.BytesIO()
            Image.fromarray(generator.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(file, "PNG")
            rows[column].append({"bytes": file.getvalue(), "path": None})
        path = folder / "plain_text" / f"{split}-00000-of-00001.parquet"
        datasets.Dataset.from_dict(rows, features=features).to_parquet(path)
        listing += f"  - split: {split}\n    path: plain_text/{split}-*\n"
    (folder / "README.md").write_text(
        f"---\nconfigs:\n- config_name: plain_text\n  data_files:\n{listing}---\n"
    )
    return folder
