"""Captions to tokens and back, the two kinds of CLIP, and that they speak the hub's format."""

import pytest
import torch

from diffusion.text import tokenizer
from diffusion.text.clip import PretrainedCLIP, SmallCLIP

CAPTIONS = ["a small red circle above a large blue square", "a photo of a horse"]
SIZES = {"width": 64, "layers": 2, "vision_width": 64, "vision_layers": 1, "embedding": 32}


@pytest.fixture
def clip():
    torch.manual_seed(0)
    return SmallCLIP(tokenizer.learn(CAPTIONS, 600), **SIZES).eval()


@pytest.mark.parametrize("text", ["a red circle", "zebra", "émoji 😀", "", "x" * 10_000, "\ud800 lone", "a\nb\tc"])
def test_every_text_becomes_a_row_of_static_length(clip, text):
    ids = clip.tokenize([text])
    assert ids.shape == (1, clip.length)
    assert (ids[0] == clip.tokenizer.eos_token_id).any() and ids[0, 0] == clip.tokenizer.bos_token_id


def test_no_text_is_unknown_and_texts_are_told_apart(clip):
    ids = clip.tokenize(["zebra", "zebrb", "🦓", "a red circle", "a red ring"])
    assert len(torch.unique(ids, dim=0)) == 5
    back = clip.tokenizer.decode(clip.tokenizer("a red circle")["input_ids"], skip_special_tokens=True)
    assert back == "a red circle"


def test_learnt_words_become_single_tokens(clip):
    assert clip.token_count("a photo of a horse") < clip.token_count("a kwyjibo of a horse")


def test_pooled_is_the_hidden_state_of_the_end(clip):
    ids = clip.tokenize(["a red circle"])
    cond = clip.encode(ids)
    end = (ids[0] == clip.tokenizer.eos_token_id).nonzero()[0, 0]
    assert torch.equal(cond.pooled[0], cond.tokens[0, end])


def test_a_saved_folder_loads_as_a_pretrained_clip(clip, tmp_path):
    clip.save_pretrained(tmp_path)
    loaded = PretrainedCLIP(str(tmp_path))
    ids = clip.tokenize(CAPTIONS)
    assert torch.equal(loaded.tokenize(CAPTIONS), ids) and loaded.length == clip.length
    for part in ("tokens", "pooled"):
        assert torch.allclose(getattr(loaded.encode(ids), part), getattr(clip.encode(ids), part), atol=1e-6)
    assert not any(p.requires_grad for p in loaded.parameters())


def test_a_clip_that_is_not_there_says_what_to_do(tmp_path):
    with pytest.raises(OSError, match="no such folder"):
        PretrainedCLIP(str(tmp_path / "nothing"))
    with pytest.raises(OSError, match="text_encoder=clip_small"):
        PretrainedCLIP("nobody/no-such-clip")


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"text_encoder\.width = 100"):
        SmallCLIP(width=100)
    with pytest.raises(ValueError, match=r"text_encoder\.patch = 5"):
        SmallCLIP(patch=5)
