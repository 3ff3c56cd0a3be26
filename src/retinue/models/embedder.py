"""Embedding models: networks whose answer is a feature vector, to search by.

A network may give, beside its vector, features of patches ("tokens") and a vector that a text
model's vectors compare with ("semantic").
"""

from __future__ import annotations

from math import isqrt
from typing import Final

import numpy as np

from retinue.core.errors import ConfigError, ModelRunFailed
from retinue.core.protocols import Runtime
from retinue.core.types import Array, Embedding, Outcome, Prepared, Tensors, TensorSpec
from retinue.models.base import Floats, VisionModel, find_output
from retinue.models.card import Card, Family, Output
from retinue.models.efficientnet_lite import EFFICIENTNET_LITE0

LAYOUT: Final = "embedder"
VECTOR: Final = "embedding"
TOKENS: Final = "tokens"
SEMANTIC: Final = "semantic"


class Embedder(VisionModel):
    """One output (N, D) called "embedding", or the only one of that rank, becomes the vector.

    An output "tokens", (N, T, C), holds C features of each patch of a square grid, in reading
    order; their signs are kept, one bit each. An output "semantic" is (N, E).
    """

    def __init__(self, card: Card, version: str, runtime: Runtime) -> None:
        """Bind a card to its loaded weights.

        Raises:
            ConfigError: no output, or more than one, may be the vector; or the tokens are no
                square grid, or not a multiple of 8 features each.
        """
        super().__init__(card, version, runtime)
        named = {spec.name: spec for spec in runtime.outputs}
        flat = [
            s for s in runtime.outputs if len(s.shape) == 2 and s.name not in (TOKENS, SEMANTIC)
        ]
        called = [spec for spec in flat if spec.name == VECTOR]
        fits = called or (flat if len(flat) == 1 else [])
        wanted = f"one (N, D) output, or one of several that is called {VECTOR!r}"
        self._vector = find_output(card, runtime, wanted, fits).name
        self._tokens = self._optional(named.get(TOKENS), 3)
        self._semantic = self._optional(named.get(SEMANTIC), 2)
        if self._tokens and (shape := named[TOKENS].shape)[1] != -1:
            self._grid(shape[1])
        if self._tokens and shape[2] != -1:
            self._check_width(shape[2])

    def _optional(self, spec: TensorSpec | None, rank: int) -> bool:
        if spec is not None and len(spec.shape) != rank:
            raise ConfigError(
                f"model card {self.name}: output {spec.name!r} is {spec.shape}, and {rank} "
                "dimensions are expected; rename it, or correct the network"
            )
        return spec is not None

    def _grid(self, count: int) -> tuple[int, int]:
        side = isqrt(count)
        if side * side != count or not count:
            message = f"model card {self.name}: {count} tokens are no square grid"
            raise ConfigError(f"{message}; leave out those that are no patches")
        return side, side

    def _check_width(self, width: int) -> None:
        if width % 8 or not width:
            message = f"model card {self.name}: a token has {width} features"
            raise ConfigError(f"{message}, and their signs fill no whole bytes; need 8, 16, ...")

    def decode(self, prepared: Prepared, outputs: Tensors) -> Outcome:
        """Return an `Embedding` of unit vectors.

        Raises:
            ConfigError: the tokens are no square grid, or not a multiple of 8 features each.
            ModelRunFailed: a vector is zero, and so has no direction.
        """
        vector = self._unit(outputs, self._vector)
        semantic = self._unit(outputs, SEMANTIC) if self._semantic else None
        if not self._tokens:
            return Outcome(Embedding(vector, semantic=semantic))
        features = outputs[TOKENS]
        self._check_width(features.shape[1])
        grid = self._grid(len(features))
        return Outcome(Embedding(vector, np.packbits(features > 0, axis=1), grid, semantic))

    def _unit(self, outputs: Tensors, name: str) -> Floats:
        unit = unit_vector(outputs[name])
        if unit is None:
            message = f"{self.name}: output {name!r} is all zeros for this input"
            raise ModelRunFailed(f"{message}: it has no direction, and nothing can be near it")
        return unit


def unit_vector(values: Array) -> Floats | None:
    """Return a finite (D,) vector as float32 of length 1; None where it is all zeros."""
    exact = values.astype(np.float64)
    # By the largest first: the squares of neither huge nor tiny values leave float64's range.
    largest = np.abs(exact).max(initial=0.0)
    if largest == 0:
        return None
    exact /= largest
    return np.asarray(exact / np.linalg.norm(exact), np.float32)


EFFICIENTNET_LITE0_SEARCH: Final = Card(
    name="efficientnet-lite0-search",
    task="embed",
    family="embedder",
    summary="256-d embedding, 7 x 7 tokens of 128 bits, and a vector for texts, at 224 x 224",
    license=EFFICIENTNET_LITE0.license,
    homepage=EFFICIENTNET_LITE0.homepage,
    source=EFFICIENTNET_LITE0.source.model_copy(update={"importer": "efficientnet_search"}),
    input=EFFICIENTNET_LITE0.input,
    output=Output(layout=LAYOUT),
    text="wordllama-text",
    examples=("retinue models pull efficientnet-lite0-search",),
)

MODEL: Final = Family(build=Embedder, cards=(EFFICIENTNET_LITE0_SEARCH,), layouts=(LAYOUT,))
