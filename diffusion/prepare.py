"""Fetch what an experiment needs from the hub, ahead of time: `python -m diffusion.prepare experiment=latent_cifar`,
and with `evaluation=full evaluation/features=[inception,dinov2]` the networks that shall score it.

For clusters whose compute nodes have no network: run it where there is one, with the same home (HF_HOME) and
paths.cache; training then reads the caches.
"""

import logging

import hydra
from omegaconf import DictConfig

from diffusion.cli import CONFIGS, told

log = logging.getLogger(__name__)


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="train")
def main(cfg: DictConfig) -> None:
    from diffusion.config import build, check, trained_here
    from diffusion.paths import writable

    with told():
        check(cfg, cfg.trusted)
        writable(cfg.paths.cache, "paths.cache")
        data = build(cfg.data, cfg.trusted)
        for name in ("train", "test"):
            log.info("data, %s: %d pictures", name, len(data.split(name)))
        if cfg.text_encoder and not trained_here(cfg.text_encoder, cfg.trusted):
            encoder = build(cfg.text_encoder, cfg.trusted)
            log.info("text encoder %s: %d tokens of %d channels", encoder.path, encoder.length, encoder.context_dim)
        for name, node in (cfg.evaluation.get("features") or {}).items():
            log.info("features %s: weights %s", name, build(node, cfg.trusted, name=name).hash)
        log.info("ready: with HF_HUB_OFFLINE=1 nothing asks the network")


if __name__ == "__main__":
    main()
