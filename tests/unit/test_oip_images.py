"""The models for image files: outputs by task, records, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from retinue.core.errors import InvalidTensor, ModelRunFailed, RetinueError
from retinue.core.settings import Batching, Settings
from retinue.core.types import Array, Scores
from retinue.host.edge import State
from retinue.host.oip.inference import Inference, Request, Response
from retinue.host.oip.served import InputTensor
from retinue.host.oip.tensors import datatype, objects
from retinue.testing.host import FakeHost
from retinue.testing.pipelines import FAKE_CLASSES, FakeServed

MODELS = (
    FakeServed("fake"),
    FakeServed("sorter", "classify"),
    FakeServed("vectors", "embed"),
    FakeServed("points", "landmarks"),
    FakeServed("people", "segment"),
)


def ask(model: str, *files: bytes, host: FakeHost | None = None, **more: Any) -> Response:
    host = host or FakeHost(Settings(), models=MODELS)
    image = InputTensor("image", "BYTES", (len(files), 1), objects(files, (len(files), 1)))
    request = Request(f"{model}-image", (image,), **more)
    return asyncio.run(Inference(host, State(ready=True)).infer(request))


def test_every_output_is_what_the_metadata_says() -> None:
    inference = Inference(FakeHost(Settings(), models=MODELS), State(ready=True))
    for model in MODELS:
        metadata = inference.metadata(f"{model.name}-image")
        outputs = ask(model.name, b"x", b"xxx").outputs
        assert [spec.name for spec in metadata.outputs] == list(outputs)
        for spec in metadata.outputs:
            array: Array = outputs[spec.name]
            assert datatype(array.dtype.name) == datatype(spec.dtype)
            fits = zip(spec.shape, array.shape, strict=True)
            assert all(want in (-1, got) for want, got in fits), spec


def test_detections_are_padded_to_the_longest_row() -> None:
    outputs = ask("fake", b"x", b"xxxx", b"xx").outputs
    assert outputs["num_detections"].tolist() == [[1], [0], [2]]
    assert outputs["boxes"][2].tolist() == [[1, 1, 10, 10], [2, 2, 20, 20]]
    assert outputs["scores"].tolist() == [[1, 0], [0, 0], [1, 0.5]]
    assert outputs["class_ids"].tolist() == [[0, -1], [-1, -1], [0, 0]]
    assert outputs["labels"].tolist() == [[b"thing", b""], [b"", b""], [b"thing", b"thing"]]
    assert ask("fake", b"xxxx").outputs["boxes"].shape == (1, 0, 4)


def test_classes_and_their_labels() -> None:
    response = ask("sorter", b"xx", b"x")
    assert response.outputs["scores"].tolist() == [[0, 0, 1], [0, 1, 0]]
    assert response.outputs["class_id"].tolist() == [[2], [1]]
    assert response.outputs["label"].tolist() == [[b"owl"], [b"dog"]]
    top = ask("sorter", b"xx", outputs=("scores",), classification={"scores": 2}).outputs
    assert top["scores"].tolist() == [[b"1.000000:2:owl", b"0.000000:0:cat"]]
    assert FAKE_CLASSES[2] == "owl"


def test_vectors() -> None:
    assert ask("vectors", b"xxx").outputs["embedding"].tolist() == [[3, 3, 3, 3]]


def test_landmarks() -> None:
    outputs = ask("points", b"x", b"xxx").outputs
    assert outputs["landmarks"].tolist() == [[[1.0] * 3] * 2, [[3.0] * 3] * 2]
    assert outputs["score"].tolist() == [[0.5], [0.5]]


def test_masks_of_several_sizes() -> None:
    outputs = ask("people", b"x", b"xxx").outputs
    assert outputs["mask_size"].tolist() == [[2, 2], [4, 2]]
    assert outputs["mask"][:, :, 0].tolist() == [[255, 255, 0, 0], [255] * 4]


def test_each_image_is_a_record_also_beside_one_that_fails() -> None:
    host = FakeHost(Settings(), models=MODELS)
    with pytest.raises(RetinueError, match="image 1: the picture is damaged"):
        ask("fake", b"xxx", b"bad", host=host, parameters={"conf": 0.4}, client="me")
    assert [(record.app, body) for record, body in host.finished] == [
        ("v2", b"xxx"),
        ("v2", b"bad"),
    ]
    kept = host.finished[0][0].outcome.value
    assert len(kept.scores) == 2  # as the request's bound has it
    assert host.pipelines["fake"].calls == [(None, 0, "me")] * 2


@pytest.mark.parametrize("conf", [-0.1, 1.1, "nan", "much", True, float("nan"), 2**70])
def test_a_bound_out_of_range_is_refused(conf: object) -> None:
    with pytest.raises(RetinueError, match="'conf' must be a number from 0 to 1"):
        ask("fake", b"x", parameters={"conf": conf})


def test_at_most_as_many_images_as_may_wait() -> None:
    host = FakeHost(Settings(batching=Batching(max_queue=2)), models=MODELS)
    assert ask("fake", b"x", b"x", host=host).outputs["boxes"].shape == (2, 1, 4)
    for count in (0, 3):
        with pytest.raises(InvalidTensor, match="send 1 to 2 images"):
            ask("fake", *[b"x"] * count, host=host)


def test_a_model_whose_card_names_another_task_fails_clearly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    value = Scores(np.zeros(3, np.float32))
    monkeypatch.setattr("retinue.testing.pipelines._fake_value", lambda task, size: value)
    with pytest.raises(ModelRunFailed, match="Scores where"):
        ask("fake", b"x")


def test_a_model_of_that_name_goes_before_the_twin() -> None:
    models = (FakeServed("fake"), FakeServed("fake-image", "classify"))
    inference = Inference(FakeHost(Settings(), models=models), State(ready=True))
    assert inference.names() == ("fake", "fake-image", "fake-image-image")
    assert inference.metadata("fake-image").inputs[0].name == "x"
    assert inference.metadata("fake-image-image").inputs[0].name == "image"
