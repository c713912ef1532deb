"""Shapes in signatures are checked while testing, one thread computes, and nothing asks a network."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")

import pytest
import torch
from jaxtyping import install_import_hook

from tests import typechecker

install_import_hook("diffusion", f"{typechecker.__name__}.check")
torch.set_num_threads(1)
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when triton is first imported


def pytest_sessionstart():
    """Where AMX is listed but does not work, keep this process from using it."""
    from diffusion.machine import cpu_bf16_gain

    cpu_bf16_gain()


@pytest.fixture
def shapes():
    """A small embedded data set."""
    from diffusion.data.shapes import Shapes

    return Shapes(train=96, test=32)


@pytest.fixture
def hydra(tmp_path, monkeypatch):
    """Configurations can be composed; runs and caches go to the test's own folder."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    from diffusion.cli import CONFIGS
    from tests.small_runs import use

    use(tmp_path, monkeypatch)
    with initialize_config_dir(CONFIGS, version_base="1.3"):
        yield
    GlobalHydra.instance().clear()


@pytest.fixture
def compilable():
    """Without the checks of shapes, which dynamo cannot trace."""
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """The Arrow files of `datasets` go where the test's other files go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("huggingface"))
        yield
