"""Quick looks at variants: how much faster than the model is now, and how noisy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from retinue.calibrate.samples import Sample
from retinue.calibrate.sensitivity import snr_db
from retinue.calibrate.speed import race
from retinue.calibrate.variants import Feeds
from retinue.core.errors import RetinueError
from retinue.core.protocols import Model
from retinue.core.settings import Execution, Limits
from retinue.core.types import Array, Tensors
from retinue.media.decode import decode
from retinue.models.card import RunWith
from retinue.models.fetch import sha256_of
from retinue.models.loading import load_model
from retinue.models.registry import Entry

LOOKED_AT = 16
"""Pictures of a quick look."""
_ROUNDS = 5
_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Look:
    """What a quick look tells.

    Attributes:
        ms: Milliseconds of one run.
        speedup: How many times as fast as the model is now.
        snr_db: Signal to noise of the outputs, against the model as it is now.
    """

    ms: float
    speedup: float
    snr_db: float


class Bench:
    """The model as it is served now, and the means to hold variants against it."""

    def __init__(self, entry: Entry, execution: Execution, model: Model) -> None:
        """Take the model and how it is executed; `model` is it, loaded."""
        self.entry = entry
        self.model = model
        self._execution = execution.model_copy(update={"isolate": False})
        self._rows: list[Tensors] = []
        self._reference: list[dict[str, Array]] = []

    def show(self, samples: Sequence[Sample], limits: Limits) -> None:
        """Choose the pictures of the quick looks.

        Raises:
            InputError: one cannot be read.
            ModelRunFailed: the model fails on one.
        """
        self._rows = list(islice(rows(self.model, samples, limits), LOOKED_AT))
        self._reference = [self.model.run([row])[0] for row in self._rows]

    @contextmanager
    def loaded(self, path: Path, run_with: RunWith) -> Iterator[Model]:
        """Load weights as a version of the model that is run so.

        Raises:
            RetinueError: whatever `load_model` raises.
        """
        card = self.entry.card.model_copy(update={"run_with": run_with})
        digest = sha256_of(path)
        candidate = Entry(card, digest[:12], path, digest, path.stat().st_size)
        execution = self._execution
        if run_with.runtime != execution.runtime:
            # A device's name means something to its own runtime alone.
            execution = execution.model_copy(update={"device": ""})
        model = load_model(candidate, execution)
        try:
            yield model
        finally:
            model.close()

    def look(self, model: Model) -> Look:
        """Take a quick look at a variant.

        Raises:
            ModelRunFailed: it fails.
        """
        noise = self.noise(model, len(self._rows))
        pair = {"now": self.model, "variant": model}
        speed = race(pair, self._rows, rounds=_ROUNDS, seconds=_SECONDS)
        return Look(speed.ms["variant"].median, speed.ratio("now", "variant").median, noise)

    def noise(self, model: Model, pictures: int) -> float:
        """Return `snr_db` of a variant's outputs on the first pictures."""
        chosen = self._rows[:pictures]
        return snr_db(self._reference[:pictures], [model.run([row])[0] for row in chosen])

    @property
    def rows(self) -> list[Tensors]:
        """Inputs of the quick looks, without the batch dimension."""
        return self._rows


def rows(model: Model, samples: Sequence[Sample], limits: Limits) -> Iterator[Tensors]:
    """Yield the input rows of pictures, read as they are asked for, without those that fail."""
    for sample in samples:
        try:
            image = decode(sample.read(), limits=limits, target=model.decode_size)
            row = model.preprocess(image).tensors
        except RetinueError:
            continue
        yield row


def feeds(model: Model, samples: Sequence[Sample], limits: Limits) -> Feeds:
    """Return what gives some of the pictures, evenly chosen, as inputs of the network."""
    batch = max(model.runtime.inputs[0].shape[0], 1)

    def some(number: int) -> Iterator[dict[str, Array]]:
        places = np.linspace(0, len(samples) - 1, min(number, len(samples))).round().astype(int)
        for row in rows(model, [samples[i] for i in places], limits):
            yield {name: np.repeat(array[None], batch, axis=0) for name, array in row.items()}

    return some
