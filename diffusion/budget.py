"""A time to be done in, instead of a number of steps: `budget=30min`. Measured once on the machine, kept in plan.yaml.

    steps = (budget - what is over - what the grid takes) / seconds of an update
"""

import re

UNITS = {"s": 1, "min": 60, "h": 3600}
MARGIN = 0.9  # of the time left goes into updates: fetching, averaging, log lines and validation take the rest
FEWEST = 10


def seconds_of(budget: str | float) -> float:
    """ "30min" -> 1800. Raises ValueError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h)", str(budget))
    if found is None or float(found[1]) == 0:
        raise ValueError(f"budget = {budget}: a number and a unit are expected, such as 90s, 30min or 4h")
    return float(found[1]) * UNITS[found[2]]


def steps_within(
    budget: str | float, spent: float, update: float, batch: int, pictures: int, sampling_steps: int
) -> int:
    """How many updates of `update` seconds fit, when `spent` seconds are over and `pictures` guided ones are to be
    drawn afterwards.

    Raises ValueError where hardly any does.
    """
    # a pass forwards is a third of one there and back; guidance needs two
    grid = pictures * 2 * sampling_steps * update / batch / 3
    steps = int(MARGIN * (seconds_of(budget) - spent - grid) / update)
    if steps < FEWEST:
        raise ValueError(f"budget = {budget}: {spent:.0f} s of it are over (the stages before, loading, compiling), "
                         f"the grid needs {grid:.0f} s and an update {update:.2f} s: too few updates would fit. Ask "
                         "for more time; stages that are finished cost nothing when the command is run again")
    return steps
