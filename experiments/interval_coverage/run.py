"""How often the 95 % intervals hold the true value, on Gaussians of which it is known.

    python experiments/interval_coverage/run.py [--repetitions 1000] [--only NAME ...]

Reference N(0, diag(s^2)) with variances from 0.3 to 2; samples N(shift, diag(s^2 stretch^2)), in `d` dimensions. Beside
the interval of diffusion/evaluation/metrics stand the two that come to mind first: Student's with the jackknife's
variance, and the percentiles of a plain bootstrap of the plug-in distance. `at_n`, precision and
density are held against their mean over repetitions; of the last two the reference stays the same.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion import rng
from diffusion.evaluation.metrics.cmmd import cmmd
from diffusion.evaluation.metrics.frechet import frechet_distance, frechet_intervals, moments_of
from diffusion.evaluation.metrics.intervals import GROUPS, Interval, groups, jackknife, student
from diffusion.evaluation.metrics.kernel import kernel_distance
from diffusion.evaluation.metrics.neighbours import neighbours

HERE = Path(__file__).parent
SAME, NEAR, MIDDLE, FAR = (0.0, 1.0), (0.05, 1.02), (0.2, 1.05), (1.0, 1.3)  # shift, largest stretch
RESAMPLES = 200


def standard_deviations(d: int, stretch: float = 1.0) -> Tensor:
    return torch.linspace(0.3, 2, d).double().sqrt() * (1 + (stretch - 1) * torch.linspace(-1, 1, d).double())


def shifts(d: int, shift: float) -> Tensor:
    return torch.full((d,), shift / d**0.5).double()


def pairs(n: int, m: int, d: int, apart: tuple[float, float], repetitions: int, heavy: bool = False
          ) -> Iterator[tuple[Tensor, Tensor]]:
    """Samples and reference. heavy: Student's t with 8 degrees of freedom, of the same mean and covariance."""
    shift, stretch = apart
    for i in tqdm(range(repetitions), disable=None):
        drawn = []
        for rows, purpose in ((n, "samples"), (m, "reference")):
            z = rng.normal((rows, d), 0, i, purpose).double()
            if heavy:
                z *= (6 / rng.normal((rows, 8), 0, i, purpose + " scale").double().square().sum(1, keepdim=True)).sqrt()
            drawn.append(z)
        yield shifts(d, shift) + drawn[0] * standard_deviations(d, stretch), drawn[1] * standard_deviations(d)


def true_frechet(d: int, apart: tuple[float, float]) -> float:
    """Of diagonal covariances: |mu|^2 + sum (s_1 - s_2)^2."""
    shift, stretch = apart
    return (shift**2 + (standard_deviations(d, stretch) - standard_deviations(d)).square().sum()).item()


def true_cmmd(d: int, apart: tuple[float, float]) -> float:
    """E exp(-|x - y|^2 / 200) where x - y is Gaussian with independent axes."""
    def mean(shift, variance):
        width = 100 + variance
        return ((100 / width).sqrt() * torch.exp(-shift.square() / (2 * width))).prod()

    p, q, none = standard_deviations(d, apart[1]).square(), standard_deviations(d).square(), torch.zeros(d).double()
    return 1000 * (mean(none, 2 * p) + mean(none, 2 * q) - 2 * mean(shifts(d, apart[0]), p + q)).item()


def true_kernel_distance(d: int, apart: tuple[float, float]) -> float:
    """(x . y / d + 1)^3 is the inner product of the moments up to the third."""
    def moments(mean, variance):
        s = torch.diag(variance)
        third = torch.einsum("i,j,k->ijk", mean, mean, mean)
        third += sum(torch.einsum(f"{axes}->ijk", mean, s) for axes in ("i,jk", "j,ik", "k,ij"))
        return mean * (3 / d) ** 0.5, (torch.outer(mean, mean) + s) * 3**0.5 / d, third / d**1.5

    a = moments(shifts(d, apart[0]), standard_deviations(d, apart[1]).square())
    b = moments(torch.zeros(d).double(), standard_deviations(d).square())
    return sum((x - y).square().sum() for x, y in zip(a, b)).item()


def student_interval(x: Tensor, y: Tensor) -> Interval:
    whole = frechet_distance(moments_of(x), moments_of(y))
    rest = [torch.cat([rows for j, rows in enumerate(groups(len(x))) if j != i]) for i in range(GROUPS)]
    others = [torch.cat([rows for j, rows in enumerate(groups(len(y))) if j != i]) for i in range(GROUPS)]
    bias, variance = jackknife(whole, [frechet_distance(moments_of(x[i]), moments_of(y[j]))
                                       for i, j in zip(rest, others)])
    half = student(GROUPS - 1) * variance**0.5
    return Interval(whole - bias, whole - bias - half, whole - bias + half)


def bootstrap_interval(x: Tensor, y: Tensor, i: int) -> Interval:
    def again(z, k, purpose):
        return moments_of(z[rng.integers(len(z), (len(z),), i, k, purpose)])

    values = torch.tensor([frechet_distance(again(x, k, "x"), again(y, k, "y")) for k in range(RESAMPLES)])
    low, high = values.quantile(torch.tensor([0.025, 0.975])).tolist()
    return Interval(frechet_distance(moments_of(x), moments_of(y)), low, high)


def summary(intervals: list[Interval], true: float | None = None) -> dict:
    """`true` None: the mean over repetitions."""
    values = torch.tensor([i.value for i in intervals])
    aim = values.mean().item() if true is None else true
    return {"true": aim, "mean": values.mean().item(), "std": values.std().item(),
            "holds": sum(i.low <= aim <= i.high for i in intervals) / len(intervals),
            "above": sum(i.low > aim for i in intervals) / len(intervals),
            "width": sum(i.high - i.low for i in intervals) / len(intervals), "repetitions": len(intervals)}


def frechet_case(n: int, m: int, d: int, apart, repetitions: int, **options) -> dict:
    found = [frechet_intervals(x, y) for x, y in pairs(n, m, d, apart, repetitions, **options)]
    return {"infinite": summary([f.infinite for f in found], true_frechet(d, apart)),
            "at_n": summary([f.at_n for f in found])}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repetitions", type=int, default=1000)
    parser.add_argument("--only", nargs="*")
    asked = parser.parse_args()
    many, some, few = (max(asked.repetitions // k, 2) for k in (1, 2, 5))
    cases = {f"frechet n={n} {name}": lambda n=n, a=a: frechet_case(n, n, 8, a, many)
             for n in (500, 2000) for name, a in (("same", SAME), ("near", NEAR), ("middle", MIDDLE), ("far", FAR))}
    cases |= {
        "frechet n=500 against 5000, near": lambda: frechet_case(500, 5000, 8, NEAR, many),
        "frechet n=500 near, heavy tails": lambda: frechet_case(500, 500, 8, NEAR, many, heavy=True),
        "frechet n=1000 d=64 near": lambda: frechet_case(1000, 1000, 64, NEAR, few),
        "frechet n=1000 d=256 near": lambda: frechet_case(1000, 1000, 256, NEAR, max(few // 5, 2)),
        "student n=500 same": lambda: summary([student_interval(x, y) for x, y in pairs(500, 500, 8, SAME, few)], 0.0),
        "bootstrap n=500 near": lambda: summary(
            [bootstrap_interval(x, y, i) for i, (x, y) in enumerate(pairs(500, 500, 8, NEAR, few))],
            true_frechet(8, NEAR)),
    }
    for name, a in (("same", SAME), ("near", NEAR), ("far", FAR)):
        cases[f"kernel distance n=500 {name}"] = lambda a=a: summary(
            [kernel_distance(x, y) for x, y in pairs(500, 500, 8, a, some)], true_kernel_distance(8, a))
        cases[f"cmmd n=500 {name}"] = lambda a=a: summary(
            [cmmd(x, y) for x, y in pairs(500, 500, 8, a, some)], true_cmmd(8, a))

    def fidelity():
        _, reference = next(pairs(500, 500, 8, MIDDLE, 1))
        found = [neighbours(x, reference) for x, _ in pairs(500, 500, 8, MIDDLE, some)]
        return {part: summary([getattr(f, part) for f in found]) for part in ("precision", "density")}

    cases["neighbours n=500 middle"] = fidelity
    file = HERE / "results.json"
    results = json.loads(file.read_text()) if file.exists() else {}
    for name, case in cases.items():
        if asked.only is None or any(name.startswith(start) for start in asked.only):
            results[name] = case()
            print(name, json.dumps(results[name]), flush=True)
            file.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
