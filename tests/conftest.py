"""Shapes in signatures are checked while testing, one thread computes, and nothing asks a network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest
import torch
from jaxtyping import install_import_hook

import tests.typechecker  # noqa: F401  the hook looks it up

install_import_hook("diffusion", "tests.typechecker.check")

from diffusion.acceleration import cpu_bf16_gain  # noqa: E402

torch.set_num_threads(1)
cpu_bf16_gain()  # where AMX is listed but does not work, keep this process from using it


@pytest.fixture
def shapes():
    """A small embedded data set."""
    from diffusion.data.shapes import Shapes

    return Shapes(train=96, test=32)
