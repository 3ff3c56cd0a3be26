"""What the sections share: their arguments, how long things take, and how results are kept.

A section is a process of its own, so that an error, a hang or a lost GPU context ends only that
section; it writes its results after every measurement, so that what was measured stays when its
time is up.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        batches: Batch sizes of the curves.
        curve_s: Seconds of one point of a curve.
        load_s: Seconds of one offered load, after ``settle_s`` seconds that do not count.
        settle_s: See ``load_s``.
        loads: Offered loads of each network's servers, requests a second.
        instances: Instances of a model.
        max_batch: Most images of a run.
        window_ms: The server's batching window.
        windows_ms: The windows that are compared.
        deadline_ms: Answers that take longer are of no use.
        in_flight: Requests that are kept under way to find a pipeline's ceiling.
    """

    batches: tuple[int, ...]
    curve_s: float
    load_s: float
    settle_s: float
    loads: dict[str, tuple[int, ...]]
    instances: int = 4
    max_batch: int = 32
    window_ms: float = 5.0
    windows_ms: tuple[float, ...] = (0.0, 1.0, 2.0, 5.0, 10.0)
    deadline_ms: float = 100.0
    in_flight: int = 256


FULL = Plan(
    batches=(1, 2, 4, 8, 16, 32, 64),
    curve_s=0.8,
    load_s=4.0,
    settle_s=1.0,
    loads={"vit": (50, 200, 400, 800, 1600, 2400), "resnet": (400, 1600, 3200, 4800)},
)
QUICK = Plan(
    batches=(1, 2, 4),
    curve_s=0.1,
    load_s=1.0,
    settle_s=0.3,
    loads={"vit": (20, 200), "resnet": (20, 200)},
    instances=2,
    max_batch=4,
    windows_ms=(0.0, 5.0),
    in_flight=16,
)


@dataclass(frozen=True)
class Section:
    """A section's arguments and its results so far.

    Attributes:
        name: Its name, which is also that of its results' file.
        device: "cuda" or "cpu".
        quick: Whether tiny networks are measured briefly, to try the program out.
        work: Folder of programs, logs and results.
        until: When it must be done, in seconds since the epoch.
        networks: Names of the networks to measure.
        rows: Its results so far.
    """

    name: str
    device: str
    quick: bool
    work: Path
    until: float
    networks: tuple[str, ...]
    rows: list[dict[str, Any]]

    @property
    def plan(self) -> Plan:
        """How much is measured."""
        return QUICK if self.quick else FULL

    @property
    def size(self) -> int:
        """Height and width of the images in pixels."""
        return 56 if self.quick else 224

    def program(self, network: str) -> Path:
        """Return where a network's exported program is."""
        return self.work / f"{network}.pt2"

    def left(self, needed_s: float = 0.0) -> bool:
        """Return whether there is time for something that takes so long."""
        return time.time() + needed_s < self.until

    def add(self, **row: Any) -> None:
        """Keep one result, also on the disk."""
        self.rows.append(row)
        path = self.work / f"{self.name}.json"
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.rows, indent=1))
        temporary.replace(path)
        print(json.dumps(row), flush=True)


def arguments() -> Section:
    """Read the command line that `run.py` gives every section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--device", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--until", type=float, required=True, help="seconds since the epoch")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--networks", nargs="+", default=["vit", "resnet"])
    given = parser.parse_args()
    return Section(
        given.name,
        given.device,
        given.quick,
        given.work,
        given.until,
        tuple(given.networks),
        [],
    )


def images(count: int, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return random images (N, 3, H, W), the same every time."""
    return np.random.default_rng(0).integers(0, 256, (count, 3, size, size), np.uint8)
