"""Imports SigLIP's text tower: an ONNX export, and its ``tokenizer.json``.

Texts are put in lower case and filled up to 64 tokens; the tower has no mask, and was trained to
see the padding (X. Zhai et al., "Sigmoid Loss for Language Image Pre-Training", arXiv:2303.15343).
The padding is the end token, which SigLIP's tokenizer calls ``</s>``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from retinue.core.errors import UnsupportedModel
from retinue.models.importers._towers import import_text, one_file, read_tokenizer

LENGTH: Final = 64
PADDING: Final = "</s>"


def _import(files: Mapping[str, Path], output: Path) -> None:
    tokenizer = read_tokenizer(one_file(files, "tokenizer.json"))
    pad = tokenizer.token_to_id(PADDING)
    if pad is None:
        raise UnsupportedModel(f"the tokenizer is not SigLIP's: it has no token {PADDING}")
    import_text(
        one_file(files, ".onnx"),
        tokenizer,
        output,
        ("pooler_output", "text_embeds"),
        length=LENGTH,
        pad_id=pad,
        pad_to_length=True,
        lower=True,
    )


IMPORTER = _import
"""Called with (name inside the package to local file, path of the ONNX file to write)."""
