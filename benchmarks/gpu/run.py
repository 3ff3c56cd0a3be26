"""All GPU measurements in one call, each section a process of its own within a time of its own.

    python benchmarks/gpu/run.py --out DIR [--budget 540] [--work DIR --only prepare curves ...]
    python benchmarks/gpu/run.py --out DIR --quick --device cpu    # tries everything out, 2 minutes

A whole run takes about eleven minutes; where a call may not take so long, ``--work`` keeps the
exported programs for a second call, with the other sections in ``--only``.

Writes ``results.json``, ``results.md`` and the sections' logs to DIR. A section that fails or runs
out of time keeps what it measured, says why in the results, and the others go on.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LAST_S = 10.0  # of the budget, for the report
GRACE_S = 5.0
LOG_END = 4000


@dataclass(frozen=True)
class Part:
    """A section with its arguments.

    Attributes:
        name: What it is called, also on the command line.
        module: Its file, without the ending.
        limit_s: Most seconds that it may take.
        networks: The networks that it measures.
    """

    name: str
    module: str
    limit_s: float
    networks: tuple[str, ...] = ("vit", "resnet")


PARTS = (
    Part("prepare", "prepare", 120),
    Part("curves", "curves", 130),
    Part("serving-vit", "serving", 240, ("vit",)),
    Part("serving-resnet", "serving", 240, ("resnet",)),
    Part("scheduling", "scheduling", 200),
)


def unpack(folder: Path) -> None:
    """Unpack the wheels of ``.whl/`` that fit this Python; none of them needs more than that."""
    here = f"cp3{sys.version_info.minor}-"
    for wheel in sorted((ROOT / ".whl").glob("*.whl")):
        if "-none-any" in wheel.name or here in wheel.name or "-abi3-" in wheel.name:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)


def environment(folder: Path) -> dict[str, str]:
    """Return the sections' environment: the source, the other benchmarks, the wheels."""
    paths = [str(ROOT / "src"), str(HERE.parent), str(folder)]
    try:
        importlib.metadata.version("opencv-python-headless")
    except importlib.metadata.PackageNotFoundError:
        paths.append(str(HERE / "without"))
    if before := os.environ.get("PYTHONPATH"):
        paths.append(before)
    return {**os.environ, "PYTHONPATH": ":".join(paths), "PYTHONUNBUFFERED": "1"}


def run_part(part: Part, given: argparse.Namespace, until: float, env: dict[str, str]) -> dict:
    """Run one section; return its results."""
    began = time.time()
    end = min(began + part.limit_s, until)
    log = given.out / f"{part.name}.log"
    command = [
        *(sys.executable, str(HERE / f"{part.module}.py"), part.name),
        *("--device", given.device, "--work", str(given.work), "--until", str(end)),
        *("--networks", *part.networks),
        *(("--quick",) if given.quick else ()),
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=subprocess.STDOUT, env=env, start_new_session=True
        )
    try:
        process.wait(end - began + GRACE_S)
        failure = f"exit status {process.returncode}" if process.returncode else ""
    except subprocess.TimeoutExpired:
        failure = f"its time was up after {time.time() - began:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its servers too: they hold the GPU
        process.wait()
    rows = given.work / f"{part.name}.json"
    return {
        "seconds": round(time.time() - began, 1),
        "failure": f"{failure}: {log.read_text(errors='replace')[-LOG_END:]}" if failure else "",
        "rows": json.loads(rows.read_text()) if rows.exists() else [],
    }


def about(env: dict[str, str]) -> dict[str, str]:
    """Return what the figures were measured on."""
    code = (
        "import torch, counters\n"
        "print(torch.__version__, torch.version.cuda)\n"
        "print(torch.cuda.get_device_name() if torch.cuda.is_available() else 'no GPU')\n"
        "print(counters.device_line())"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=HERE, capture_output=True, text=True
    )
    torch, device, line, *_ = [*process.stdout.splitlines(), "?", "?", ""]
    name = platform.machine()
    for text in Path("/proc/cpuinfo").read_text().splitlines():
        if text.startswith("model name"):
            name = text.partition(":")[2].strip()
            break
    return {
        "device": line or device,
        "processor": f"{name}, {len(os.sched_getaffinity(0))} cores",
        "software": f"Python {platform.python_version()}, PyTorch {torch}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def main() -> None:
    """Run the sections, write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--budget", type=float, default=540.0, help="seconds for everything")
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS])
    parser.add_argument("--quick", action="store_true", help="tiny networks, a minute in all")
    parser.add_argument("--work", type=Path, help="keeps the programs for a second call")
    given = parser.parse_args()
    until = time.time() + given.budget - LAST_S
    given.out = given.out.absolute()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gpu-") as temporary:
        given.work = (given.work or Path(temporary)).absolute()
        given.work.mkdir(parents=True, exist_ok=True)
        unpack(Path(temporary) / "site")
        env = environment(Path(temporary) / "site")
        results: dict[str, Any] = {"about": about(env), "sections": {}}
        for part in PARTS:
            if given.only and part.name not in given.only:
                continue
            if time.time() > until - LAST_S:
                found = {"seconds": 0, "failure": "no time was left", "rows": []}
            else:
                found = run_part(part, given, until, env)
            results["sections"][part.name] = found
            print(f"{part.name}: {found['seconds']} s {found['failure'][:80]}", flush=True)
            (given.out / "results.json").write_text(json.dumps(results, indent=1))
            command = [sys.executable, HERE / "report.py", given.out / "results.json"]
            text = subprocess.run(command, capture_output=True, text=True, env=env)
            (given.out / "results.md").write_text(text.stdout + text.stderr)
        for log in given.work.glob("*.log"):
            (given.out / log.name).write_bytes(log.read_bytes())


if __name__ == "__main__":
    main()
