"""What every benchmark shares: the machine's name, interleaved timing, one table.

Run a benchmark as ``python benchmarks/x.py``; its folder is then on the path, so that
``from common import machine, interleaved, show`` works.
"""

from __future__ import annotations

import gc
import os
import platform
import random
import statistics
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Timing:
    """Seconds of one call: all samples, in the order they were taken.

    With ``inner`` calls a sample, each sample is their mean.
    """

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.samples)

    @property
    def best(self) -> float:
        """Fastest sample in seconds: the least disturbed one on a shared machine."""
        return min(self.samples)


def machine() -> str:
    """Return one line: processor, cores this process may use, system, Python."""
    name = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {usable} cores, {platform.system()}, Python {platform.python_version()}"


def interleaved(
    functions: Mapping[str, Callable[[], Any]],
    *,
    rounds: int = 15,
    inner: int = 1,
    warmup: int = 2,
    cpu: bool = False,
) -> dict[str, Timing]:
    """Time functions A B A B, so that a noisy moment hits all of them alike.

    The order within a round is shuffled (the same way every run): none always follows the one
    that empties the caches.

    Args:
        functions: Name to a call without arguments; set-up belongs outside of it.
        rounds: Samples of each function.
        inner: Calls averaged into one sample; raise it for calls under 0.1 ms.
        warmup: Calls of each function before the first sample.
        cpu: Measure this process's CPU seconds instead of wall time.
    """
    clock = time.process_time if cpu else time.perf_counter
    shuffle = random.Random(0)
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        for _ in range(warmup):
            function()
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name in shuffle.sample(list(functions), len(functions)):
                function = functions[name]
                start = clock()
                for _ in range(inner):
                    function()
                samples[name].append((clock() - start) / inner)
    finally:
        gc.enable()
    return {name: Timing(tuple(values)) for name, values in samples.items()}


def ms(seconds: float) -> str:
    """Format seconds as milliseconds with three significant digits, for a table's cell."""
    value = seconds * 1e3
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def show(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    notes: Sequence[str] = (),
) -> None:
    """Print the benchmark's one table; the first column is text, the others are figures.

    The machine's line goes under it, then the notes.
    """
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(table)
    console.print(machine(), style="dim", highlight=False)
    for note in notes:
        console.print(note, style="dim", highlight=False)


def peer_python(name: str, *, shared: bool = True) -> str:
    """Return the Python of a peer's environment, which is made when its requirements are new.

    Args:
        name: Of its requirements, ``peers/NAME.txt``.
        shared: Whether it sees this environment's packages too, after its own.
    """
    here = Path(__file__).resolve().parent
    folder, requirements = here.parent / "build" / "peers" / name, here / "peers" / f"{name}.txt"
    python, done = folder / "bin" / "python", folder / ".done"
    wanted = requirements.read_text("utf-8")
    if not done.exists() or done.read_text("utf-8") != wanted:
        print(f"making {folder} ...", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
        if shared:
            version = f"python{sys.version_info.major}.{sys.version_info.minor}"
            path = folder / "lib" / version / "site-packages" / "shared.pth"
            path.write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
        done.write_text(wanted, "utf-8")
    return str(python)
