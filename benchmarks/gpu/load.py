"""Offered load from several processes, since one would be busier than the server."""

from __future__ import annotations

import functools
import math
import multiprocessing
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Self

from http_load import encode_request
from open_loop import Shot, fire, quantile, times

PER_PROCESS = 400  # requests a second
LEAD_S = 0.3

Answer = tuple[float, float, int, float, str]
"""Planned at, seconds to the end, status, lag of the generator, what broke."""


def _fire(
    url: str, data: bytes, rate: float, seconds: float, leave_s: float, start: float, seed: int
) -> list[Answer]:
    """In a process of the pool: fire one share of the load."""
    shots = (Shot(at, data, leave_s=leave_s) for at in times(rate, seconds, seed=seed))
    time.sleep(max(0.0, start - time.time()))
    outcomes = fire(url, shots)
    return [
        (one.shot.at, one.seconds, one.status, one.lag_s, "left" if one.left else one.why)
        for one in outcomes
    ]


class Generator:
    """Processes that are kept for load after load; use it in a ``with`` block."""

    def __init__(self, processes: int) -> None:
        self._most = processes
        self._pool = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def offer(
        self,
        url: str,
        body: bytes,
        headers: Mapping[str, str],
        *,
        rate: float,
        seconds: float,
        settle_s: float,
        deadline_s: float,
    ) -> dict[str, Any]:
        """Offer requests at a rate; return what came of those after the first ``settle_s``.

        Throughput counts the answers that arrived in the counted seconds, goodput those of them
        that took no longer than the deadline; a client gives up after ten deadlines.
        """
        data = encode_request(url, body, [f"{key}: {value}" for key, value in headers.items()])
        shares = min(self._most, math.ceil(rate / PER_PROCESS))
        whole = settle_s + seconds
        one = functools.partial(
            _fire, url, data, rate / shares, whole, 10 * deadline_s, time.time() + LEAD_S
        )
        answers = [row for rows in self._pool.map(one, range(shares)) for row in rows]
        return _summary(answers, settle_s, seconds, deadline_s)


def _summary(
    answers: list[Answer], settle_s: float, seconds: float, deadline_s: float
) -> dict[str, Any]:
    counted = [row for row in answers if row[0] >= settle_s]
    ended = [
        row for row in answers if row[2] == 200 and settle_s <= row[0] + row[1] < settle_s + seconds
    ]
    took = [row[1] for row in counted if row[2] == 200]
    good = sum(row[1] <= deadline_s for row in ended)
    return {
        "seconds": seconds,
        "offered_per_s": len(counted) / seconds,
        "throughput_per_s": len(ended) / seconds,
        "goodput_per_s": good / seconds,
        "p50_ms": 1e3 * quantile(took, 0.5) if took else None,
        "p99_ms": 1e3 * quantile(took, 0.99) if took else None,
        "refused": dict(Counter(str(row[2]) for row in counted if row[2] not in (0, 200))),
        "lost": dict(Counter(row[4] for row in counted if row[4])),
        "lag_p99_ms": 1e3 * quantile([row[3] for row in counted], 0.99) if counted else None,
    }
