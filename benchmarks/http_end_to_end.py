"""``/v1/detect`` against the same ONNX file behind Flask and gunicorn, A B A B in one run.

    python benchmarks/http_end_to_end.py [--seconds 4] [--rounds 2]

Both run two models of one thread each on the CPU; see `servers.py` for how they are started.
Retinue also writes a durable record of every request, its default, which the prototype does not.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Mapping

import servers
from assets import weights
from common import show
from retinue.core.settings import load_settings
from servers import INSTANCES, MODEL, PHOTO, Running, check_same, closed

CONCURRENCY = (1, 8, 32)


def measure(running: Running, concurrency: int, seconds: float) -> dict[str, float]:
    """Run the load generator once."""
    found = closed(running, concurrency, seconds)
    wrong = sum(n for status, n in found["statuses"].items() if status != "200")
    figures = {key: found[key] for key in ("per_s", "p50_ms", "p99_ms", "cpu_ms")}
    return figures | {"failed": wrong + found["broken"]}


def main() -> None:
    """Run both and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    entry, body = weights(MODEL), PHOTO.read_bytes()
    rows: dict[tuple[int, str], list[dict[str, float]]] = {}
    with (
        tempfile.TemporaryDirectory() as home,
        servers.running(servers.retinue(entry, load_settings().cache, home, body=body)) as ours,
        servers.running(servers.flask(entry, body=body)) as theirs,
    ):
        both = (ours, theirs)
        check_same({one.server.name: servers.detections(one.server, one.ask()) for one in both})
        for one in both:
            measure(one, INSTANCES, 1.0)
        for concurrency in CONCURRENCY:
            for _ in range(given.rounds):
                for one in both:
                    found = measure(one, concurrency, given.seconds)
                    rows.setdefault((concurrency, one.server.name), []).append(found)
        memory = {one.server.name: one.memory_mb() for one in both}
    report(rows, memory)


def report(
    rows: Mapping[tuple[int, str], list[dict[str, float]]], memory: Mapping[str, float]
) -> None:
    """Print the table: medians over the rounds."""

    def middle(found: list[dict[str, float]], key: str) -> str:
        return f"{statistics.median(one[key] for one in found):.1f}"

    table = [
        [
            name,
            concurrency,
            *(middle(found, key) for key in ("per_s", "p50_ms", "p99_ms", "cpu_ms")),
            int(sum(one["failed"] for one in found)),
        ]
        for (concurrency, name), found in rows.items()
    ]
    columns = ["server", "concurrent", "requests/s", "p50 ms", "p99 ms", "CPU ms/request", "failed"]
    notes = [
        f"{MODEL} on {PHOTO.name}, ONNX Runtime f32, {INSTANCES} models of one thread each.",
        "Same work: both find the same boxes.",
        "Memory (PSS): " + ", ".join(f"{name} {mb:.0f} MB" for name, mb in memory.items()) + ".",
    ]
    show("HTTP end to end", columns, table, notes=notes)


if __name__ == "__main__":
    main()
