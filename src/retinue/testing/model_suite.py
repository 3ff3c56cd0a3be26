"""The contract of every model family, as checks that any test runner can call.

A check takes a family's key, the `Family`, one card, and a function that makes a runtime for that
card (see `retinue.testing.tiny_outputs.runtime_for`)::

    @pytest.mark.parametrize("check", model_suite.CHECKS, ids=lambda c: c.__name__)
    def test_contract(check):
        check("my_family", MODEL, MY_CARD, tiny_outputs.runtime_for)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Protocol

import numpy as np

from retinue.core.errors import InvalidTensor, ModelRunFailed, UnsupportedModel
from retinue.core.protocols import Model
from retinue.core.types import (
    Detections,
    Embedding,
    Image,
    Landmarks,
    Mask,
    Outcome,
    Scores,
    Tensors,
    Value,
)
from retinue.models.card import Card, Family, Output, Source
from retinue.testing import tiny_outputs
from retinue.testing.function_runtime import FunctionRuntime

VERSION = "0123456789ab"
SIZES = ((97, 61), (40, 120), (64, 64), (1, 300), (200, 7))


class RuntimeFor(Protocol):
    """Makes a fake runtime for a card; see `retinue.testing.tiny_outputs.runtime_for`."""

    def __call__(
        self,
        card: Card,
        *,
        batch: int = -1,
        level: float = ...,
        fails: Callable[[Tensors], bool] = ...,
        spoils: Callable[[Tensors], bool] = ...,
    ) -> FunctionRuntime:
        """Make a runtime."""
        ...


Check = Callable[[str, Family, Card, RuntimeFor], None]


def cards_of(key: str, family: Family) -> list[Card]:
    """Return the family's cards, and for each layout that it reads small cards of a user's own."""
    cards = list(family.cards)
    for layout in family.layouts:
        for scores in ("probabilities", "logits"):
            card = Card.model_validate(
                {
                    "name": f"own-{layout}-{scores}",
                    "task": cards[0].task if cards else "detect",
                    "family": key,
                    "license": "MIT",
                    "source": Source(url="file:///own.onnx", files={"own.onnx": "0" * 64}),
                    "input": {"height": 64, "width": 96, "layout": "nhwc"}
                    if scores == "logits"
                    else {"height": 96, "width": 64, "resize": "stretch", "color": "bgr"},
                    "output": Output(layout=layout, scores=scores, max_detections=7),
                    "classes": ("cat", "dog", "owl"),
                }
            )
            cards.append(card)
    return cards


def images(count: int, seed: int = 0) -> list[Image]:
    """Return pictures of noise, no two alike, of several sizes and aspect ratios."""
    random = np.random.default_rng(seed)
    pictures = []
    for index in range(count):
        width, height = SIZES[index % len(SIZES)]
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        pictures.append(Image(pixels, width, height))
    return pictures


def card_is_complete(key: str, family: Family, card: Card, runtime_for: RuntimeFor) -> None:
    """A card names its family, a layout it reads, its classes, licence and digests."""
    assert card.family == key
    assert card.task == "text" or card.output.layout in family.layouts
    assert card.license
    assert len(set(card.source.files.values())) == len(card.source.files)
    if card.task in ("detect", "classify"):
        assert card.classes
        assert all(name == name.strip() and name for name in card.classes)
    if card in family.cards:
        assert card.summary
        assert card.homepage.startswith("https://")
        assert card.examples


def keeps_the_protocol(key: str, family: Family, card: Card, runtime_for: RuntimeFor) -> None:
    """It is a `Model`, knows its name, version and runtime, and closes it."""
    runtime = runtime_for(card)
    model = family.build(card, VERSION, runtime)
    assert isinstance(model, Model)
    assert (model.name, model.version) == (card.name, VERSION)
    assert model.runtime is runtime
    assert min(model.decode_size) >= 1
    assert model.predict([]) == []
    assert model.run([]) == []
    model.close()
    model.close()
    assert runtime.closed


def preprocess_fits_the_runtime(
    key: str, family: Family, card: Card, runtime_for: RuntimeFor
) -> None:
    """Rows have the runtime's dtype and shape, whatever the picture; the picture is not changed."""
    runtime = runtime_for(card)
    with closing(family.build(card, VERSION, runtime)) as model:
        for image in images(5):
            before = image.pixels.copy()
            image.pixels.flags.writeable = False
            prepared = model.preprocess(image)
            again = model.preprocess(image)
            np.testing.assert_array_equal(image.pixels, before)
            assert (prepared.width, prepared.height) == (image.width, image.height)
            assert list(prepared.tensors) == [spec.name for spec in runtime.inputs]
            for spec in runtime.inputs:
                row = prepared.tensors[spec.name]
                assert row.dtype.name == spec.dtype
                assert row.shape == spec.shape[1:]
                assert row.flags.c_contiguous
                np.testing.assert_array_equal(row, again.tensors[spec.name])


def scaled_decodes_are_of_the_original(
    key: str, family: Family, card: Card, runtime_for: RuntimeFor
) -> None:
    """Answers are in pixels of the original when the decoder returned a smaller picture."""
    with closing(family.build(card, VERSION, runtime_for(card))) as model:
        whole = images(1)[0]
        small = Image(whole.pixels, 10 * whole.width, 10 * whole.height)
        one, ten = model.predict([whole, small])
        check_value(card, ten.unwrap(), small)
        first, second = one.unwrap(), ten.unwrap()
        if isinstance(first, Detections) and isinstance(second, Detections):
            np.testing.assert_allclose(second.boxes, 10 * first.boxes, rtol=1e-4, atol=1e-2)
        if isinstance(first, Landmarks) and isinstance(second, Landmarks):
            np.testing.assert_allclose(second.points, 10 * first.points, rtol=1e-3, atol=1e-1)


def answers_are_sound(key: str, family: Family, card: Card, runtime_for: RuntimeFor) -> None:
    """Every answer is a value in its range, with timings."""
    with closing(family.build(card, VERSION, runtime_for(card))) as model:
        pictures = images(5)
        for image, outcome in zip(pictures, model.predict(pictures), strict=True):
            check_value(card, outcome.unwrap(), image)
            assert {"preprocess", "run", "postprocess"} <= set(outcome.timings_ms)
            if outcome.embedding is not None:
                assert np.isfinite(outcome.embedding.vector).all()


def nothing_is_an_answer(key: str, family: Family, card: Card, runtime_for: RuntimeFor) -> None:
    """A detector that finds nothing answers no boxes, without an error."""
    with closing(family.build(card, VERSION, runtime_for(card, level=0.0))) as model:
        value = model.predict(images(1))[0].unwrap()
    assert not isinstance(value, Detections) or len(value) == 0


def order_is_kept(key: str, family: Family, card: Card, runtime_for: RuntimeFor) -> None:
    """An answer does not depend on the company its input keeps, nor on its place."""
    with closing(family.build(card, VERSION, runtime_for(card))) as model:
        pictures = images(5)
        alone = [model.predict([image])[0] for image in pictures]
        assert not _same(alone[0], alone[1]), "different pictures, different answers"
        for order in ([0, 1, 2, 3, 4], [4, 2, 0, 3, 1], [3, 3, 1]):
            together = model.predict([pictures[i] for i in order])
            assert len(together) == len(order)
            for place, outcome in zip(order, together, strict=True):
                assert _same(outcome, alone[place])


def each_item_fails_alone(key: str, family: Family, card: Card, runtime_for: RuntimeFor) -> None:
    """Where the engine fails on one item, or answers NaN, only that item's outcome is an error."""
    pictures = images(5)
    with closing(family.build(card, VERSION, runtime_for(card))) as model:
        alone = model.predict(pictures)
        rows = [model.preprocess(image).tensors for image in pictures]
    for bad in ({0}, {2, 3}, {0, 1, 2, 3, 4}):
        chosen = [rows[index] for index in bad]

        def is_bad(row: Tensors, chosen: Sequence[Tensors] = chosen) -> bool:
            return any(all(np.array_equal(row[n], one[n]) for n in one) for one in chosen)

        for runtime in (runtime_for(card, fails=is_bad), runtime_for(card, spoils=is_bad)):
            with closing(family.build(card, VERSION, runtime)) as model:
                outcomes = model.predict(pictures)
            for index, outcome in enumerate(outcomes):
                if index in bad:
                    assert isinstance(outcome.error, ModelRunFailed)
                else:
                    assert _same(outcome, alone[index])


def fixed_batches_are_filled(key: str, family: Family, card: Card, runtime_for: RuntimeFor) -> None:
    """A network exported with a fixed batch size answers any number of inputs."""
    pictures = images(5)
    with closing(family.build(card, VERSION, runtime_for(card))) as model:
        expected = model.predict(pictures)
    for batch in (1, 2):
        runtime = runtime_for(card, batch=batch)
        with closing(family.build(card, VERSION, runtime)) as model:
            outcomes = model.predict(pictures)
        assert set(runtime.batches) == {batch}
        assert all(map(_same, outcomes, expected))


def refuses_unequal_rows(key: str, family: Family, card: Card, runtime_for: RuntimeFor) -> None:
    """Rows that cannot be one batch are an `InvalidTensor`."""
    with closing(family.build(card, VERSION, runtime_for(card))) as model:
        rows = [dict(model.preprocess(image).tensors) for image in images(2)]
        name = next(iter(rows[0]))
        wrong: list[list[Tensors]] = [
            [rows[0], {name: rows[1][name][:-1]}],
            [rows[0], {}],
            [{name: rows[0][name].astype(np.float64)}],
        ]
        for batch in wrong:
            try:
                model.run(batch)
            except InvalidTensor:
                continue
            raise AssertionError("expected InvalidTensor")


def check_value(card: Card, value: Value, image: Image) -> None:
    """Assert that a value is sound for a card and a picture."""
    if isinstance(value, Detections):
        _check_detections(card, value, image)
    elif isinstance(value, Scores):
        assert value.values.shape == (len(card.classes),)
        assert value.values.dtype == np.float32
        assert value.values.min() >= 0
        assert value.values.max() <= 1
    elif isinstance(value, Embedding):
        assert np.isfinite(value.vector).all()
    elif isinstance(value, Mask):
        assert (value.width, value.height) == (image.width, image.height)
    else:
        assert isinstance(value, Landmarks)
        assert value.points.dtype == np.float32
        assert np.isfinite(value.points).all()
        assert 0 <= value.score <= 1


def _check_detections(card: Card, found: Detections, image: Image) -> None:
    assert 0 < len(found) <= card.output.max_detections
    assert found.boxes.dtype.name == found.scores.dtype.name == "float32"
    assert found.class_ids.dtype.name == "int64"
    assert found.boxes.min() >= 0
    assert found.boxes[:, 2].max() <= image.width
    assert found.boxes[:, 3].max() <= image.height
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert (np.diff(found.scores) <= 0).all()
    assert found.scores.min() > 0
    assert found.scores.max() <= 1
    assert found.class_ids.min() >= 0
    assert found.class_ids.max() < len(card.classes)
    if found.keypoints is not None:
        assert found.keypoints.dtype == np.float32
        assert np.isfinite(found.keypoints).all()


def _same(a: Outcome, b: Outcome) -> bool:
    one, other = a.unwrap(), b.unwrap()
    if type(one) is not type(other):
        return False
    fields = [name for name in one.__dataclass_fields__ if name != "score"]
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in fields)


CHECKS: tuple[Check, ...] = (
    card_is_complete,
    keeps_the_protocol,
    preprocess_fits_the_runtime,
    scaled_decodes_are_of_the_original,
    answers_are_sound,
    nothing_is_an_answer,
    order_is_kept,
    each_item_fails_alone,
    fixed_batches_are_filled,
    refuses_unequal_rows,
)


def refuses_pictures(key: str, family: Family, card: Card, runtime_for: RuntimeFor) -> None:
    """A text model is not built for pictures: `retinue.models.text.load_text` loads it."""
    try:
        family.build(card, VERSION, FunctionRuntime((), (), lambda row: {}))
    except UnsupportedModel:
        return
    raise AssertionError("expected UnsupportedModel")


TEXT_CHECKS: tuple[Check, ...] = (card_is_complete, refuses_pictures)
"""What holds for a text model's card; `retinue.testing.text_suite` is about the loaded model."""


def checks_of(card: Card) -> tuple[Check, ...]:
    """Return the checks that hold for a card of its task."""
    return TEXT_CHECKS if card.task == "text" else CHECKS


def run_all(key: str, family: Family, runtime_for: RuntimeFor = tiny_outputs.runtime_for) -> None:
    """Run every check on every card of a family."""
    for card in cards_of(key, family):
        for check in checks_of(card):
            check(key, family, card, runtime_for)
