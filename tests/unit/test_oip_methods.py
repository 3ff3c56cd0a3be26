"""The gRPC methods from message to message: what is read off the event loop."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from retinue.core.errors import InvalidTensor
from retinue.core.settings import Settings
from retinue.host.edge import State
from retinue.host.oip import messages
from retinue.host.oip.methods import BIG, Call, Methods
from retinue.testing.host import FakeHost


def _raw(datatype: str, count: int) -> bytes:
    message = messages.new(
        "ModelInferRequest",
        model_name="fake",
        inputs=[{"name": "x", "datatype": datatype, "shape": [count, 2]}],
        raw_input_contents=[bytes(8 * count)],
    )
    return bytes(message.SerializeToString())


@pytest.mark.parametrize(
    ("datatype", "count", "moved"),
    [("FP32", 1, 0), ("FP32", BIG // 8 + 1, 0), ("BYTES", 1, 0), ("BYTES", BIG // 8 + 1, 1)],
)
def test_many_strings_are_read_off_the_event_loop(
    datatype: str, count: int, moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    works: list[Any] = []

    async def to_thread(work: Any) -> Any:
        works.append(work)
        return work()

    monkeypatch.setattr(asyncio, "to_thread", to_thread)
    methods = Methods(FakeHost(Settings()), State(ready=True))
    infer = methods.unary()["ModelInfer"](_raw(datatype, count), Call("me", None))
    if datatype == "BYTES":
        with pytest.raises(InvalidTensor, match="must be FP32"):
            asyncio.run(infer)
    else:
        assert asyncio.run(infer)
    stream = methods.stream_infer(_raw(datatype, count), Call("me", None))
    answer = messages.parse("ModelStreamInferResponse", asyncio.run(stream))
    assert bool(answer.error_message) is (datatype == "BYTES")
    assert len(works) == 2 * moved
