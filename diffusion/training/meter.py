"""Running means between two log lines, summed on the device without waiting for it."""

import torch
import torch.distributed as dist
from torch import Tensor

from diffusion import processes


class Meter:
    """add() sums and counts; take() gives the means since the last take(), over all processes, and starts anew."""

    def __init__(self):
        self.sums: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor) -> None:
        values = values.detach().float().flatten()
        self._accumulate(name, torch.stack([values.sum(), values.new_full((), values.numel())]))

    def add_bins(self, name: str, values: Tensor, where: Tensor, edges: list[float]) -> None:
        """Means of `values` by the interval of `edges` that `where` falls into; empty bins are left out."""
        index = torch.bucketize(where.detach().float(), torch.tensor(edges, device=where.device))
        inside = (index[:, None] == torch.arange(len(edges) + 1, device=index.device))
        inside = inside.to(values.device, non_blocking=True)
        self._accumulate(f"{name}|sum", torch.where(inside, values.detach().float()[:, None], 0).sum(0))
        self._accumulate(f"{name}|count", inside.float().sum(0))
        self.edges = edges

    def _accumulate(self, name: str, value: Tensor) -> None:
        self.sums[name] = self.sums[name] + value if name in self.sums else value

    def state_dict(self) -> dict[str, Tensor]:
        """The sums since the last take(), over all processes, which must have added the same names."""
        names = sorted(self.sums)
        if not names or processes.world() == 1:
            return {name: self.sums[name] for name in names}
        flat = torch.cat([self.sums[n] for n in names])
        dist.all_reduce(flat)
        return dict(zip(names, flat.split([len(self.sums[n]) for n in names]), strict=True))

    def load_state_dict(self, state: dict[str, Tensor], device: torch.device) -> None:
        """On the first process; the others begin at 0."""
        self.sums = {name: value.to(device) * (processes.rank() == 0) for name, value in state.items()}

    def take(self) -> dict[str, float]:
        sums, means = self.state_dict(), {}
        for name in sums:
            if name.endswith("|sum"):
                bins, counts = sums[name].tolist(), sums[name[:-3] + "count"].tolist()
                low = ["-inf", *(f"{e:g}" for e in self.edges)]
                high = [*(f"{e:g}" for e in self.edges), "inf"]
                means.update({f"{name[:-4]}_{a}..{b}": s / c for a, b, s, c in zip(low, high, bins, counts) if c})
            elif not name.endswith("|count"):
                total, count = sums[name].tolist()
                means[name] = total / count
        self.sums = {}
        return means
