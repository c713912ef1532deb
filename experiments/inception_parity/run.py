"""Our Inception beside torch-fidelity's, with one set of random weights that keep the activations' scale.

    pip install --no-deps torch-fidelity && python experiments/inception_parity/run.py

torchvision, which torch-fidelity imports but its Inception does not use, may be absent.
"""

import json
import sys
import tempfile
from pathlib import Path
from unittest.mock import MagicMock

import torch
import torch.nn.functional as F

from diffusion.evaluation.features.inception import InceptionFeatures
from diffusion.models.inception import Inception

for name in ("", ".datasets", ".models", ".transforms", ".transforms.functional"):
    sys.modules.setdefault(f"torchvision{name}", MagicMock())
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # noqa: E402

SIZES = (32, 32), (40, 56), (299, 299), (310, 400)


def weights(path: Path) -> Path:
    """Under the names of the published file."""
    generator, state = torch.Generator().manual_seed(0), Inception().state_dict()
    for name, tensor in state.items():
        if name.endswith("conv.weight"):
            tensor.normal_(0, (2 / tensor[0].numel()) ** 0.5, generator=generator)
        elif name.endswith(("running_var", "bn.weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif name.endswith(("running_mean", "bn.bias")):
            tensor.normal_(0, 0.1, generator=generator)
    torch.save({name: tensor for name, tensor in state.items() if "num_batches" not in name}, path)
    return path


def pictures(size: tuple[int, int], n: int = 4) -> torch.Tensor:
    """Coarse blocks, so that the resize matters."""
    coarse = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(0)) * 255
    return F.interpolate(coarse, size, mode="nearest").to(torch.uint8)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = weights(Path(folder) / "weights.pth")
        ours = InceptionFeatures(str(file))
        theirs = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"],
                                             feature_extractor_weights_path=str(file))
        found = {}
        for size in SIZES:
            x = pictures(size)
            features, logits = theirs(x)
            found["x".join(map(str, size))] = {
                "features": (ours(x) - features).abs().max().item(), "size_of_features": features.abs().max().item(),
                "logits": (ours.logits(ours(x)) - logits).abs().max().item(),
                "size_of_logits": logits.abs().max().item()}
    Path(__file__).with_name("results.json").write_text(json.dumps(found, indent=2) + "\n")
    for size, differences in found.items():
        print(size, {name: f"{value:.2g}" for name, value in differences.items()})


if __name__ == "__main__":
    main()
