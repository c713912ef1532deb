"""The byte-pair encoding of CLIP: learnt on a set of captions, or read back from its JSON."""

import json
import unicodedata
from collections.abc import Iterable

from tokenizers import pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
LONGEST_PROMPT = 4000  # characters; the encoder reads far fewer tokens, and merging a huge text takes minutes


def learn(captions: Iterable[str], vocabulary: int) -> str:
    """JSON of a tokenizer with at most `vocabulary` tokens learnt on the captions. Every byte is a token, at the end
    of a word and inside it, so no text is unknown to it; the end token has the highest id, as in CLIP. Raises
    ValueError where `vocabulary` has no room for these."""
    backend = CLIPTokenizer().backend_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    single = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    merges_wanted = vocabulary - len(single) - 2
    if merges_wanted < 0:
        raise ValueError(f"text_encoder.vocabulary = {vocabulary}: {len(single) + 2} at least, for every byte alone")
    trainer = trainers.BpeTrainer(vocab_size=len(alphabet) * 2 + merges_wanted, special_tokens=[], show_progress=False,
                                  initial_alphabet=alphabet, end_of_word_suffix="</w>")
    backend.train_from_iterator(sorted(set(captions)), trainer)
    merges = json.loads(backend.to_str())["model"]["merges"][:merges_wanted]
    tokens = list(dict.fromkeys([*single, *("".join(pair) for pair in merges), START, END]))
    return json.dumps({"vocab": {token: i for i, token in enumerate(tokens)}, "merges": merges}, ensure_ascii=False)


def read(text: str, length: int) -> CLIPTokenizer:
    """The tokenizer that `learn` described; texts are padded and cut to `length` tokens."""
    stored = json.loads(text)
    return CLIPTokenizer(vocab=stored["vocab"], merges=[tuple(pair) for pair in stored["merges"]],
                         model_max_length=length)


def clean(caption: str) -> str:
    """Text that any tokenizer takes: no lone surrogates, composed, of bounded length."""
    return unicodedata.normalize("NFC", caption.encode("utf-8", "replace").decode())[:LONGEST_PROMPT]
