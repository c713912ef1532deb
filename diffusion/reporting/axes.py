"""Axes: where a number stands between two ends, and which numbers a reader wants to see there."""

import dataclasses
import math
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Axis:
    """From low to high, by value or by its logarithm."""

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """0 at low, 1 at high."""
        a, b, x = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return (x - a) / (b - a)

    @property
    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.log else linear_ticks(self.low, self.high)


def around(values: Iterable[float], log: bool = False, pad: float = 0.04) -> Axis:
    """The axis that shows all values, with a little room. A logarithm needs positive ones: else it is by value."""
    values = [v for v in values if math.isfinite(v)] or [0.0, 1.0]
    low, high = min(values), max(values)
    if log and low > 0 and high > low:
        room = (high / low) ** pad
        return Axis(low / room, high * room, True)
    room = pad * (high - low) or abs(high) / 2 or 1.0
    return Axis(low - room, high + room)


def linear_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Multiples of the smallest of 1, 2, 5 x 10^k that makes at most `most` of them, from low to high."""
    k = math.floor(math.log10((high - low) / most))
    for step in (m * 10.0**e for e in (k, k + 1) for m in (1, 2, 5)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            return [round(i * step, 12 - k) for i in range(first, last + 1)]
    raise AssertionError((low, high))


def log_ticks(low: float, high: float, most: int = 7) -> list[float]:
    """Powers of ten, or 1, 2, 5 times these, or linear ones: the first that are at least three."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 2, 5)):
        ticks = [m * 10.0**e for e in exponents for m in digits if low <= m * 10.0**e <= high]
        if len(ticks) >= 3:
            return ticks[:: -(-len(ticks) // most)]
    return linear_ticks(low, high, most)


def written(value: float) -> str:
    """15000 -> "15k"."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size and abs(value) >= 1e4:
            return f"{value / size:g}{unit}"
    return f"{value:.10g}" if abs(value) >= 1e-4 or value == 0 else f"{value:.3g}"
