"""The contract of every `Pipeline`, as checks that any test runner can call.

A check takes a function that makes a started pipeline for a `FakeModel` and gives it back at the
end, and raises `AssertionError` where the contract is broken::

    @pytest.mark.parametrize("check", pipeline_suite.CHECKS, ids=lambda c: c.__name__)
    def test_contract(check):
        asyncio.run(check(my_make))
"""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

import numpy as np
from PIL import Image as PillowImage

from retinue.core.errors import (
    CorruptMedia,
    DeadlineExceeded,
    EmptyInput,
    InvalidTensor,
    ModelRunFailed,
    RetinueError,
    UnsupportedMedia,
)
from retinue.core.protocols import Pipeline
from retinue.core.record import Record
from retinue.core.types import Tensors
from retinue.testing.models import FakeModel, FakeRuntime, number_in, numbered

Make: TypeAlias = Callable[[FakeModel], AbstractAsyncContextManager[Pipeline]]
Check: TypeAlias = Callable[[Make], Awaitable[None]]

STAGES = ("preprocess", "queue", "run", "postprocess")


def numbered_png(number: int) -> bytes:
    """Return a PNG file of a picture that carries a number; see `numbered`."""
    file = io.BytesIO()
    PillowImage.fromarray(numbered(number).pixels).save(file, "png")
    return file.getvalue()


async def _error(record: Awaitable[Record]) -> RetinueError:
    error = (await record).outcome.error
    assert error is not None, "expected a failure"
    return error


async def a_record_tells_all_of_a_request(make: Make) -> None:
    """Who asked, of which model, with which input, what came out, and how long it took."""
    async with make(FakeModel(name="fake", version="7")) as pipeline:
        assert (pipeline.model.name, pipeline.model.version) == ("fake", "7")
        tags = {"camera": "gate-2"}
        png = numbered_png(5)
        record = await pipeline.submit(png, app="detect", source="a.png", tags=tags)
        tags["camera"] = "changed later"
        assert number_in(record.outcome) == 5
        assert (record.app, record.model, record.version) == ("detect", "fake", "7")
        assert (record.source, dict(record.tags)) == ("a.png", {"camera": "gate-2"})
        assert (record.width, record.height) == (4, 2)
        assert len(record.input_sha256) == 64
        assert record.batch_size == 1
        timings = record.outcome.timings_ms
        assert set(timings) == {"decode", *STAGES, "total"}
        assert all(ms >= 0 for ms in timings.values())
        assert timings["total"] >= timings["decode"] + timings["run"]


async def a_decoded_image_is_taken_too(make: Make) -> None:
    """It has no bytes, so no digest and no decode time."""
    async with make(FakeModel()) as pipeline:
        record = await pipeline.submit(numbered(9))
        assert number_in(record.outcome) == 9
        assert record.input_sha256 == ""
        assert set(record.outcome.timings_ms) == {*STAGES, "total"}


async def everyone_gets_the_answer_of_its_own_item(make: Make) -> None:
    """However many come at once, in whatever batches, files and images mixed."""
    async with make(FakeModel()) as pipeline:
        items = [numbered(n) if n % 3 else numbered_png(n) for n in range(60)]
        records = await asyncio.gather(
            *(pipeline.submit(item, priority=n % 4) for n, item in enumerate(items))
        )
        assert [number_in(record.outcome) for record in records] == list(range(60))
        assert len({record.id for record in records}) == 60


async def a_bad_item_fails_alone_wherever_it_fails(make: Make) -> None:
    """In decoding, preprocessing, running or postprocessing; its neighbours are answered."""
    model = FakeModel(
        FakeRuntime(poison={3.0: ZeroDivisionError("poison"), 4.0: InvalidTensor("bad row")}),
        bad_inputs={1: EmptyInput("refused"), 2: KeyError("unforeseen")},
        bad_outputs={5: EmptyInput("no answer"), 6: IndexError("unforeseen")},
    )
    expected = {
        1: EmptyInput,
        2: ModelRunFailed,
        3: ModelRunFailed,
        4: InvalidTensor,
        5: EmptyInput,
        6: ModelRunFailed,
        20: CorruptMedia,
        21: UnsupportedMedia,
        22: EmptyInput,
    }
    files = {20: numbered_png(20)[:60], 21: b"this is text", 22: b""}
    async with make(model) as pipeline:
        items = [files.get(n, numbered(n)) for n in range(24)]
        records = await asyncio.gather(*(pipeline.submit(item) for item in items))
        for number, record in enumerate(records):
            if number in expected:
                assert type(record.outcome.error) is expected[number], (number, record.outcome)
            else:
                assert number_in(record.outcome) == number


async def an_expired_deadline_does_no_work(make: Make) -> None:
    """It is refused before the decoder sees it."""
    model = FakeModel()
    async with make(model) as pipeline:
        late = time.monotonic() - 1
        error = await _error(pipeline.submit(b"not an image", deadline=late))
        assert isinstance(error, DeadlineExceeded)
        try:
            await pipeline.infer(_rows(1), deadline=late)
        except DeadlineExceeded:
            pass
        else:
            raise AssertionError("an expired deadline was accepted")
    assert not model.fake.batches


async def cancelling_passes_through_and_harms_nobody(make: Make) -> None:
    """A caller that goes away takes nobody with it."""
    async with make(FakeModel()) as pipeline:
        tasks = [asyncio.create_task(pipeline.submit(numbered(n))) for n in range(20)]
        await asyncio.sleep(0)
        for task in tasks[::3]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for number, result in enumerate(results):
            if isinstance(result, Record):
                assert number_in(result.outcome) == number
            else:
                assert number % 3 == 0
                assert isinstance(result, asyncio.CancelledError)


def _rows(*numbers: float) -> Tensors:
    return {"input": np.array(numbers, np.float32)[:, None]}


async def raw_tensors_come_back_in_order(make: Make) -> None:
    """With their batch dimension, also when several requests are mixed in one batch."""
    async with make(FakeModel()) as pipeline:
        one, many = await asyncio.gather(
            pipeline.infer(_rows(1)), pipeline.infer(_rows(*range(2, 20)))
        )
        assert one["output"].tolist() == [[1.0]]
        assert many["output"][:, 0].tolist() == list(range(2, 20))


async def raw_tensors_of_the_wrong_kind_are_refused(make: Make) -> None:
    """Before they reach the model."""
    model = FakeModel()
    bad: list[Tensors] = [
        {},
        {"other": np.zeros((1, 1), np.float32)},
        {"input": np.zeros((1, 1), np.float64)},
        {"input": np.zeros((1, 2), np.float32)},
        {"input": np.zeros((0, 1), np.float32)},
        {"input": np.zeros(1, np.float32)},
    ]
    async with make(model) as pipeline:
        for tensors in bad:
            try:
                await pipeline.infer(tensors)
            except InvalidTensor:
                continue
            raise AssertionError(f"accepted {tensors}")
    assert not model.fake.batches


async def a_request_of_raw_tensors_fails_as_a_whole(make: Make) -> None:
    """When one of its rows fails; the rows of other requests do not."""
    model = FakeModel(FakeRuntime(poison={3.0: ZeroDivisionError("poison")}))
    async with make(model) as pipeline:
        bad, good = await asyncio.gather(
            pipeline.infer(_rows(2, 3)), pipeline.infer(_rows(4, 5)), return_exceptions=True
        )
        assert isinstance(bad, ModelRunFailed)
        assert not isinstance(good, BaseException)
        assert good["output"][:, 0].tolist() == [4.0, 5.0]


CHECKS: tuple[Check, ...] = (
    a_record_tells_all_of_a_request,
    a_decoded_image_is_taken_too,
    everyone_gets_the_answer_of_its_own_item,
    a_bad_item_fails_alone_wherever_it_fails,
    an_expired_deadline_does_no_work,
    cancelling_passes_through_and_harms_nobody,
    raw_tensors_come_back_in_order,
    raw_tensors_of_the_wrong_kind_are_refused,
    a_request_of_raw_tensors_fails_as_a_whole,
)
