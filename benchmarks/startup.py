"""How long the program takes to start, and the memory of a loaded server."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import psutil

from assets import weights
from common import show

ROUNDS = 9


def seconds(*words: str) -> float:
    samples = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
        samples.append(time.perf_counter() - began)
    return statistics.median(samples)


def server() -> tuple[float, float]:
    """Return seconds until it is ready, and its resident memory in MB then."""
    command = [sys.executable, "-m", "retinue", "up", "--port", "0"]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    ready = time.perf_counter() - began
    memory = psutil.Process(process.pid).memory_info().rss / 1e6
    process.terminate()
    process.communicate()
    return ready, memory


def main() -> None:
    weights("nanodet-g-416")
    bare = seconds("-c", "pass")
    ready, memory = server()
    rows = [
        ("python -c pass", f"{bare:.3f} s"),
        ("import retinue", f"{seconds('-c', 'import retinue'):.3f} s"),
        ("retinue --help", f"{seconds('-m', 'retinue', '--help'):.3f} s"),
        ("retinue up, until ready (nanodet-g-416)", f"{ready:.2f} s"),
        ("retinue up, resident memory then", f"{memory:.0f} MB"),
    ]
    notes = [f"Commands: the median of {ROUNDS}; the server: one start."]
    show("Start", ("what", "figure"), rows, notes=notes)


if __name__ == "__main__":
    main()
