"""Which batching does best for each peer: `serving_load.py` uses the winner of this.

    python benchmarks/peer_batching.py [--rounds 3] [--rate 30]

Every setting in turn, in rounds (A B A B): capacity with a few clients that wait, CPU time a
request, and goodput under an open-loop load at a rate near the capacity, deadline 500 ms.
"""

from __future__ import annotations

import argparse
import statistics
from dataclasses import replace

import servers
from assets import weights
from common import show
from servers import CLIENTS, MODEL, PHOTO, Server, closed, generate, warm_up

DEADLINE_MS = 500
TRIED = {
    servers.litserve: (
        {},
        {"API_SERVERS": "2"},
        {"MAX_BATCH": "4"},
        {"MAX_BATCH": "4", "WAIT_S": "0.005"},
    ),
    servers.mosec: (
        {},
        {"MAX_BATCH": "4", "WAIT_MS": "5"},
        {"STAGES": "2"},
        {"STAGES": "2", "MAX_BATCH": "4", "WAIT_MS": "5"},
    ),
    servers.pytriton: ({}, {"MAX_BATCH": "4"}, {"MAX_BATCH": "4", "WAIT_S": "0.005"}),
}


def measure(server: Server, rate: float, seconds: float) -> tuple[float, float, float]:
    """Return capacity a second, CPU ms a request, goodput a second."""
    with servers.running(server) as running:
        warm_up(running)
        most = closed(running, CLIENTS, seconds)
        arguments = ("--rate", str(rate), "--seconds", str(seconds))
        found = generate("open_loop.py", running, *arguments, "--deadline-ms", str(DEADLINE_MS))
    return most["per_s"], most["cpu_ms"], found["good_per_s"]


def main() -> None:
    """Try everything and print one table of medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate", type=float, default=30.0, help="of the open loop, a second")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    given = parser.parse_args()
    entry, body = weights(MODEL), PHOTO.read_bytes()
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    for _ in range(given.rounds):
        for make, settings in TRIED.items():
            for more in settings:
                server = make(entry, body=body, deadline_ms=DEADLINE_MS)
                server = replace(server, environment={**server.environment, **more})
                said = " ".join(f"{key}={value}" for key, value in more.items())
                figures = measure(server, given.rate, given.seconds)
                found.setdefault((server.name, said or "no batches"), []).append(figures)
    rows = [
        (name, said, *(f"{statistics.median(column):.1f}" for column in zip(*them, strict=True)))
        for (name, said), them in found.items()
    ]
    columns = ("server", "setting", "capacity/s", "CPU ms/request", "good/s")
    show("Batching of the peers", columns, rows, notes=[f"good/s at {given.rate:g} offered/s"])


if __name__ == "__main__":
    main()
