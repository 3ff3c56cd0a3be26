"""What a model's run costs by runtime, precision and threads: ``python benchmarks/runtimes.py``.

Latency and CPU time are taken A B A B in one process; throughput is that of two instances side by
side, each in its own thread; start-up and memory come from a fresh process for each row.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from assets import weights
from common import interleaved, ms, show
from retinue.core import plugins
from retinue.core.errors import ConfigError, MissingExtra
from retinue.core.protocols import Runtime

MODELS = ("nanodet-g-416", "efficientnet-lite0")
INSTANCES = 2


@dataclass(frozen=True)
class Case:
    runtime: str
    precision: str
    threads: int

    def load(self, path: Path) -> Runtime:
        factory = plugins.load(plugins.RUNTIMES, self.runtime)
        made: Runtime = factory(path, threads=self.threads, precision=self.precision)
        return made

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}, {self.threads} thread{'s' * (self.threads > 1)}"


CASES = [
    *(Case(runtime, "f32", n) for n in (1, 2) for runtime in ("onnxruntime", "openvino")),
    Case("openvino", "bf16", 1),
    Case("openvino", "bf16", 2),
]


def runner(runtime: Runtime) -> Callable[[], object]:
    """Return a call that runs one picture of noise."""
    spec = runtime.inputs[0]
    picture = np.random.default_rng(0).normal(size=(1, *spec.shape[1:])).astype(np.float32)
    return lambda: runtime.run({spec.name: picture})


def throughput(calls: list[Callable[[], object]], seconds: float) -> float:
    """Return runs a second of all calls together, each in its own thread."""
    done = [0] * len(calls)
    end = time.perf_counter() + seconds

    def work(index: int) -> None:
        while time.perf_counter() < end:
            calls[index]()
            done[index] += 1

    start = time.perf_counter()
    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - start)


def probe(path: Path, case: Case) -> dict[str, float]:
    """Load and run in this process; say how long it took and how much it weighs, in MB."""
    process = psutil.Process()

    def resident() -> float:
        return float(process.memory_info().rss) / 2**20

    before, start = resident(), time.perf_counter()
    plugins.load(plugins.RUNTIMES, case.runtime)
    if case.runtime == "openvino":
        import openvino.frontend  # noqa: F401 - its own import is part of the start
    imported, engine = time.perf_counter(), resident()
    runtimes = [case.load(path)]
    loaded = time.perf_counter()
    call = runner(runtimes[0])
    for _ in range(5):
        call()
    one = resident()
    second = case.load(path)
    call = runner(second)
    for _ in range(5):
        call()
    return {
        "import": imported - start,
        "load": loaded - imported,
        "engine": engine - before,
        "one": one - engine,
        "second": resident() - one,
    }


def fresh(path: Path, case: Case) -> dict[str, float]:
    """Run `probe` in a new process."""
    command = [sys.executable, __file__, "--probe", str(path), case.runtime, case.precision]
    answer = subprocess.run([*command, str(case.threads)], check=True, capture_output=True)
    figures: dict[str, float] = json.loads(answer.stdout)
    return figures


def measure(name: str, path: Path, rounds: int, seconds: float) -> None:
    instances: dict[Case, list[Callable[[], object]]] = {}
    notes = []
    for case in CASES:
        try:
            instances[case] = [runner(case.load(path)) for _ in range(INSTANCES)]
        except (ConfigError, MissingExtra) as error:
            notes.append(f"{case}: {error.message}")
    ways = {str(case): calls[0] for case, calls in instances.items()}
    wall = interleaved(ways, rounds=rounds)
    cpu = interleaved(ways, rounds=rounds, cpu=True)
    rates: dict[Case, list[float]] = {case: [] for case in instances}
    for _ in range(3):
        for case, calls in instances.items():
            rates[case].append(throughput(calls, seconds))
    rows = []
    for case in instances:
        start = fresh(path, case)
        rows.append(
            (
                case,
                ms(wall[str(case)].best),
                ms(wall[str(case)].median),
                ms(cpu[str(case)].median),
                f"{max(rates[case]):.1f}",
                ms(start["import"]),
                ms(start["load"]),
                f"{start['engine']:.0f}",
                f"{start['one']:.0f}",
                f"{start['second']:.0f}",
            )
        )
    columns = ("", "best ms", "median ms", "CPU ms", f"{INSTANCES} inst./s", "import ms", "load ms")
    notes.append("MB resident: the engine, the first session after five runs, a second session.")
    title = f"{name}: one picture a run"
    show(title, (*columns, "engine MB", "1st MB", "2nd MB"), rows, notes=notes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--seconds", type=float, default=0.7, help="of each throughput sample")
    parser.add_argument("--probe", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.probe:
        path, runtime, precision, threads = options.probe
        print(json.dumps(probe(Path(path), Case(runtime, precision, int(threads)))))
        return
    for name in MODELS:
        measure(name, weights(name).path, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
