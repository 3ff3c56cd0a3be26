"""Vector indexes side by side at a size, each in a process of its own: time, memory, recall.

    python benchmarks/index_peers.py [--count 1000000] [--dim 512] [--only NAME ...] [--budget-s N]
        [--ask-cores N]

All read the same memory-mapped float16 file, which is made from a seed and kept under build/. The
effort of a search is doubled until recall@10 is ``--recall``; the table has that step, or the last
one. Who builds for longer than the budget is stopped, and the table says at how many vectors.
usearch and lancedb are installed into an environment under build/peers/.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import ms, peer_python, show

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE / "peers"))

from indexes import CHUNK, CORES, OUTSIDE, PEERS, K  # noqa: E402

BUILD = HERE.parent / "build"
QUERIES, SEED = 200, 3
GRACE_S = 120


def data_of(count: int, dim: int) -> Path:
    """Return the folder of rows, queries and their true neighbours, which is made once."""
    from index import clustered

    folder = BUILD / "index_peers" / f"{count}x{dim}"
    if (folder / "truth.npy").exists():
        return folder
    print(f"making {folder} ...", file=sys.stderr, flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(SEED)
    centres = random.standard_normal((max(1000, count // 1000), dim), np.float32)
    centres *= 2 / np.sqrt(dim)
    queries = clustered(random, centres, QUERIES)
    np.save(folder / "queries.npy", queries)
    rows = np.lib.format.open_memmap(folder / "rows.npy", "w+", np.float16, (count, dim))
    best = np.full((QUERIES, K), -1, np.int64)
    near = np.full((QUERIES, K), -np.inf, np.float32)
    for begin in range(0, count, CHUNK):
        part = clustered(random, centres, min(CHUNK, count - begin)).astype(np.float16)
        rows[begin : begin + len(part)] = part
        cosines = np.hstack([near, queries @ part.astype(np.float32).T])
        ids = np.hstack([best, np.tile(np.arange(begin, begin + len(part)), (QUERIES, 1))])
        order = np.argpartition(-cosines, K, axis=1)[:, :K]
        best, near = np.take_along_axis(ids, order, 1), np.take_along_axis(cosines, order, 1)
    rows.flush()
    np.save(folder / "truth.npy", best)
    return folder


def outside() -> str:
    """Return a Python that has usearch and lancedb."""
    if all(map(importlib.util.find_spec, ("usearch", "lancedb"))):
        return sys.executable
    return peer_python("indexes")


def run(name: str, data: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run a peer in a process of its own."""
    python = outside() if name in OUTSIDE else sys.executable
    with tempfile.TemporaryDirectory(dir=BUILD) as folder:
        limits = [str(options.budget_s), str(options.recall), str(options.ask_cores)]
        command = [python, str(HERE / "peers" / "indexes.py"), name, str(data), folder, *limits]
        quiet = {"OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(CORES), "RUST_LOG": "error"}
        # Building and asking have the budget each; a step that cannot be stopped has grace.
        limit = 2 * options.budget_s + GRACE_S
        start = time.perf_counter()
        try:
            done = subprocess.run(
                command, env={**os.environ, **quiet}, stdout=subprocess.PIPE, timeout=limit
            )
        except subprocess.TimeoutExpired:
            progress = Path(folder, "progress")
            given = int(progress.read_text("utf-8")) if progress.exists() else 0
            return {"stopped": time.perf_counter() - start, "given": given}
    if done.returncode:
        return {"failed": done.returncode}
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def row_of(name: str, figures: dict[str, Any], count: int) -> tuple[str, ...]:
    """Return a row of the table."""
    if "failed" in figures:
        reason = "out of memory" if figures["failed"] == -9 else f"exit {figures['failed']}"
        return (name, f"failed: {reason}", *[""] * 7)
    if "stopped" in figures:
        stopped = f"stopped after {figures['stopped']:.0f} s, {figures['given']:,} in"
        return (name, stopped, *[""] * 7)
    step = figures["steps"][-1]
    mega = [f"{(figures[when] - figures['before']) / 2**20:,.0f}" for when in ("after", "peak")]
    return (
        name,
        f"{figures['build_s']:.1f}",
        *mega,
        f"{figures['disk'] / 2**20:,.0f}",
        f"{step['effort']}",
        f"{step['recall']:.3f}",
        ms(step["p50"]),
        ms(step["p95"]),
    )


def main() -> None:
    """Run the peers and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--recall", type=float, default=0.95)
    parser.add_argument("--budget-s", type=float, default=1800)
    parser.add_argument("--ask-cores", type=int, default=CORES, help="cores that queries may use")
    options = parser.parse_args()
    data = data_of(options.count, options.dim)
    rows = [row_of(name, run(name, data, options), options.count) for name in options.only]
    columns = ("", "build s", "MB", "peak MB", "disk MB", "effort", "recall@10", "p50 ms", "p95 ms")
    show(
        f"{options.count:,} x {options.dim}, clustered, synthetic",
        columns,
        rows,
        notes=(
            "MB: the process's own memory after the build, above what it had before; pages of"
            " mapped files, such as the float16 rows, are not counted",
            f"built on {CORES} cores, asked one query at a time on {options.ask_cores}",
            f"effort: nprobe or ef, doubled until recall is {options.recall:g}",
        ),
    )


if __name__ == "__main__":
    main()
