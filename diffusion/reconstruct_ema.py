"""Another width of weight average, after training: `python -m diffusion.reconstruct_ema ckpt=RUN sigma_rel=0.08`.

For runs trained with ema=power (Karras et al. 2024). The model file that it writes is the run's, but for the ema.*
tensors and what the facts say of them.
"""

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig

from diffusion.cli import CONFIGS, told

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="reconstruct_ema")
def main(cfg: DictConfig) -> None:
    from diffusion import checkpoint
    from diffusion.paths import relative
    from diffusion.snapshots import reconstruct

    with told():
        file = checkpoint.load(cfg.ckpt, "latent_diffusion")
        run, sigma_rel = file.path.parent, float(cfg.sigma_rel)
        made = reconstruct(run, sigma_rel, None if cfg.step is None else int(cfg.step))
        at = "" if cfg.step is None else f"_step_{made.step}"
        out = Path(cfg.out or run / f"ema_{sigma_rel:g}{at}.safetensors").expanduser()
        if out.resolve() == (run / "model.safetensors").resolve():
            raise ValueError(f"out = {out} is the run's own model file: name another")
        facts = {"sigma_rel": sigma_rel, "step": made.step, "profile_error": made.error}
        checkpoint.save(out, file.kind, file.parts, {**file.facts, "ema": facts},
                        {**file.tensors, "ema": {**file.tensors["ema"], **made.tensors}})
        log.info("sigma_rel %g at step %d, from %d stored averages; they miss %.2g %% of its profile", sigma_rel,
                 made.step, made.stored, 100 * made.error)
        if made.error > 0.05:
            log.warning("that is much: take a width nearer to the tracked ones (ema.sigma_rels), or train with more "
                        "snapshots (ema.snapshot_every)")
        log.info("next: python sample.py ckpt=%s", relative(out))


if __name__ == "__main__":
    main()
