"""An exam: several models answer the same pictures, one by one, and are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from retinue.calibrate.samples import Sample
from retinue.core.errors import InputError, InvalidRequest, ModelRunFailed, RetinueError
from retinue.core.protocols import Model
from retinue.core.settings import Limits
from retinue.core.types import Array, Detections, Embedding, Outcome, Prepared, Scores
from retinue.measure.agreement import agreement, telling
from retinue.measure.detection import Truth
from retinue.measure.paired import Interval, Paired, paired_map, paired_mean
from retinue.media.decode import decode
from retinue.models.card import Card
from retinue.models.fetch import Progress, Quiet

Metric: TypeAlias = Literal["map", "top1", "cosine", "agreement"]

METRICS: Final[dict[str, tuple[Metric, ...]]] = {
    "detect": ("map", "agreement"),
    "classify": ("top1", "cosine", "agreement"),
    "embed": ("cosine", "agreement"),
}
"""By task; of those that need no labels the first one is taken when there are none."""

NEEDS: Final[dict[str, str]] = {"map": "boxes", "top1": "classes"}
"""What the pictures must be labelled with."""

UNLABELLED: Final[tuple[Metric, ...]] = ("cosine", "agreement")
"""Metrics that measure against the first model, for want of labels."""

CACHE_BYTES = 2**29
"""Memory for pictures that are ready to be run."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Sitting:
    """One model's answers.

    Attributes:
        model: "NAME@VERSION".
        outcomes: One for each picture of the exam, in order.
        failures: (name, reason) of the pictures that the model gave no answer to.
    """

    model: str
    outcomes: tuple[Outcome, ...]
    failures: tuple[tuple[str, str], ...]


class Exam:
    """Pictures to compare models by, and the metric to do it with.

    - "map": COCO's mean average precision (IoU .50:.95); the pictures need boxes.
    - "top1": share of right classes; the pictures need classes.
    - "cosine": mean cosine of the answer's vector with the first model's, for classifiers and
      embedders; no labels are needed.
    - "agreement": mean of `retinue.measure.agreement` with the first model, over the pictures in
      which either finds anything; no labels are needed.

    For the last two the first model is its own measure and has 1.

    A picture is decoded and preprocessed once for all models whose cards ask for the same input,
    as far as `CACHE_BYTES` of memory last. A picture that cannot be read is left out for all; one
    that a model fails on counts as answered wrongly by it.

    Attributes:
        samples: The pictures: those with the label that the metric needs.
        metric: The metric.
        unreadable: (name, reason) of the pictures that are left out; known after a sitting.
    """

    def __init__(
        self, samples: Sequence[Sample], metric: str = "", *, card: Card, limits: Limits
    ) -> None:
        """Choose the metric; nothing is read yet.

        Args:
            samples: The pictures.
            metric: "map", "top1", "cosine", "agreement"; "" for what task and labels allow.
            card: Of the models that are to be examined.
            limits: What a decoder may be given.

        Raises:
            InvalidRequest: the metric does not fit the task or the labels.
            InputError: there are no pictures, or no box on any.
        """
        if not samples:
            raise InputError("no picture to measure with; give a larger data set")
        self.metric: Metric = _choose(metric, samples, card)
        self.samples = tuple(sample for sample in samples if _fits(sample, self.metric))
        if self.metric == "map" and not any(len(s.boxes.xyxy) for s in self.samples if s.boxes):
            raise InputError("the labels hold no box at all, so that mAP does not exist")
        self.unreadable: tuple[tuple[str, str], ...] = ()
        self._limits = limits
        self._refused: dict[int, str] = {}
        self._sizes: dict[int, tuple[int, int]] = {}
        self._rows: dict[tuple[object, int], Prepared] = {}
        self._held = 0

    def sit(self, model: Model, progress: Progress | None = None) -> Sitting:
        """Let a model answer every picture, one at a time, as it would answer requests.

        Args:
            model: The model.
            progress: Hears of each picture.

        Raises:
            InputError: no picture can be read.
            ModelRunFailed: the model fails on every one.
        """
        heard = progress or Quiet()
        name = f"{model.name}@{model.version}"
        heard.start(f"{name} answers", len(self.samples))
        outcomes = []
        for index in range(len(self.samples)):
            outcomes.append(self._answer(model, index))
            heard.advance(1)
        heard.finish()
        self.unreadable = tuple((self.samples[i].name, r) for i, r in self._refused.items())
        if len(self.unreadable) == len(self.samples):
            picture, reason = self.unreadable[0]
            raise InputError(f"no picture can be read; the first is {picture}: {reason}")
        failures = tuple(
            (self.samples[i].name, error.message)
            for i in self.readable
            if (error := outcomes[i].error) is not None
        )
        if len(failures) == len(self.readable):
            picture, reason = failures[0]
            message = f"{name} fails on every picture; on the first, {picture}: {reason}"
            raise ModelRunFailed(message)
        return Sitting(name, tuple(outcomes), failures)

    def compare(self, a: Sitting, b: Sitting) -> Paired:
        """Compare two sittings by the metric, in [0, 1]; the difference is b - a."""
        if self.metric == "map":
            found = [[_detections(side.outcomes[i]) for i in self.readable] for side in (a, b)]
            return paired_map(found[0], found[1], self._truths())
        if self.metric == "top1":
            return paired_mean(self._right(a), self._right(b))
        if self.metric == "agreement":
            return self._agreement(a, b)
        pairs = ((a.outcomes[i], b.outcomes[i]) for i in self.readable)
        return self._with_first(np.array([_cosine(*pair) for pair in pairs]))

    def agreements(self, a: Sitting, b: Sitting) -> Floats:
        """Return (N,) float64: how far they agree on each of `readable`, in [0, 1]."""
        pairs = ((a.outcomes[i], b.outcomes[i]) for i in self.readable)
        return np.array([agreement(*pair) for pair in pairs])

    def telling(self, a: Sitting, b: Sitting) -> NDArray[np.bool_]:
        """Return (N,): whether the answers to each of `readable` tell anything, found or not."""
        return np.array([telling(a.outcomes[i], b.outcomes[i]) for i in self.readable], bool)

    def agreement(self, a: Sitting, b: Sitting) -> Interval:
        """Return the mean agreement and its interval, over the pictures that tell anything.

        Where none does, it is 1.
        """
        return self._agreement(a, b).b

    def _agreement(self, a: Sitting, b: Sitting) -> Paired:
        figures, some = self.agreements(a, b), self.telling(a, b)
        return self._with_first(figures[some] if some.any() else figures)

    @property
    def readable(self) -> list[int]:
        """Indices of the samples that can be read, as far as is known, in order."""
        return [i for i in range(len(self.samples)) if i not in self._refused]

    def prepared(self, model: Model, index: int) -> Prepared:
        """Return a picture's rows for a model, from memory if they are there.

        Args:
            model: Whose preprocessing is used.
            index: Of ``samples``.

        Raises:
            RetinueError: the picture cannot be read, or its labels are not of it.
        """
        key = (model.card.input, tuple(spec.name for spec in model.runtime.inputs)), index
        found = self._rows.get(key)
        if found is not None:
            return found
        sample = self.samples[index]
        image = decode(sample.read(), limits=self._limits, target=model.decode_size)
        if index not in self._sizes:
            if sample.boxes is not None:
                sample.boxes.truth(image.width, image.height)
            self._sizes[index] = image.width, image.height
        made = model.preprocess(image)
        size = sum(array.nbytes for array in made.tensors.values())
        if self._held + size <= CACHE_BYTES:
            self._rows[key] = made
            self._held += size
        return made

    def _answer(self, model: Model, index: int) -> Outcome:
        try:
            prepared = self.prepared(model, index)
        except RetinueError as error:
            self._refused[index] = error.message
            return Outcome(error=error)
        try:
            (outputs,) = model.run([prepared.tensors])
        except RetinueError as error:
            return Outcome(error=error)
        return model.postprocess(prepared, outputs)

    def _truths(self) -> list[Truth]:
        truths = []
        for index in self.readable:
            boxes = self.samples[index].boxes
            assert boxes is not None
            truths.append(boxes.truth(*self._sizes[index]))
        return truths

    def _right(self, sitting: Sitting) -> Floats:
        classes = [self.samples[i].class_id for i in self.readable]
        answers = [_best(sitting.outcomes[i]) for i in self.readable]
        return np.array([a == c for a, c in zip(answers, classes, strict=True)], np.float64)

    def _with_first(self, figures: Floats) -> Paired:
        return paired_mean(np.ones(len(figures)), figures)


def _choose(metric: str, samples: Sequence[Sample], card: Card) -> Metric:
    of_task = METRICS.get(card.task)
    if of_task is None:
        raise InvalidRequest(
            f"model {card.name} is for {card.task}, which has no metric here; models that "
            f"{', '.join(METRICS)} can be compared and quantised"
        )
    possible = [m for m in of_task if any(_fits(sample, m) for sample in samples)]
    if not metric:
        return possible[0]
    if metric not in of_task:
        offered = ", ".join(of_task)
        message = f"metric {metric!r} does not exist for models that {card.task}"
        raise InvalidRequest(f"{message}; there are: {offered}")
    if metric not in possible:
        raise InvalidRequest(
            f"metric {metric!r} needs pictures labelled with {NEEDS[metric]}, which these are not; "
            f"possible: {', '.join(possible)}"
        )
    return next(m for m in of_task if m == metric)


def _fits(sample: Sample, metric: str) -> bool:
    label = {"boxes": sample.boxes, "classes": sample.class_id}.get(NEEDS.get(metric, ""), 0)
    return label is not None


def _detections(outcome: Outcome) -> Detections:
    if isinstance(outcome.value, Detections):
        return outcome.value
    empty = np.zeros(0, np.float32)
    return Detections(empty.reshape(0, 4), empty, np.zeros(0, np.int64))


def _best(outcome: Outcome) -> int:
    return int(outcome.value.values.argmax()) if isinstance(outcome.value, Scores) else -1


def _vector(outcome: Outcome) -> Array | None:
    match outcome.value:
        case Scores(values=vector) | Embedding(vector=vector):
            return vector.astype(np.float64)
    return None


def _cosine(a: Outcome, b: Outcome) -> float:
    """Return the cosine of two answers' vectors; 0 where there are not two of one length."""
    p, q = _vector(a), _vector(b)
    if p is None or q is None or p.shape != q.shape:
        return 0.0
    norms = float(np.linalg.norm(p) * np.linalg.norm(q))
    return float(p @ q) / norms if norms > 0 else float(np.array_equal(p, q))
