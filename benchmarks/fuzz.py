"""Fuzz both fronts of the Open Inference Protocol: by default 100,000 requests in all.

    python benchmarks/fuzz.py [--cases 100000] [--seed 0]

The requests are those of ``retinue.testing.oip_fuzz``: good, nearly good and bad ones, over gRPC's
wire and through the whole HTTP application, with fake models. Prints how they were answered; exits
with 1 if any answer is not of the error tree's own, after printing the request.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy
from rich.console import Console
from rich.table import Table

from common import machine
from retinue.core.settings import Settings
from retinue.host import http
from retinue.host.edge import State
from retinue.host.oip import methods
from retinue.testing.grpc_server import GrpcServer
from retinue.testing.host import FakeHost
from retinue.testing.oip_fuzz import (
    GRPC_ANSWERS,
    grpc_requests,
    post,
    rest_answer_is_fine,
    rest_requests,
)

ROUND = 1000  # cases of one search: what it remembers of each would fill the memory


class Front:
    """One front: how a case is sent, and what came of all."""

    def __init__(
        self,
        name: str,
        cases: SearchStrategy[Any],
        send: Callable[[Any], str],
        fine: Callable[[str], bool],
    ) -> None:
        self.name = name
        self.answers: Counter[str] = Counter()
        self.seconds = 0.0
        self._cases, self._send, self._fine = cases, send, fine

    def run(self, count: int, number: int) -> None:
        """Send so many cases, drawn by a seed."""

        @seed(number)
        @settings(
            max_examples=count,
            phases=[Phase.generate],
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=self._cases)
        def search(case: Any) -> None:
            answer = self._send(case)
            self.answers[answer] += 1
            if not self._fine(answer):
                sys.exit(f"{self.name} answered {answer} to {case!r}")

        began = time.perf_counter()
        search()
        self.seconds += time.perf_counter() - began


def over_grpc(call: grpc.UnaryUnaryMultiCallable, raw: bytes) -> str:
    """Send one request and return the status."""
    try:
        call(raw, timeout=30)
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def show(fronts: list[Front]) -> None:
    """Print one row a front."""
    table = Table(title=f"Fuzzed fronts, {machine()}")
    for column in ("front", "cases", "seconds", "answers"):
        table.add_column(column, justify="left" if column == "answers" else "right")
    for front in fronts:
        answers = ", ".join(f"{count} x {name}" for name, count in front.answers.most_common())
        total = sum(front.answers.values())
        table.add_row(front.name, str(total), f"{front.seconds:.0f}", answers)
    Console(width=140).print(table)


def main() -> None:
    """Run all fronts in turns."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    app = http.build(FakeHost(Settings()), State(ready=True))
    with (
        asyncio.Runner() as runner,
        GrpcServer() as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        call = channel.unary_unary(f"/{methods.SERVICE}/ModelInfer")
        fronts = [
            Front(
                "gRPC", grpc_requests(), lambda raw: over_grpc(call, raw), GRPC_ANSWERS.__contains__
            ),
            Front(
                "REST",
                rest_requests(),
                lambda case: str(runner.run(asyncio.wait_for(post(app, *case), 30))),
                lambda status: rest_answer_is_fine(int(status)),
            ),
        ]
        left, number = options.cases, options.seed
        while left > 0:
            for front in fronts:
                front.run(min(ROUND, -(-left // len(fronts))), number)
            left -= ROUND * len(fronts)
            number += 1
    show(fronts)


if __name__ == "__main__":
    main()
