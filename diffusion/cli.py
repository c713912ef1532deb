"""The two commands. Hydra answers --help and mistyped keys here, before anything heavy is imported.

    train   launch its processes if there are several, plan the stages, carry them out
    sample  load a model file, draw pictures, score them
"""

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

HERE = Path(__file__).parent
CONFIGS = str(HERE / "configs" if (HERE / "configs").is_dir() else HERE.parent / "configs")
INTERRUPTED = 75  # EX_TEMPFAIL: the state was saved, the same command goes on

log = logging.getLogger(__name__)
OmegaConf.register_new_resolver("options", lambda group: ", ".join(
    sorted(path.stem for path in (Path(CONFIGS) / group).glob("*.yaml"))), replace=True)  # for sample.py --help


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="train")
def train(cfg: DictConfig) -> None:
    job = HydraConfig.get()
    if not isinstance(cfg.trainer.devices, int) or cfg.trainer.devices < 1:
        log.error("trainer.devices = %s: a number of processes, at least 1", cfg.trainer.devices)
        sys.exit(1)
    if cfg.trainer.num_nodes != 1 and "LOCAL_RANK" not in os.environ:
        log.error("trainer.num_nodes = %s: start the command on each node, by torchrun --nnodes=%s "
                  "--nproc-per-node=%s train.py ...", cfg.trainer.num_nodes, cfg.trainer.num_nodes, cfg.trainer.devices)
        sys.exit(1)
    if cfg.trainer.devices > 1 and "LOCAL_RANK" not in os.environ:
        return launch(cfg.trainer.devices, list(job.overrides.task))
    from diffusion import pipeline

    with told():
        pipeline.main(cfg, dict(job.runtime.choices), list(job.overrides.task), composed)


@hydra.main(version_base="1.3", config_path=CONFIGS, config_name="sample")
def sample(cfg: DictConfig) -> None:
    from diffusion import sampling

    with told():
        sampling.main(cfg, HydraConfig.get().overrides.task)


def composed(overrides: list[str]) -> tuple[DictConfig, dict[str, str | None]]:
    """Another configuration of the train command, and which option each group has."""
    cfg = hydra.compose("train", overrides, return_hydra_config=True)
    choices = dict(cfg.hydra.runtime.choices)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    OmegaConf.set_struct(cfg, True)
    return cfg, choices


def launch(processes: int, overrides: list[str]) -> None:
    """The same job as a process group of its own, with the same overrides; Lightning never spawns."""
    flags = [part for flag, value in zip(sys.argv[1:], [*sys.argv[2:], ""], strict=True)
             if flag.startswith(("--config-dir", "-cd", "--config-name", "-cn"))
             for part in ([flag] if "=" in flag else [flag, value])]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
               "--module", "diffusion.cli", "train", *flags, *overrides]
    env = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // processes, 1)), **os.environ}
    if _in_a_sweep():
        env["DIFFUSION_SWEEP"] = HydraConfig.get().sweep.dir  # where the job's line goes
    group, asked = subprocess.Popen(command, env=env), []

    def forward(number, frame):
        asked.append(number)
        group.send_signal(number)  # its agent tells the workers, which save

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, forward)
    code = group.wait()
    if code and asked:
        log.error("stopped by a signal; the run's log.txt says at which step, and the same command goes on")
        sys.exit(INTERRUPTED)
    if code:
        message = f"the process group ended with code {code}: the reason is above and in the run's log.txt"
        if _in_a_sweep():
            raise RuntimeError(message)
        log.error(message)
        sys.exit(1)


class told:
    """A mistake of the user's is a message, not a stack; everything else keeps its stack."""

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace) -> bool:
        if error is None:
            return False
        from diffusion.callbacks.saving import Interrupted
        from diffusion.mistakes import MISTAKES

        if isinstance(error, Interrupted):  # a sweep ends, too: whoever sends a signal wants the whole to stop
            log.error("%s", error)
            sys.exit(INTERRUPTED)
        if isinstance(error, MISTAKES) and not os.environ.get("HYDRA_FULL_ERROR") and not _in_a_sweep():
            log.error("%s", error)
            sys.exit(1)
        return False


def plain_lines() -> None:
    """What Hydra's commands log by configs/hydra/job_logging/plain.yaml, for commands without Hydra."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)


def _in_a_sweep() -> bool:
    """A sweep records a failed job and goes on with the next, unless the process is ended."""
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN


if __name__ == "__main__":
    {"train": train, "sample": sample}[sys.argv.pop(1)]()
