"""Run every benchmark, one after the other, each in a process of its own.

``make bench`` runs all; ``python benchmarks/run.py decode nms`` runs those named. Not among them is
``soak.py``, for it takes half an hour.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BENCHMARKS = (
    "accuracy",
    "decode",
    "nms",
    "index",
    "retrieval",
    "search_bulk",
    "search_million",
    "scheduling",
    "runtimes",
    "records",
    "startup",
    "http_end_to_end",
    "serving_load",
    "connections",
    "int8",
    "hot_swap",
    "guard",
    "ar_pose",
    "ar_jitter",
    "ar",
)


def main() -> None:
    """Run the named benchmarks; exit with 1 if any failed."""
    names = sys.argv[1:] or BENCHMARKS
    failed = []
    for name in names:
        print(f"== {name}", flush=True)
        if subprocess.run([sys.executable, HERE / f"{name}.py"]).returncode:
            failed.append(name)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
