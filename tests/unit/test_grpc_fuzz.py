"""Whatever is sent to the protocol's fronts gets an answer of the error tree, never a crash.

FUZZ_EXAMPLES asks for more cases; ``benchmarks/fuzz.py`` runs 100,000.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import grpc
import pytest
from hypothesis import HealthCheck, given, settings
from starlette.types import ASGIApp

from retinue.core.errors import RetinueError
from retinue.core.settings import Settings
from retinue.host import http
from retinue.host.edge import State
from retinue.host.oip import messages, methods
from retinue.testing.grpc_server import GrpcServer
from retinue.testing.host import FakeHost
from retinue.testing.oip_fuzz import (
    GRPC_ANSWERS,
    grpc_requests,
    post,
    rest_answer_is_fine,
    rest_requests,
)

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "200")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def call() -> Iterator[grpc.UnaryUnaryMultiCallable]:
    with GrpcServer() as server, grpc.insecure_channel(server.address) as channel:
        yield channel.unary_unary(f"/{methods.SERVICE}/ModelInfer")


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as opened:
        yield opened


@pytest.fixture(scope="module")
def unary() -> dict[str, methods.Handler]:
    return methods.Methods(FakeHost(Settings()), State(ready=True)).unary()


@pytest.fixture(scope="module")
def app() -> ASGIApp:
    return http.build(FakeHost(Settings()), State(ready=True))


@fuzz
@given(raw=grpc_requests())
def test_the_grpc_front_over_the_wire(call: grpc.UnaryUnaryMultiCallable, raw: bytes) -> None:
    try:
        messages.parse("ModelInferResponse", call(raw, timeout=20))
    except grpc.RpcError as error:
        assert error.code().name in GRPC_ANSWERS, error.details()


@pytest.mark.parametrize("name", ["ModelInfer", "ModelStatistics", "RepositoryModelLoad"])
@fuzz
@given(raw=grpc_requests())
def test_the_grpc_methods(
    name: str, unary: dict[str, methods.Handler], runner: asyncio.Runner, raw: bytes
) -> None:
    async def answer() -> bytes:
        return await unary[name](raw, methods.Call("me", None))

    try:
        runner.run(answer())
    except RetinueError as error:
        assert error.grpc_status in GRPC_ANSWERS, error.message


@fuzz
@given(request=rest_requests())
def test_the_rest_front(
    app: ASGIApp, runner: asyncio.Runner, request: tuple[str, dict[str, str], bytes]
) -> None:
    status = runner.run(asyncio.wait_for(post(app, *request), 20))
    assert rest_answer_is_fine(status), status
