import subprocess
import sys

import pytest
import torch

from diffusion.memory import peak_gib

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system counts otherwise")
def test_a_program_does_not_count_what_held_memory_before_it():
    held = torch.ones(2**28)  # a GiB
    assert peak_gib(CPU) > held.nbytes / 2**30
    told = subprocess.run([sys.executable, "-c", "import torch; from diffusion.memory import peak_gib; "
                           "print(peak_gib(torch.device('cpu')))"], capture_output=True, text=True, check=True)
    assert 0 < float(told.stdout) < peak_gib(CPU) - 0.5
