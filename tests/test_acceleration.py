"""What the fast setting of a machine may be asked to be."""

import pytest
import torch

from diffusion.acceleration import Acceleration, choose


def test_precision_is_checked():
    with pytest.raises(ValueError, match="allowed are auto, 32"):
        choose("64", False, torch.device("cpu"))
    with pytest.raises(ValueError, match="needs a CUDA device"):
        choose("16-mixed", False, torch.device("cpu"))
    assert choose("32", False, torch.device("cpu")) == Acceleration()
