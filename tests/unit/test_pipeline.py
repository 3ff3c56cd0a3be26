"""The pipeline's own business: admission, records, deadlines, priorities."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from contextlib import asynccontextmanager

import numpy as np
import pytest

from retinue.core.errors import (
    ClientClosed,
    ConfigError,
    DeadlineExceeded,
    InvalidTensor,
    ModelRunFailed,
    QueueFull,
)
from retinue.core.record import Record
from retinue.core.settings import Batching, Limits
from retinue.core.types import STAGES, Image, Outcome
from retinue.pipeline.pipeline import LEAST_AHEAD, ModelPipeline
from retinue.pipeline.rows import join
from retinue.testing.models import FakeModel, FakeRuntime, gated, number_in, numbered, until
from retinue.testing.pipeline_suite import numbered_png


def make(*models: FakeModel, abandoned=None, workers=1, **policy) -> ModelPipeline:
    return ModelPipeline(
        models or [FakeModel()],
        batching=Batching(**policy),
        limits=Limits(),
        abandoned=abandoned,
        workers=workers,
    )


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.endswith((" 0", " 1", " 2"))]


@asynccontextmanager
async def held(**policy):
    """A pipeline whose one instance is busy with picture 0 until the gate is opened."""
    model, gate = gated()
    async with make(model, **policy) as pipeline:
        patient = time.monotonic() + 60 if "deadline_ms" in policy else None
        task = asyncio.create_task(pipeline.submit(numbered(0), deadline=patient))
        await until(lambda: model.fake.batches)
        try:
            yield pipeline, gate
        finally:
            gate.set()
        assert number_in((await task).outcome) == 0
    assert not threads()


def test_every_request_has_its_record_also_when_it_fails():
    async def main() -> None:
        async with make() as pipeline:
            good = await pipeline.submit(numbered(1))
            bad = await pipeline.submit(b"text")
            late = await pipeline.submit(numbered(1), deadline=0.0)
            assert list(good.outcome.timings_ms) == [stage for stage in STAGES if stage != "decode"]
            assert bad.input_sha256
            assert not late.input_sha256

    asyncio.run(main())


def test_a_failing_listener_breaks_no_cancellation(caplog):
    def abandoned(record):
        raise OSError("disk")

    async def main() -> None:
        async with held(abandoned=abandoned) as (pipeline, _):
            waiting = asyncio.create_task(pipeline.submit(numbered(1)))
            await until(lambda: pipeline.queue_depth)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(main())
    assert "telling of the abandoned record" in caplog.text


def test_a_client_that_goes_away_leaves_a_record_and_its_place():
    seen: list[Record] = []

    async def main() -> None:
        async with held(abandoned=seen.append, max_queue=1) as (pipeline, _):
            waiting = asyncio.create_task(pipeline.submit(numbered(1)))
            await until(lambda: pipeline.queue_depth)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert isinstance(seen[0].outcome.error, ClientClosed)
            assert pipeline.queue_depth == 0

    asyncio.run(main())
    assert len(seen) == 1


def test_a_client_that_goes_away_while_it_is_decoded_or_run():
    entered, gate = threading.Event(), threading.Event()

    class Slow(FakeModel):
        def preprocess(self, image):
            entered.set()
            assert gate.wait(5)
            return super().preprocess(image)

    async def main() -> None:
        async with make(Slow()) as pipeline:
            task = asyncio.create_task(pipeline.submit(numbered(1)))
            await asyncio.to_thread(entered.wait, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.set()
            assert number_in((await pipeline.submit(numbered(2))).outcome) == 2

    asyncio.run(main())


def test_the_whole_pipeline_is_bounded():
    async def main() -> None:
        async with held(max_queue=3) as (pipeline, gate):
            tasks = [asyncio.create_task(pipeline.submit(numbered(n))) for n in (1, 2, 3)]
            await asyncio.sleep(0)
            assert pipeline.queue_depth == 3
            refused = await pipeline.submit(numbered(4))
            assert isinstance(refused.outcome.error, QueueFull)
            assert refused.queue_depth == 3
            assert refused.width == 0
            with pytest.raises(QueueFull):
                await pipeline.infer({"input": np.zeros((1, 1), np.float32)})
            gate.set()
            records = await asyncio.gather(*tasks)
            assert [number_in(r.outcome) for r in records] == [1, 2, 3]
            assert [r.queue_depth for r in records] == [0, 1, 2]
            assert pipeline.queue_depth == 0

    asyncio.run(main())


@pytest.mark.parametrize("decoded", [False, True], ids=["still to decode", "decoded"])
def test_a_higher_priority_takes_the_place_of_a_lower_one(decoded):
    places = 1 if decoded else LEAST_AHEAD  # the one that is run is one of those on their way

    async def main() -> None:
        async with held(max_queue=places) as (pipeline, gate):
            low = [asyncio.create_task(pipeline.submit(numbered(1 + n))) for n in range(places)]
            await until(lambda: pipeline._running.waiting == (1 if decoded else LEAST_AHEAD - 1))
            high = asyncio.create_task(pipeline.submit(numbered(99), priority=1))
            pushed_out = await low[-1]
            assert isinstance(pushed_out.outcome.error, QueueFull)
            gate.set()
            assert number_in((await high).outcome) == 99
            for number, task in enumerate(low[:-1], start=1):
                assert number_in((await task).outcome) == number

    asyncio.run(main())


def test_waiting_items_meet_their_deadlines_while_the_instance_is_busy():
    async def main() -> None:
        async with held() as (pipeline, _):
            now = time.monotonic()
            record = await pipeline.submit(numbered(1), deadline=now + 0.02)
            assert isinstance(record.outcome.error, DeadlineExceeded)
            assert record.batch_size == 0
            assert "run" not in record.outcome.timings_ms
            with pytest.raises(DeadlineExceeded):
                await pipeline.infer({"input": np.ones((2, 1), np.float32)}, deadline=now + 0.04)

    asyncio.run(main())


def test_the_default_deadline_is_the_policys():
    async def main() -> None:
        async with held(deadline_ms=15) as (pipeline, _):
            record = await pipeline.submit(numbered(1))
            assert isinstance(record.outcome.error, DeadlineExceeded)

    asyncio.run(main())


@pytest.mark.parametrize("deadline", [float("nan"), float("-inf"), 0.0])
def test_a_deadline_that_is_no_time_to_come_is_refused(deadline):
    async def main() -> None:
        async with make() as pipeline:
            record = await pipeline.submit(numbered(1), deadline=deadline)
            assert isinstance(record.outcome.error, DeadlineExceeded)

    asyncio.run(main())


def test_decoding_goes_by_priority_too():
    order: list[int] = []
    entered, gate = threading.Event(), threading.Event()

    class Slow(FakeModel):
        def preprocess(self, image):
            entered.set()
            assert gate.wait(5)
            prepared = super().preprocess(image)
            order.append(prepared.context)
            return prepared

    async def main() -> None:
        async with make(Slow(), workers=1) as pipeline:
            first = asyncio.create_task(pipeline.submit(numbered(0)))
            await asyncio.to_thread(entered.wait, 5)
            rest = [
                asyncio.create_task(pipeline.submit(numbered(n), priority=n)) for n in (1, 3, 2)
            ]
            await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(first, *rest)

    asyncio.run(main())
    assert order == [0, 3, 2, 1]


def test_instances_work_side_by_side():
    gate = threading.Event()
    models = [FakeModel(FakeRuntime(gate=gate)) for _ in range(2)]

    async def main() -> None:
        async with make(*models) as pipeline:
            tasks = [asyncio.create_task(pipeline.submit(numbered(n))) for n in range(2)]
            await until(lambda: all(model.fake.batches for model in models))
            gate.set()
            assert [number_in((await task).outcome) for task in tasks] == [0, 1]

    asyncio.run(main())
    assert [len(model.fake.threads) for model in models] == [1, 1]
    assert all(model.fake.closed for model in models)


def test_a_model_of_a_fixed_batch_caps_the_batches():
    model = FakeModel(FakeRuntime(fixed_batch=1))

    async def main() -> None:
        async with make(model, max_batch=8) as pipeline:
            records = await asyncio.gather(*(pipeline.submit(numbered(n)) for n in range(6)))
            assert [number_in(r.outcome) for r in records] == list(range(6))
            rows = np.arange(4, dtype=np.float32)[:, None]
            assert ((await pipeline.infer({"input": rows}))["output"] == rows).all()

    asyncio.run(main())
    assert set(model.fake.batches) == {1}


def test_rows_of_many_requests_share_batches():
    model, gate = gated()

    async def main() -> None:
        async with make(model, max_batch=8) as pipeline:
            first = asyncio.create_task(pipeline.submit(numbered(1)))
            await until(lambda: model.fake.batches)
            rows = [np.full((3, 1), n, np.float32) for n in range(2)]
            tasks = [asyncio.create_task(pipeline.infer({"input": row})) for row in rows]
            await asyncio.sleep(0)
            assert pipeline.queue_depth == 6
            gate.set()
            for task, row in zip(tasks, rows, strict=True):
                assert ((await task)["output"] == row).all()
            await first

    asyncio.run(main())
    assert model.fake.batches == [1, 6]


def test_cancelling_a_request_of_raw_tensors_takes_its_rows_out():
    async def main() -> None:
        async with held() as (pipeline, _):
            rows = np.zeros((4, 1), np.float32)
            task = asyncio.create_task(pipeline.infer({"input": rows}))
            await asyncio.sleep(0)
            assert pipeline.queue_depth == 4
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert pipeline.queue_depth == 0

    asyncio.run(main())


def test_more_rows_than_the_queue_holds_are_refused():
    async def main() -> None:
        async with make(max_queue=4) as pipeline:
            with pytest.raises(InvalidTensor, match="at most 4"):
                await pipeline.infer({"input": np.zeros((5, 1), np.float32)})

    asyncio.run(main())


def test_rows_whose_outputs_differ_in_shape_cannot_be_joined():
    with pytest.raises(ModelRunFailed, match="different shapes"):
        join([{"output": np.zeros(2)}, {"output": np.zeros(3)}])


def test_without_an_instance_there_is_no_pipeline():
    with pytest.raises(ConfigError):
        ModelPipeline([], batching=Batching(), limits=Limits())


def test_a_record_keeps_no_pixels_alive():
    class Tensor(np.ndarray):
        pass

    rows: list[weakref.ref] = []

    class Watched(FakeModel):
        def preprocess(self, image: Image):
            prepared = super().preprocess(image)
            row = prepared.tensors["input"].view(Tensor)
            rows.append(weakref.ref(row))
            return type(prepared)({"input": row}, 1, 1, prepared.context)

    poison = {2.0: ModelRunFailed("poison")}
    model = Watched(FakeRuntime(poison=poison), bad_outputs={3: InvalidTensor("no")})

    async def main() -> None:
        async with make(model, max_batch=4) as pipeline:
            records = await asyncio.gather(*(pipeline.submit(numbered(n)) for n in range(6)))
            await until(lambda: gc.collect() >= 0 and not any(row() is not None for row in rows))
            assert len(rows) == len(records) == 6

    asyncio.run(main())


def test_a_png_goes_all_the_way():
    async def main() -> None:
        async with make() as pipeline:
            record = await pipeline.submit(numbered_png(77))
            assert number_in(record.outcome) == 77
            assert isinstance(record.outcome, Outcome)

    asyncio.run(main())
