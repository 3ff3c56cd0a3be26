"""Exams: metrics, failures, and what is done once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from retinue.calibrate import evaluate
from retinue.calibrate.evaluate import Exam
from retinue.calibrate.samples import Boxes, Sample
from retinue.core.errors import InputError, InvalidRequest, ModelRunFailed, RetinueError
from retinue.core.protocols import Model
from retinue.core.settings import Limits
from retinue.core.types import Array, Detections, Embedding, Outcome, Prepared, Scores, Tensors
from retinue.measure.detection import Truth, coco_map
from retinue.media.encode import encode_png
from retinue.models.card import Card, Input, Output, Source
from retinue.testing.models import FakeModel, FakeRuntime, numbered

LIMITS = Limits()
CLASSES = ("red", "green", "blue")
Answer = Callable[[int], Outcome]


def card(task: str, mean: float = 0.0) -> Card:
    return Card.model_validate(
        {
            "name": "fake",
            "task": task,
            "family": "yolo",
            "license": "Apache-2.0",
            "source": Source(url="file:///m.onnx", files={"m.onnx": "0" * 64}),
            "input": Input(height=8, width=8, mean=(mean, mean, mean)),
            "output": Output(layout="yolov8"),
            "classes": CLASSES,
        }
    )


class Told(FakeModel):
    """A model whose answer to a picture's number is told."""

    def __init__(self, answer: Answer, of: Card, runtime: FakeRuntime | None = None) -> None:
        super().__init__(runtime, version="1")
        self.answer = answer
        self.card = of
        self.preprocessed: Counter[int] = Counter()

    def preprocess(self, image: Any) -> Prepared:
        prepared = super().preprocess(image)
        assert isinstance(prepared.context, int)
        self.preprocessed[prepared.context] += 1
        return prepared

    def run(self, batch: Sequence[Tensors]) -> list[dict[str, Array]]:
        assert len(batch) == 1
        return super().run(batch)

    def postprocess(self, prepared: Prepared, outputs: Tensors) -> Outcome:
        assert isinstance(prepared.context, int)
        return self.answer(prepared.context)


def pictures(number: int, **labels: Any) -> list[Sample]:
    """Return pictures 0, 1, 2, ...; a label may be a function of the number."""
    contents = [encode_png(numbered(i, width=40, height=20).pixels) for i in range(number)]
    return [
        Sample(f"{i}", partial(bytes, content), **{k: v(i) for k, v in labels.items()})
        for i, content in enumerate(contents)
    ]


def box_of(number: int) -> Boxes:
    xyxy = np.array([[0.1, 0.1, 0.5, 0.5 + number / 100]])
    return Boxes(xyxy, np.array([number % 3]), True, np.zeros(1, bool))


def detections(number: int, shift: float = 0.0) -> Outcome:
    truth = box_of(number).truth(40, 20)
    boxes = (truth.boxes + shift).astype(np.float32)
    return Outcome(Detections(boxes, np.array([0.9], np.float32), truth.class_ids))


def scores(best: int, sure: float = 0.8) -> Outcome:
    values = np.full(3, (1 - sure) / 2, np.float32)
    values[best] = sure
    return Outcome(Scores(values))


def failure(number: int) -> Outcome:
    return Outcome(error=ModelRunFailed(f"no answer to {number}"))


def test_map_is_cocos() -> None:
    exam = Exam(pictures(12, boxes=box_of), card=card("detect"), limits=LIMITS)
    assert exam.metric == "map"

    def second(number: int) -> Outcome:
        return detections(number, shift=4.0 if number % 2 else 0.0)

    a = exam.sit(Told(detections, card("detect")))
    b = exam.sit(Told(second, card("detect")))
    paired = exam.compare(a, b)
    assert paired.a.value == pytest.approx(1.0)
    truths = [box_of(i).truth(40, 20) for i in range(12)]
    pairs: list[tuple[Any, Truth]] = [(second(i).value, t) for i, t in enumerate(truths)]
    assert paired.b.value == pytest.approx(coco_map(pairs).map, abs=1e-6)
    assert paired.difference.low < 0
    assert exam.agreement(a, a).value == 1.0
    assert 0 < exam.agreement(a, b).value < 1
    assert exam.agreements(a, b).shape == (12,)


def test_top1() -> None:
    samples = pictures(10, class_id=lambda i: i % 3)
    exam = Exam(samples, card=card("classify"), limits=LIMITS)
    a = exam.sit(Told(lambda i: scores(i % 3), card("classify")))
    b = exam.sit(Told(lambda i: scores(i % 3) if i < 6 else scores((i + 1) % 3), card("classify")))
    paired = exam.compare(a, b)
    assert (paired.a.value, paired.b.value) == (1.0, pytest.approx(0.6))
    assert paired.images == 10


def test_cosine_and_agreement_need_no_labels() -> None:
    exam = Exam(pictures(4), card=card("embed"), limits=LIMITS)
    assert exam.metric == "cosine"
    rows = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], np.float32)
    a = exam.sit(Told(lambda i: Outcome(Embedding(rows[i])), card("embed")))
    b = exam.sit(Told(lambda i: Outcome(Embedding(rows[0])), card("embed")))
    assert exam.compare(a, a).b.value == 1.0
    paired = exam.compare(a, b)
    assert paired.a.value == 1.0
    assert paired.b.value == pytest.approx((1 + 0 + 0.5**0.5 + 0) / 4)
    exam = Exam(pictures(4), card=card("detect"), limits=LIMITS)
    assert exam.metric == "agreement"
    a = exam.sit(Told(detections, card("detect")))
    b = exam.sit(Told(lambda i: detections(i, 30.0 * (i == 0)), card("detect")))
    assert exam.compare(a, b).b.value == 0.75


@pytest.mark.parametrize(
    ("task", "metric", "labels", "words"),
    [
        ("detect", "top1", {}, ("does not exist", "map, agreement")),
        ("detect", "cosine", {}, ("does not exist", "map, agreement")),
        ("detect", "map", {}, ("labelled with boxes", "possible: agreement")),
        ("detect", "map", {"class_id": lambda i: 0}, ("labelled with boxes",)),
        ("classify", "top1", {}, ("labelled with classes", "possible: cosine, agreement")),
        ("embed", "map", {}, ("does not exist", "cosine, agreement")),
        ("detect", "auc", {}, ("'auc' does not exist",)),
    ],
)
def test_a_metric_that_does_not_fit(
    task: str, metric: str, labels: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(InvalidRequest) as error:
        Exam(pictures(2, **labels), metric, card=card(task), limits=LIMITS)
    assert all(word in error.value.message for word in words)


def test_only_labelled_pictures_count() -> None:
    samples = [*pictures(3, boxes=box_of), *pictures(5)]
    assert len(Exam(samples, "map", card=card("detect"), limits=LIMITS).samples) == 3
    assert len(Exam(samples, "agreement", card=card("detect"), limits=LIMITS).samples) == 8


def test_nothing_to_measure_with() -> None:
    with pytest.raises(InputError, match="no picture"):
        Exam([], card=card("detect"), limits=LIMITS)
    none = Boxes(np.zeros((0, 4)), np.zeros(0, np.int64), True, np.zeros(0, bool))
    with pytest.raises(InputError, match="no box at all"):
        Exam(pictures(2, boxes=lambda i: none), card=card("detect"), limits=LIMITS)


def test_a_picture_that_cannot_be_read_is_left_out_for_all() -> None:
    samples = pictures(6, boxes=box_of)
    samples[1] = replace(samples[1], read=partial(bytes, b"hello"))
    beyond = Boxes(np.array([[90.0, 0, 99, 9]]), np.array([0]), False, np.zeros(1, bool))
    samples[4] = replace(samples[4], boxes=beyond)
    exam = Exam(samples, card=card("detect"), limits=LIMITS)
    a = exam.sit(Told(detections, card("detect")))
    assert [name for name, _ in exam.unreadable] == ["1", "4"]
    assert a.failures == ()
    assert exam.readable == [0, 2, 3, 5]
    assert exam.compare(a, a).images == 4
    assert exam.compare(a, a).a.value == pytest.approx(1.0)


def test_a_picture_that_a_model_fails_on_counts_as_wrong() -> None:
    samples = pictures(4, class_id=lambda i: 0)
    exam = Exam(samples, card=card("classify"), limits=LIMITS)
    error: dict[float, Exception] = {2.0: ModelRunFailed("poison")}
    good = exam.sit(Told(lambda i: scores(0), card("classify")))
    bad = exam.sit(Told(lambda i: scores(0), card("classify"), FakeRuntime(poison=error)))
    assert bad.failures == (("2", "poison"),)
    assert bad.model == "fake@1"
    paired = exam.compare(good, bad)
    assert (paired.images, paired.b.value) == (4, 0.75)
    cosine = Exam(samples, "cosine", card=card("classify"), limits=LIMITS)
    pair = [cosine.sit(Told(answer, card("classify"))) for answer in (lambda i: scores(0), failed)]
    assert cosine.compare(pair[0], pair[1]).b.value == pytest.approx(0.25)


def failed(number: int) -> Outcome:
    return failure(number) if number else scores(0)


def test_all_failing_is_an_error() -> None:
    exam = Exam(pictures(3, boxes=box_of), card=card("detect"), limits=LIMITS)
    with pytest.raises(ModelRunFailed, match=r"fails on every picture; on the first, 0: no answer"):
        exam.sit(Told(failure, card("detect")))
    bad = [replace(s, read=partial(bytes, b"hello")) for s in pictures(3)]
    exam = Exam(bad, card=card("detect"), limits=LIMITS)
    with pytest.raises(InputError, match="no picture can be read; the first is 0"):
        exam.sit(Told(detections, card("detect")))


def test_pictures_are_prepared_once_for_models_that_want_the_same() -> None:
    exam = Exam(pictures(3), card=card("detect"), limits=LIMITS)
    one, same, other = (Told(detections, card("detect", mean)) for mean in (0, 0, 1))
    for model in (one, same, other, one):
        exam.sit(model)
    assert one.preprocessed.total() == 3
    assert same.preprocessed.total() == 0
    assert other.preprocessed.total() == 3


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "CACHE_BYTES", 8)
    exam = Exam(pictures(4), card=card("detect"), limits=LIMITS)
    model = Told(detections, card("detect"))
    for _ in range(2):
        exam.sit(model)
    # Two rows of four bytes are kept, the other two are made anew.
    assert sorted(model.preprocessed.values()) == [1, 1, 2, 2]


def test_the_stand_in_is_a_model() -> None:
    model: Model = Told(detections, card("detect"))
    with pytest.raises(RetinueError):
        Exam([], card=model.card, limits=LIMITS)
