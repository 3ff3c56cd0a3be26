"""What an Open Inference server must do, as checks that any test runner can call.

A check takes a `Subject`: a front of a server, and what its models do. It raises `AssertionError`
where the server does something else. `PORTABLE` holds for every server of the protocol, a Triton
included. `EXTRAS` is what Retinue promises beyond it, and `CONTROL` the same where clients may
load and unload models::

    @pytest.mark.parametrize("check", oip_suite.PORTABLE, ids=lambda check: check.__name__)
    def test_protocol(check, subject):
        check(subject)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from retinue.core.types import Array
from retinue.host.oip.tensors import datatype, objects
from retinue.testing.oip_clients import Answer, Front
from retinue.testing.oip_subjects import Images, Served, Subject

UNKNOWN = "no-such-model"


Check: TypeAlias = Callable[[Subject], None]


def _assert_answer(served: Served, inputs: Mapping[str, Array], answer: Answer) -> None:
    expected = served.expected(inputs)
    assert answer.model == served.model
    assert answer.version
    assert set(answer.outputs) == set(expected)
    for name, array in expected.items():
        found = answer.outputs[name]
        assert found.dtype == array.dtype, (name, found.dtype, array.dtype)
        if array.dtype.kind == "f":
            np.testing.assert_allclose(
                found, array, rtol=served.tolerance, atol=served.tolerance, err_msg=name
            )
        else:
            np.testing.assert_array_equal(found, array, err_msg=name)


def the_server_is_live_and_ready(subject: Subject) -> None:
    """Health, and who the server is."""
    client = subject.front.client
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = subject.front.ask("get_server_metadata")
    assert metadata["name"]
    assert metadata["version"]
    assert {"binary_tensor_data", "classification", "statistics"} <= set(metadata["extensions"])


def a_model_is_ready_and_an_unknown_one_is_not(subject: Subject) -> None:
    """Readiness by name and version."""
    client, model = subject.front.client, subject.numbers.model
    version = subject.front.infer(model, subject.numbers.rows(1)).version
    assert client.is_model_ready(model)
    assert client.is_model_ready(model, version)
    assert not client.is_model_ready(UNKNOWN)
    assert not client.is_model_ready(model, "987654321")


def metadata_names_the_tensors(subject: Subject) -> None:
    """Names, datatypes and shapes, with -1 for the batch."""
    for served in (subject.numbers, subject.texts):
        if served is None:
            continue
        name, inputs, outputs = subject.front.metadata(served.model)
        assert name == served.model
        rows = served.rows(2)
        for listed, arrays in ((inputs, rows), (outputs, served.expected(rows))):
            assert {t.name: t.datatype for t in listed} == {
                key: datatype(array.dtype) for key, array in arrays.items()
            }
            for tensor in listed:
                assert tensor.shape[0] == -1
                fits = zip(tensor.shape[1:], arrays[tensor.name].shape[1:], strict=True)
                assert all(want in (-1, got) for want, got in fits)


def the_configuration_agrees_with_the_metadata(subject: Subject) -> None:
    """The same tensors, without the batch dimension."""
    front, model = subject.front, subject.numbers.model
    max_batch, *configured = front.config(model)
    assert max_batch >= 1
    _, *listed = front.metadata(model)
    for mine, theirs in zip(configured, listed, strict=True):
        assert [(t.name, t.datatype, t.shape) for t in mine] == [
            (t.name, t.datatype, t.shape[1:]) for t in theirs
        ]


def tensors_go_there_and_back(subject: Subject) -> None:
    """In every form that the front has, in and out, and in batches of one and two."""
    for served in (subject.numbers, subject.texts):
        for form in subject.front.forms:
            for count in (1, 2):
                if served is None:
                    continue
                inputs = served.rows(count)
                outputs = tuple(served.expected(inputs))
                answer = subject.front.infer(served.model, inputs, form=form, outputs=outputs)
                _assert_answer(served, inputs, answer)


def all_outputs_come_when_none_is_named(subject: Subject) -> None:
    """And the id comes back, whichever the version is asked for by."""
    front, served = subject.front, subject.numbers
    inputs = served.rows(1)
    answer = front.infer(served.model, inputs, request_id="a-1")
    _assert_answer(served, inputs, answer)
    assert answer.id == "a-1"
    again = front.infer(served.model, inputs, model_version=answer.version)
    assert again.version == answer.version
    assert again.id == ""


def empty_strings_and_any_bytes_survive(subject: Subject) -> None:
    """BYTES elements of no length, and such that are not UTF-8."""
    if subject.texts is None:
        return
    (name, rows), *_ = subject.texts.rows(1).items()
    for value in (b"", b"\xff\x00\xfe", b"x" * 70_000):
        inputs = {name: objects([value] * rows.size, rows.shape)}
        answer = subject.front.infer(subject.texts.model, inputs)
        _assert_answer(subject.texts, inputs, answer)


def an_unknown_model_or_version_is_not_found(subject: Subject) -> None:
    """For inference and for metadata; the message names it."""
    front, served = subject.front, subject.numbers
    inputs = served.rows(1)
    calls: list[Callable[[], object]] = [
        lambda: front.infer(UNKNOWN, inputs),
        lambda: front.metadata(UNKNOWN),
        lambda: front.config(UNKNOWN),
    ]
    for call in calls:
        kind, message = front.refusal(call)
        assert kind == "not found", (kind, message)
        assert UNKNOWN in message
    kind, message = front.refusal(
        lambda: front.infer(served.model, inputs, model_version="987654321")
    )
    assert kind == "not found", (kind, message)


def _assert_invalid(front: Front, call: Callable[[], object]) -> None:
    kind, message = front.refusal(call)
    assert kind == "invalid", (kind, message)
    assert message


def wrong_inputs_are_refused(subject: Subject) -> None:
    """Unknown names, missing ones, other datatypes, shapes and ranks; the next request works."""
    front, served = subject.front, subject.numbers
    good = served.rows(1)
    (name, array), *others = good.items()
    rest = dict(others)
    wrong: list[Mapping[str, Array]] = [
        {"no-such-input": array, **rest},
        {**good, "no-such-input": array},
        rest,
        {name: array.astype(np.int16 if array.dtype != np.int16 else np.int32), **rest},
        {name: np.concatenate([array, array], axis=-1), **rest},
        {name: array[0], **rest},
        {name: array[None], **rest},
        {name: array[:0], **rest},
    ]
    for inputs in wrong:
        _assert_invalid(front, lambda inputs=inputs: front.infer(served.model, inputs))  # type: ignore[misc]
    _assert_invalid(front, lambda: front.infer(served.model, good, outputs=("no-such-output",)))
    _assert_answer(served, good, front.infer(served.model, good))


def classes_come_in_place_of_scores(subject: Subject) -> None:
    """The classification extension: "score:index", and ":label" where there are labels."""
    for served in (subject.numbers, subject.labelled):
        if served is None:
            continue
        inputs = served.rows(2)
        (name, scores), *_ = served.expected(inputs).items()
        for count in (1, scores.shape[1], scores.shape[1] + 5):
            for form in subject.front.forms:
                answer = subject.front.infer(
                    served.model, inputs, outputs=(name,), classes={name: count}, form=form
                )
                found = answer.outputs[name].tolist()
                assert found == [_best(row, count, served.labels) for row in scores]


def _best(row: Array, count: int, labels: tuple[str, ...]) -> list[bytes]:
    order = sorted(range(row.size), key=lambda i: -row.flat[i])[:count]
    tails = [f":{labels[i]}" if labels else "" for i in order]
    return [f"{row.flat[i]:f}:{i}{tail}".encode() for i, tail in zip(order, tails, strict=True)]


def requests_at_the_same_time_get_their_own_answers(subject: Subject) -> None:
    """Whatever is batched together comes apart again."""
    served, rows = subject.numbers, subject.numbers.rows(32)
    requests = [{name: a[i : i + 1] for name, a in rows.items()} for i in range(32)]
    answers = subject.front.infer_many(served.model, requests)
    for inputs, answer in zip(requests, answers, strict=True):
        _assert_answer(served, inputs, answer)


def statistics_grow(subject: Subject) -> None:
    """By the rows and the requests that were answered."""
    front, served = subject.front, subject.numbers
    before = front.counts(served.model)
    for count in (1, 2):
        front.infer(served.model, served.rows(count))
    end = time.monotonic() + 5
    while True:
        after = front.counts(served.model)
        if after.inferences >= before.inferences + 3 or time.monotonic() > end:
            break
        time.sleep(0.02)
    assert after.inferences == before.inferences + 3
    assert after.successes == before.successes + 2
    assert 1 <= after.executions - before.executions <= 3


def the_index_lists_the_model(subject: Subject) -> None:
    """As ready."""
    assert subject.front.index()[subject.numbers.model] == "READY"


def compressed_bodies_are_read_and_written(subject: Subject) -> None:
    """By every coding that the client offers."""
    front, served = subject.front, subject.numbers
    inputs = served.rows(2)
    for coding in front.codings:
        _assert_answer(served, inputs, front.infer(served.model, inputs, **coding))


def priorities_and_timeouts_are_taken(subject: Subject) -> None:
    """From the first priority to the last, and a timeout that is long enough."""
    front, served = subject.front, subject.numbers
    inputs = served.rows(1)
    for priority in (0, 1, 100, 201):
        answer = front.infer(served.model, inputs, priority=priority, timeout=30_000_000)
        _assert_answer(served, inputs, answer)


PORTABLE: tuple[Check, ...] = (
    the_server_is_live_and_ready,
    a_model_is_ready_and_an_unknown_one_is_not,
    metadata_names_the_tensors,
    the_configuration_agrees_with_the_metadata,
    tensors_go_there_and_back,
    all_outputs_come_when_none_is_named,
    empty_strings_and_any_bytes_survive,
    an_unknown_model_or_version_is_not_found,
    wrong_inputs_are_refused,
    classes_come_in_place_of_scores,
    requests_at_the_same_time_get_their_own_answers,
    statistics_grow,
    the_index_lists_the_model,
    compressed_bodies_are_read_and_written,
    priorities_and_timeouts_are_taken,
)


def _images(subject: Subject) -> Images:
    assert subject.images is not None, "the subject needs a model for image files"
    return subject.images


def _files(*files: bytes) -> dict[str, Array]:
    return {"image": objects(files, (len(files), 1))}


def image_files_are_read_by_the_server(subject: Subject) -> None:
    """One by one and together, as [N, 1] and as [N]; rows are padded to the longest."""
    front, images = subject.front, _images(subject)
    for file, count in zip(images.files, images.found, strict=True):
        alone = front.infer(images.model, _files(file)).outputs
        assert alone["num_detections"].tolist() == [[count]]
        assert alone["boxes"].shape == (1, count, 4)
    inputs = _files(*images.files)
    for tensors in (inputs, {"image": inputs["image"].reshape(-1)}):
        together = front.infer(images.model, tensors).outputs
        assert together["num_detections"].reshape(-1).tolist() == list(images.found)
        _assert_padded(together, images.found)


def _assert_padded(outputs: Mapping[str, Array], found: tuple[int, ...]) -> None:
    shape = (len(found), max(found))
    dtypes = {"boxes": "float32", "scores": "float32", "class_ids": "int64", "labels": "object"}
    for name, dtype in dtypes.items():
        assert outputs[name].dtype == dtype
        assert outputs[name].shape[:2] == shape
    for row, count in enumerate(found):
        scores = outputs["scores"][row, :count]
        assert (scores > 0).all()
        assert (np.diff(scores) <= 0).all()
        assert (outputs["class_ids"][row, :count] >= 0).all()
        assert all(outputs["labels"][row, :count])
        assert not outputs["scores"][row, count:].any()
        assert not outputs["boxes"][row, count:].any()
        assert (outputs["class_ids"][row, count:] == -1).all()
        assert not any(outputs["labels"][row, count:])


def weak_detections_are_left_out_on_demand(subject: Subject) -> None:
    """The request's parameter ``conf``, in [0, 1]."""
    front, images = subject.front, _images(subject)
    inputs = _files(*images.files)
    scores = front.infer(images.model, inputs).outputs["scores"]
    bound = float(scores.max()) - 1e-3
    outputs = front.infer(images.model, inputs, parameters={"conf": str(bound)}).outputs
    assert outputs["num_detections"].sum() == (scores >= bound).sum() > 0
    for wrong in ("-0.1", "1.5", "nan", "many"):
        call = {"parameters": {"conf": wrong}}
        _assert_invalid(front, lambda call=call: front.infer(images.model, inputs, **call))  # type: ignore[misc]


def a_bad_image_fails_its_request_by_its_index(subject: Subject) -> None:
    """So does an empty one, and a request without images."""
    front, images = subject.front, _images(subject)
    good = images.files[0]
    for bad in (images.bad, b""):
        kind, message = front.refusal(
            lambda bad=bad: front.infer(images.model, _files(good, bad, good))  # type: ignore[misc]
        )
        assert kind == "invalid", (kind, message)
        assert "image 1" in message
    _assert_invalid(front, lambda: front.infer(images.model, _files()))
    assert front.infer(images.model, _files(good)).outputs


def what_cannot_be_kept_is_refused(subject: Subject) -> None:
    """Priorities out of range, sequences, and timeouts that no request could meet."""
    front, served = subject.front, subject.numbers
    inputs = served.rows(1)
    options: tuple[dict[str, int | bool], ...] = (
        {"priority": 202},
        {"timeout": -1},
        {"sequence_id": 7, "sequence_start": True},
    )
    for wrong in options:
        _assert_invalid(front, lambda wrong=wrong: front.infer(served.model, inputs, **wrong))  # type: ignore[misc]
    kind, message = front.refusal(lambda: front.infer(served.model, inputs, timeout=1))
    assert kind == "too late", (kind, message)


EXTRAS: tuple[Check, ...] = (
    image_files_are_read_by_the_server,
    weak_detections_are_left_out_on_demand,
    a_bad_image_fails_its_request_by_its_index,
    what_cannot_be_kept_is_refused,
)


def models_are_loaded_and_unloaded(subject: Subject) -> None:
    """An installed model comes and goes, with its twin for images; others are not found."""
    front, client, spare = subject.front, subject.front.client, subject.spare
    twin = f"{spare}-image"
    assert front.index()[spare] == "UNAVAILABLE"
    client.load_model(spare)
    assert client.is_model_ready(spare)
    assert front.index()[spare] == front.index()[twin] == "READY"
    _assert_invalid(front, lambda: client.unload_model(twin))
    _assert_invalid(front, lambda: client.load_model(spare, config='{"max_batch_size": 9}'))
    client.unload_model(spare)
    assert not client.is_model_ready(spare)
    assert front.index()[spare] == "UNAVAILABLE"
    assert twin not in front.index()
    for call in (client.load_model, client.unload_model):
        kind, message = front.refusal(lambda call=call: call(UNKNOWN))  # type: ignore[misc]
        assert kind == "not found", (kind, message)


CONTROL: tuple[Check, ...] = (models_are_loaded_and_unloaded,)
