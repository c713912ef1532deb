"""What a trained model is scored with, and on which data."""

import torch
from omegaconf import OmegaConf
from PIL import Image

from diffusion import checkpoint
from diffusion.data.folder import Folder
from diffusion.evaluation.features import ClipFeatures
from diffusion.evaluation.scores import frechet_scores
from diffusion.loading import load_model
from diffusion.scoring import data_of
from tests.small_models import saved


def pictures(folder, n):
    for i in range(n):
        for name in ("cat", "dog"):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (9 * i, 200 * (name == "cat"), 7 * i)).save(folder / name / f"{i}.png")
    return str(folder)


def test_floors_of_few_training_pictures_say_so(tmp_path):
    data = Folder(pictures(tmp_path / "data", 20), image_size=8)
    train = data.split("train")
    model = load_model(checkpoint.load(saved(tmp_path / "model.safetensors")))
    told = []
    scores = frechet_scores(torch.zeros(64, 3, 8, 8, dtype=torch.uint8), model, data,
                            [ClipFeatures(model.text_encoder)], tmp_path / "cache", 0, told.append)
    assert scores["clip"]["n"] == 64 and scores["clip"]["floor_n"] == len(train) < 64
    assert f"all {len(train)} training pictures" in told[0]
    assert len(list((tmp_path / "cache").glob("reference-clip-test-*"))) == 1  # for the next of this model


def test_a_model_that_was_moved_keeps_its_data_in_this_machines_cache(tmp_path):
    node = {"_target_": "diffusion.data.folder.Folder", "source": pictures(tmp_path / "data", 5), "image_size": 8}
    file = checkpoint.load(saved(tmp_path / "model.safetensors", data=node))
    file.facts["data"]["cache"] = "/proc/nowhere"  # of the machine that trained it
    cfg = OmegaConf.create({"data": {"source": None}, "paths": {"cache": str(tmp_path / "cache")}, "trust": []})
    assert len(data_of(file, cfg).split("train")) and list((tmp_path / "cache").glob("folder-train-*.npy"))
