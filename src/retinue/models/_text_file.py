"""What is in a text model's file beside the network: the tokenizer, and how it is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tokenizers import Tokenizer

IDS: Final = "input_ids"
MASK: Final = "attention_mask"

TOKENIZER_KEY: Final = "retinue.tokenizer"
OPTIONS_KEY: Final = "retinue.text"
"""Keys of an ONNX file's metadata: the tokenizer's JSON, and `TextOptions` as JSON."""


@dataclass(frozen=True, slots=True)
class TextOptions:
    """How texts become token ids.

    Attributes:
        length: Most tokens of a text, with the special ones; 0 for no limit. The rest is cut off.
        pad_id: What fills the rows of shorter texts.
        pad_to_length: Whether every row is filled up to ``length``, or to the batch's longest.
        lower: Whether texts are put in lower case first.
        special: Whether the tokenizer adds its special tokens.
        unknown_id: The token of what the vocabulary does not have; -1 for none.
    """

    length: int
    pad_id: int
    pad_to_length: bool = False
    lower: bool = False
    special: bool = True
    unknown_id: int = -1


def parse_tokenizer(text: str) -> Tokenizer:
    """Return the tokenizer of a JSON text.

    Raises:
        ValueError: it is none.
    """
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception for whatever is wrong
        raise ValueError(str(error)) from error
