"""Text models: from a text to the unit vector that pictures' vectors are compared with.

A text model is one ONNX file. Its inputs are "input_ids" and, where it needs it, "attention_mask",
both (N, L) int64; its output is (N, D). Its metadata holds the tokenizer and how it is used (see
`retinue.models._text_file`), so that the file's digest covers all that answers depend on.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NoReturn

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from retinue.core.errors import (
    InvalidRequest,
    ModelCorrupt,
    ModelRunFailed,
    RetinueError,
    UnsupportedModel,
)
from retinue.core.protocols import Runtime
from retinue.core.settings import Execution
from retinue.core.types import Array
from retinue.models._shelf import verify
from retinue.models._text_cards import CARDS
from retinue.models._text_file import (
    IDS,
    MASK,
    OPTIONS_KEY,
    TOKENIZER_KEY,
    TextOptions,
    parse_tokenizer,
)
from retinue.models.card import Card, Family
from retinue.models.registry import Entry

if TYPE_CHECKING:
    from retinue.runtimes.onnxruntime import OnnxRuntime

__all__ = ["MAX_CHARACTERS", "MODEL", "TextEncoder", "load_text"]

MAX_CHARACTERS: Final = 10_000
"""Longest text that is encoded, in characters."""

BATCH: Final = 32
"""Texts that are run together."""


class TextEncoder:
    """A loaded text model: implements `retinue.core.protocols.TextEncoder`; safe for threads."""

    def __init__(self, entry: Entry, *, threads: int = 1) -> None:
        """Open a text model's file, without looking at its digest; see `load_text`.

        Raises:
            ModelCorrupt: it is no ONNX file, or its tokenizer is damaged.
            UnsupportedModel: it has no tokenizer, or other inputs or outputs than a text model.
        """
        # Here, since the catalogue's cards are read without them.
        from retinue.models.importers._towers import read_onnx
        from retinue.runtimes.onnxruntime import OnnxRuntime

        self._card, self._version = entry.card, entry.version
        metadata = {pair.key: pair.value for pair in read_onnx(entry.path).metadata_props}
        if TOKENIZER_KEY not in metadata or OPTIONS_KEY not in metadata:
            raise UnsupportedModel(
                f"{entry.card.name} has no tokenizer in its ONNX file; install it through an "
                "importer of text models, which puts it there"
            )
        try:
            self._tokenizer = parse_tokenizer(metadata[TOKENIZER_KEY])
            self._options = TextOptions(**json.loads(metadata[OPTIONS_KEY]))
        except (ValueError, TypeError) as error:
            raise ModelCorrupt(f"{entry.card.name}: its tokenizer is damaged: {error}") from error
        if self._options.length:
            self._tokenizer.enable_truncation(self._options.length)
        self._closing = threading.Lock()
        self._runtime: OnnxRuntime | None = OnnxRuntime(entry.path, threads=threads)
        try:
            self._takes_mask, self._batch, self._length = self._check(self._runtime)
            self._dim = self._runtime.outputs[0].shape[1]
            if self._dim == -1:
                self._dim = self._run([[self._options.pad_id]]).shape[1]
        except RetinueError:
            self.close()
            raise

    def _check(self, runtime: OnnxRuntime) -> tuple[bool, int, int]:
        """Return whether it takes a mask, its fixed batch and its fixed length; -1 where open."""
        specs = {spec.name: spec for spec in runtime.inputs}
        kinds = {(spec.dtype, len(spec.shape)) for spec in runtime.inputs}
        output = runtime.outputs[0]
        if IDS not in specs or not set(specs) <= {IDS, MASK} or kinds != {("int64", 2)}:
            taken = ", ".join(f"{s.name} {s.dtype} {s.shape}" for s in runtime.inputs)
            message = f"{self.name} takes {taken}, and a text model takes {IDS} (N, L) int64"
            raise UnsupportedModel(f"{message}, and {MASK} if it needs it")
        if output.dtype != "float32" or len(output.shape) != 2:
            message = f"{self.name}: output {output.name!r} is {output.dtype} {output.shape}"
            raise UnsupportedModel(f"{message}, and a text model gives (N, D) float32")
        batch, length = specs[IDS].shape
        if length not in (-1, self._options.length):
            message = f"{self.name} takes {length} tokens, and its tokenizer gives"
            raise UnsupportedModel(f"{message} {self._options.length}")
        return MASK in specs, batch, length

    @property
    def name(self) -> str:
        """Name in the registry."""
        return self._card.name

    @property
    def version(self) -> str:
        """Version in the registry."""
        return self._version

    @property
    def card(self) -> Card:
        """Its card."""
        return self._card

    @property
    def dim(self) -> int:
        """Length of a vector."""
        return self._dim

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector a text.

        Args:
            texts: Each of 1 to 10,000 characters, without the white space around it, which is
                ignored. Tokens beyond the model's own limit are cut off, as its authors do.

        Returns:
            (N, D) float32, in the order of the texts.

        Raises:
            InvalidRequest: a text is empty or too long, or nothing of it is known to the
                vocabulary.
            ModelRunFailed: the engine failed, the vector has no direction, or it is closed.
        """
        rows = [self._tokens(text) for text in texts]
        parts = [self._run(rows[i : i + BATCH]) for i in range(0, len(rows), BATCH)]
        if not parts:
            return np.zeros((0, self._dim), np.float32)
        vectors = np.concatenate(parts).astype(np.float64)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or not norms.all():
            bad = texts[int(np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))[0])]
            raise ModelRunFailed(f"{self.name} gives {bad[:64]!r} a vector without a direction")
        return np.asarray(vectors / norms, np.float32)

    def _tokens(self, text: str) -> list[int]:
        text = text.strip()
        if not text:
            raise InvalidRequest("a text to search for is empty; write what to look for")
        if len(text) > MAX_CHARACTERS:
            raise InvalidRequest(
                f"a text to search for has {len(text)} characters, and at most {MAX_CHARACTERS} "
                "are encoded; shorten it"
            )
        if self._options.lower:
            text = text.lower()
        # One at a time: encode_batch starts threads, which a later fork of the process warns of.
        encoding: Encoding = self._tokenizer.encode(text, add_special_tokens=self._options.special)
        added = encoding.special_tokens_mask
        own = [i for i, mark in zip(encoding.ids, added, strict=True) if not mark]
        if all(token == self._options.unknown_id for token in own):
            message = f"nothing of {text[:64]!r} is known to the vocabulary of {self.name}"
            raise InvalidRequest(f"{message}; use other words")
        ids: list[int] = encoding.ids
        return ids

    def _run(self, rows: list[list[int]]) -> Array:
        """Return (N, D) of rows of token ids of any length."""
        options = self._options
        full = options.pad_to_length or self._length != -1
        width = options.length if full else max(map(len, rows))
        ids = np.full((len(rows), width), options.pad_id, np.int64)
        mask = np.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
            mask[at, : len(row)] = 1
        step = self._batch if self._batch != -1 else len(rows)
        parts = [self._run_fixed(ids[i : i + step], mask[i : i + step], step)
                 for i in range(0, len(rows), step)]  # fmt: skip
        return np.concatenate(parts)

    def _run_fixed(self, ids: NDArray[np.int64], mask: NDArray[np.int64], size: int) -> Array:
        runtime, count = self._runtime, len(ids)
        if runtime is None:
            raise ModelRunFailed(f"text model {self.name} is closed")
        fill = [(0, size - count), (0, 0)]
        tensors: dict[str, Array] = {IDS: np.pad(ids, fill, "edge")}
        if self._takes_mask:
            tensors[MASK] = np.pad(mask, fill, "edge")
        return runtime.run(tensors)[runtime.outputs[0].name][:count]

    def close(self) -> None:
        """Give back its memory. May be called twice."""
        with self._closing:
            runtime, self._runtime = self._runtime, None
        if runtime is not None:
            runtime.close()


def load_text(entry: Entry, execution: Execution) -> TextEncoder:
    """Load a text model, to be run by ONNX Runtime in this process.

    A text takes milliseconds at most and comes once a query, so that neither a queue nor another
    runtime serves it.

    Args:
        entry: What the registry knows of it; its file's digest is checked first.
        execution: ``threads`` is used, nothing else.

    Raises:
        ModelCorrupt: the file is missing, damaged, or does not have the entry's digest.
        UnsupportedModel: it is no text model, or has operators that the engine lacks.
    """
    if entry.card.task != "text":
        raise UnsupportedModel(f"{entry.card.name} is for {entry.card.task}; it takes no texts")
    verify(entry)
    return TextEncoder(entry, threads=execution.threads)


def _build(card: Card, version: str, runtime: Runtime) -> NoReturn:
    raise UnsupportedModel(
        f"{card.name} is a text model: it takes texts, not pictures; name it as the text model of "
        "an embedding model's card (text = ...), which is then searched by text"
    )


MODEL: Final = Family(build=_build, cards=CARDS)
