"""Quick looks at variants: how much faster than the model is now, and how much like it."""

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
from retinue.core.errors import InputError, RetinueError
from retinue.core.protocols import Model
from retinue.core.settings import Execution, Limits
from retinue.core.types import Array, Outcome, Prepared, Tensors
from retinue.measure.agreement import agreement, telling
from retinue.media.decode import decode
from retinue.models.card import RunWith
from retinue.models.fetch import sha256_of
from retinue.models.loading import load_model
from retinue.models.registry import Entry

LOOKED_AT = 32
"""Pictures of a quick look."""
_FAINT = 0.05
"""Score from which detections count: faint ones differ long before confident ones are lost."""
_ROUNDS = 9
_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Look:
    """What a quick look tells.

    Attributes:
        ms: Milliseconds of one run, in the best round: whatever else runs only ever slows it.
        speedup: How many times as fast as the model is now, in its best round.
        agreement: Mean agreement with the model as it is now, in [0, 1]; of detections, faint ones
            count too.
        snr_db: Signal to noise of the outputs, against the model as it is now.
    """

    ms: float
    speedup: float
    agreement: float
    snr_db: float

    @property
    def likeness(self) -> tuple[float, float]:
        """How much like the model it is, to be compared: by answers, then by noise."""
        return round(self.agreement, 2), self.snr_db


class Bench:
    """The model as it is served now, and the means to hold variants against it."""

    def __init__(self, entry: Entry, execution: Execution, model: Model) -> None:
        """Take the model and how it is executed; `model` is it, loaded."""
        self.entry = entry
        self.model = model
        self._execution = execution
        self._shown: list[Prepared] = []
        self._reference: list[dict[str, Array]] = []
        self._answers: list[Outcome] = []

    def show(self, samples: Sequence[Sample], limits: Limits) -> None:
        """Choose the pictures of the quick looks.

        Raises:
            InputError: the model takes none of them.
            ModelRunFailed: the model fails on one.
        """
        self._shown = list(islice(pictures(self.model, samples, limits), LOOKED_AT))
        self._reference = [self.model.run([row])[0] for row in self.rows]
        if not self._shown:
            raise InputError(f"{self.entry.card.name} takes none of the {len(samples)} pictures")
        pairs = zip(self._shown, self._reference, strict=True)
        self._answers = [self.model.postprocess(*pair) for pair in pairs]

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
        outputs = [model.run([row])[0] for row in self.rows]
        pairs = zip(self._shown, outputs, strict=True)
        answers = [model.postprocess(*pair) for pair in pairs]
        both = zip(self._answers, answers, strict=True)
        alike = [agreement(*p, conf=_FAINT) for p in both if telling(*p, conf=_FAINT)]
        pair = {"now": self.model, "variant": model}
        speed = race(pair, self.rows, rounds=_ROUNDS, seconds=_SECONDS)
        now, ms = (min(speed.rounds[name]) for name in ("now", "variant"))
        noise = snr_db(self._reference, outputs)
        return Look(ms, now / ms, float(np.mean(alike)) if alike else 1.0, noise)

    def noise(self, model: Model, number: int) -> float:
        """Return `snr_db` of a variant's outputs on the first so many pictures."""
        rows = self.rows[:number]
        return snr_db(self._reference[:number], [model.run([row])[0] for row in rows])

    @property
    def rows(self) -> list[Tensors]:
        """Inputs of the quick looks, without the batch dimension."""
        return [prepared.tensors for prepared in self._shown]


def pictures(model: Model, samples: Sequence[Sample], limits: Limits) -> Iterator[Prepared]:
    """Yield pictures made ready for a model, as they are asked for, without those that fail."""
    for sample in samples:
        try:
            image = decode(sample.read(), limits=limits, target=model.decode_size)
            prepared = model.preprocess(image)
        except RetinueError:
            continue
        yield prepared


def feeds(model: Model, samples: Sequence[Sample], limits: Limits) -> Feeds:
    """Return what gives some of the pictures, evenly chosen, as inputs of the network."""
    batch = max(model.runtime.inputs[0].shape[0], 1)

    def some(number: int) -> Iterator[dict[str, Array]]:
        places = np.linspace(0, len(samples) - 1, min(number, len(samples))).round().astype(int)
        for prepared in pictures(model, [samples[i] for i in places], limits):
            rows = prepared.tensors
            yield {name: np.repeat(row[None], batch, axis=0) for name, row in rows.items()}

    return some
