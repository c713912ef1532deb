"""Two runs, A and B: lines for a terminal, and pictures of the same prompts and noise."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from diffusion import checkpoint
from diffusion.acceleration import choose
from diffusion.evaluation.comparable import comparable
from diffusion.evaluation.generation import generate_many, pictures_of
from diffusion.grids import labelled
from diffusion.loading import load_model, with_guide
from diffusion.paths import relative, writable
from diffusion.reporting.differences import differences, shown
from diffusion.reporting.pictures import unpaired
from diffusion.reporting.run import Run
from diffusion.reporting.scores import Score, difference, own_scores
from diffusion.reporting.tables import HOW
from diffusion.sampling import device_named, prompts_from, sampling_from

log = logging.getLogger(__name__)


def configurations(a: Run, b: Run) -> list[str]:
    """The keys that differ."""
    found = differences([a.settings, b.settings])
    rows = [(path, *map(shown, values)) for path, values in found.items()]
    return aligned([("", "A", "B"), ("run", a.name, b.name), *rows])


def scores(a: Run, b: Run) -> list[str]:
    """B - A of what both were measured by: at the end of training, and in evaluations of the same settings."""
    lines = aligned([("score", "A", "B", "B - A", "95 %", ""), *_differences(own_scores(a), own_scores(b))])
    for record in a.evaluations:
        how = {key: record.get(key) for key in HOW}
        for other in b.evaluations:
            if how == {key: other.get(key) for key in HOW}:
                title = ", ".join(f"{key} {value}" for key, value in how.items() if value is not None)
                lines += ["", title, *aligned(list(_differences(record["scores"], other["scores"])))]
    return lines


def _differences(ours: dict[str, Score], theirs: dict[str, Score]) -> Iterator[tuple[str, ...]]:
    for name in [name for name in ours if name in theirs]:
        a, b = ours[name], theirs[name]
        values = (name, f"{a['value']:.4g}", f"{b['value']:.4g}")
        if (reason := comparable(a, b)) is not None:
            yield (*values, "", "", reason)
            continue
        d = difference(a, b)
        interval = "" if d["low"] is None else f"{d['low']:+.4g} to {d['high']:+.4g}"
        sure = d["low"] is not None and (d["low"] > 0 or d["high"] < 0)
        verdict = "" if not sure or a["better"] is None else "B" if (d["value"] > 0) == (a["better"] == "high") else "A"
        yield (*values, f"{d['value']:+.4g}", interval, f"{verdict} is better" if verdict else "")


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Columns of equal width."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def draw(a: Run, b: Run, cfg) -> Path:
    """Pictures by both models, A above B for each prompt, into the PNG cfg.out. cfg is that of sample.py.

    Picture i depends on (model, prompt, seed, i) alone: the same prompts and seed pair them, where the latents have
    one shape.
    """
    out = Path(cfg.out)
    writable(out.parent, "out")
    files = [checkpoint.load(run.folder, "latent_diffusion", cfg.trust) for run in (a, b)]
    if files[0].path.samefile(files[1].path):
        log.warning("A and B are one model, and are drawn in one way: sample.py draws it in others")
    captioned = ["text_encoder" in file.parts for file in files]
    if cfg.prompt is None and cfg.prompts_file is None:
        prompts = list(files[0].facts["example_prompts"])[:8] if any(captioned) else [""]
    else:
        prompts = prompts_from(cfg, any(captioned))
    n = 4 if cfg.n is None else cfg.n
    drawn = [pictures(file, cfg, prompts, n) for file in files]
    rows = [(f"{name}: {prompt}", some[k * n : (k + 1) * n]) for k, prompt in enumerate(prompts)
            for name, some in zip("AB", drawn, strict=True)]
    labelled(rows, columns=min(n, 8)).save(out)
    if files[0].facts["latent_shape"] != files[1].facts["latent_shape"]:
        log.warning("the pictures share prompts, not noise: %s", unpaired([a, b]))
    log.info("%d prompts, %d pictures each by A and by B, in %s", len(prompts), n, relative(out))
    return out


def pictures(file: checkpoint.ModelFile, cfg, prompts: Sequence[str], n: int) -> UInt8[Tensor, "k c h w"]:
    """n of each prompt by one model."""
    sampling = sampling_from(file, cfg)
    model = load_model(file, cfg.weights, cfg.text_encoder.path).to(device_named(cfg.device))
    model.accelerate(choose(cfg.precision, False, model.device))
    return generate_many(model, pictures_of(prompts, cfg.seed, n), with_guide(sampling, model, cfg.trust),
                         batch=cfg.batch, negative=cfg.negative)
