"""Imports the text tower of CLIP or OpenCLIP: an ONNX export, and its tokenizer.

The tokenizer is ``tokenizer.json``, or ``vocab.json`` and ``merges.txt``, from which it is built:
white space is joined, letters are put in lower case, words and single digits are split from one
another, and each is merged from bytes; ``<|startoftext|>`` and ``<|endoftext|>`` are put around
(https://github.com/openai/CLIP, ``clip/simple_tokenizer.py``, but for its repair of broken
Unicode). Texts are cut off at 77 tokens. The export itself pools at the first end token, so that
rows are padded with it, or with 0 where they go on to the full length: attention is causal, and
what comes after the end changes nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.models.importers._towers import import_text, one_file, read_tokenizer

LENGTH: Final = 77
START: Final = "<|startoftext|>"
END: Final = "<|endoftext|>"
WORDS: Final = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


def build_tokenizer(vocabulary: Mapping[str, int], merges: list[tuple[str, str]]) -> Tokenizer:
    """Return CLIP's tokenizer.

    Args:
        vocabulary: Token to id; with `START` and `END`.
        merges: Pairs of tokens, the first merged first.

    Raises:
        UnsupportedModel: the vocabulary is not CLIP's, or the merges are another's.
    """
    if START not in vocabulary or END not in vocabulary:
        raise UnsupportedModel(f"the vocabulary is not CLIP's: it lacks {START} or {END}")
    try:
        model = models.BPE(
            dict(vocabulary),
            merges,
            unk_token=END,
            end_of_word_suffix="</w>",
            continuing_subword_prefix="",
        )
    except Exception as error:  # the library raises plain Exception for whatever is wrong
        raise UnsupportedModel(f"the merges do not fit the vocabulary: {error}") from error
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}",
        special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])],
    )
    return tokenizer


def _tokenizer(files: Mapping[str, Path]) -> Tokenizer:
    if any(name.endswith("tokenizer.json") for name in files):
        return read_tokenizer(one_file(files, "tokenizer.json"))
    words, lines = one_file(files, "vocab.json"), one_file(files, "merges.txt")
    try:
        vocabulary: Any = json.loads(words.read_text("utf-8"))
        pairs = [tuple(line.split(" ")) for line in lines.read_text("utf-8").splitlines()]
    except ValueError as error:
        raise ModelCorrupt(f"the vocabulary cannot be read: {error}") from error
    # The first line of merges.txt may be a comment, which has more words or fewer.
    merges = [(pair[0], pair[1]) for pair in pairs if len(pair) == 2 and pair[0] != "#version:"]
    if not isinstance(vocabulary, dict):
        raise ModelCorrupt("vocab.json is not a table of tokens and ids")
    return build_tokenizer(vocabulary, merges)


def _import(files: Mapping[str, Path], output: Path) -> None:
    tokenizer = _tokenizer(files)
    end = tokenizer.token_to_id(END)
    if end is None:
        raise UnsupportedModel(f"the tokenizer is not CLIP's: it has no token {END}")
    import_text(
        one_file(files, ".onnx"),
        tokenizer,
        output,
        ("text_embeds", "embedding", "text_features"),
        length=LENGTH,
        pad_id=end,
    )


IMPORTER = _import
"""Called with (name inside the package to local file, path of the ONNX file to write)."""
