import math

import pytest
from torch import nn

from diffusion.ema import HalfLifeEMA


def weight_of_the_start(images: int, start: int = 0, **options) -> float:
    """What of the weights that stood until `start` pictures were seen is left in the average after `images`."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.ones_(model.weight)
    ema = HalfLifeEMA(model, **options)
    for seen in range(0, images, options["batch"]):
        nn.init.constant_(model.weight, float(seen < start))
        ema.update()
    return ema.shadows["weight"].item()


@pytest.mark.parametrize("batch", [1, 5, 100, 300])
def test_after_its_half_life_half_of_the_start_is_left_whatever_the_batch(batch):
    for half_lives in (1, 2, 3):
        left = weight_of_the_start(300 * half_lives, batch=batch, half_life_images=300, ramp=None)
        assert left == pytest.approx(0.5**half_lives, rel=1e-4)


@pytest.mark.parametrize("ramp", [0.5, 1.0])
def test_while_the_ramp_lasts_the_average_is_a_power_function(ramp):
    left = weight_of_the_start(2000, start=1000, batch=1, half_life_images=1e9, ramp=ramp)
    assert left == pytest.approx((1000 / 2000) ** (math.log(2) / ramp), rel=1e-3)


def test_under_the_ramp_the_first_update_takes_the_weights_whole():
    assert weight_of_the_start(8, batch=8) == 0 < weight_of_the_start(8, batch=8, ramp=None)


@pytest.mark.parametrize("wrong", [{"half_life_images": 0}, {"ramp": 0}, {"ramp": -0.1}])
def test_what_is_no_half_life_is_refused(wrong):
    with pytest.raises(ValueError, match="above 0"):
        HalfLifeEMA(nn.Linear(1, 1), batch=1, **wrong)
