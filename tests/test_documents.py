"""The commands that the documents tell one to type exist: their groups, options and keys."""

import re
import shlex
from pathlib import Path

import hydra
import pytest

from diffusion.cli import composed
from diffusion.config import TRUSTED, check, plain
from diffusion.sampling import asked_of_guidance

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("experiments/**/README.md")]


def commands(name: str) -> list:
    """What follows train.py or sample.py in code, as overrides; of a sweep its first job."""
    found = {}
    for document in sorted(DOCUMENTS):
        text = re.sub(r"\\\n\s*", "", document.read_text().replace("\\|", "|"))
        code = [line for block in re.findall(r"```\w*\n(.*?)```", text, re.S) for line in block.splitlines()]
        for words in code + re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S)):
            _, is_one, rest = words.partition(f"{name}.py")
            overrides = [word for word in shlex.split(rest, comments=True) if "=" in word and not word.endswith("NAME")]
            if is_one and overrides:
                found[f"{document.relative_to(ROOT)}: {rest.strip()}"] = overrides
    return [pytest.param([o if o.split("=", 1)[1][:1] in "[{'\"" else o.split(",")[0] for o in overrides], id=label)
            for label, overrides in found.items()]


@pytest.mark.parametrize("overrides", commands("train"))
def test_a_training_that_is_told_of_can_be_configured(overrides, hydra, monkeypatch):
    monkeypatch.setenv("DIFFUSION_CIFAR10", "FOLDER")
    cfg, _ = composed(overrides)
    check(cfg, cfg.trusted)


@pytest.mark.parametrize("overrides", commands("sample"))
def test_a_drawing_that_is_told_of_can_be_configured(overrides, request):
    request.getfixturevalue("hydra")
    cfg = hydra.compose("sample", overrides)
    check({**plain(cfg), "guidance": asked_of_guidance(cfg)}, TRUSTED)
