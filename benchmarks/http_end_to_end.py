"""``/v1/detect`` against the same ONNX file behind Flask and gunicorn, A B A B in one run.

    python benchmarks/http_end_to_end.py [--seconds 4] [--rounds 2]

Flask and gunicorn are installed into ``build/bench-venv``; OpenCV, ONNX Runtime and NumPy are this
environment's own, the same for both. Both run two models of one thread each on the CPU. Retinue
also writes a durable record of every request, its default, which the prototype does not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import psutil
import sklearn

from common import show
from retinue.core.settings import default_cache
from retinue.models.registry import Entry, Registry

HERE = Path(__file__).resolve().parent
BENCH_VENV = HERE.parent / "build" / "bench-venv"
PHOTO = Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg"
MODEL = "nanodet-g-416"
WORKERS = 2
CONF = 0.25
CONCURRENCY = (1, 8, 32)


def bench_python() -> Path:
    """Return the Python of the environment with Flask and gunicorn, made on first use."""
    python = BENCH_VENV / "bin" / "python"
    done = BENCH_VENV / ".done"
    if not done.exists():
        venv.create(BENCH_VENV, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "-q", "flask>=3", "gunicorn>=23"]
        subprocess.run(install, check=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        shared = BENCH_VENV / "lib" / version / "site-packages" / "shared.pth"
        shared.write_text(sysconfig.get_path("purelib") + "\n", "utf-8")
        done.touch()
    return python


def free_port() -> int:
    """Return a port that was free a moment ago (gunicorn does not report the one it took)."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def running(command: list[str], url: str, **environment: str) -> Iterator[tuple[str, int]]:
    """Run a server until the end of the block; yield its URL and process id."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, **environment}
            )
        try:
            yield wait_for(process, url, log), process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def wait_for(process: subprocess.Popen[bytes], url: str, log: Path) -> str:
    """Wait until the server answers; an empty URL is read from its log."""
    for _ in range(600):
        found = url or next(iter(re.findall(r"http://\S+", log.read_text())), "")
        if found:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{found}/healthz").status_code == 200:
                    return found
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"the server did not start:\n{log.read_text()}")


def retinue(cache: Path, home: str) -> contextlib.AbstractContextManager[tuple[str, int]]:
    """Start `retinue up` with its defaults, two instances."""
    return running(
        [sys.executable, "-m", "retinue", "up", "--port", "0"],
        "",
        RETINUE_HOME=home,
        RETINUE_CACHE=str(cache),
        RETINUE_EXECUTION__INSTANCES=str(WORKERS),
    )


def flask(entry: Entry) -> contextlib.AbstractContextManager[tuple[str, int]]:
    """Start the prototype behind gunicorn, two workers."""
    port = free_port()
    card = entry.card
    command = [str(bench_python()), "-m", "gunicorn", "-w", str(WORKERS), "-k", "sync"]
    command += ["-b", f"127.0.0.1:{port}", "--backlog", "2048", "flask_prototype:app"]
    return running(
        [*command, "--chdir", str(HERE / "reference")],
        f"http://127.0.0.1:{port}",
        MODEL=str(entry.path),
        CLASSES=str(len(card.classes)),
        PAD=str(card.input.pad),
        SCORES=card.output.scores,
        MEAN=",".join(map(str, card.input.mean)),
        STD=",".join(map(str, card.input.std)),
        COLOR=card.input.color,
        IOU=str(card.output.nms_iou),
    )


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all that it started."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process tree has used."""
    return sum(sum(process.cpu_times()[:2]) for process in tree(pid))


def memory_mb(pid: int) -> float:
    """Return the memory of a process tree, pages that are shared counted once (PSS)."""
    return sum(process.memory_full_info().pss for process in tree(pid)) / 1e6


def measure(url: str, pid: int, concurrency: int, seconds: float) -> dict[str, float]:
    """Run the load generator once."""
    before = cpu_s(pid)
    command = [sys.executable, str(HERE / "http_load.py"), f"{url}/v1/detect?conf={CONF}"]
    command += [str(PHOTO), "--concurrency", str(concurrency), "--seconds", str(seconds)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    wrong = {status: n for status, n in found["statuses"].items() if status != "200"}
    if wrong or found["broken"] or not found["requests"]:
        print(f"not all was well at {url}: {found}", file=sys.stderr)
    return {
        **{key: found[key] for key in ("per_s", "p50_ms", "p99_ms")},
        "cpu_ms": 1e3 * (cpu_s(pid) - before) / max(1, found["requests"]),
        "failed": sum(wrong.values()) + found["broken"],
    }


def check_same_answer(urls: Mapping[str, str]) -> str:
    """Make sure that both servers do the same work: the best boxes are of the same object."""
    best = {}
    for name, url in urls.items():
        answer = httpx.post(f"{url}/v1/detect?conf={CONF}", content=PHOTO.read_bytes()).json()
        best[name] = max(answer["detections"], key=lambda detection: detection["score"])
    a, b = best.values()
    far = max(abs(x - y) for x, y in zip(a["box"], b["box"], strict=True))
    if a["class_id"] != b["class_id"] or abs(a["score"] - b["score"]) > 0.05 or far > 20:
        raise SystemExit(f"the servers do not agree: {best}")
    return f"best score {a['score']:.3f} and {b['score']:.3f}, boxes within {far:.1f} pixels"


def main() -> None:
    """Run both and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    cache = Path(os.environ.get("RETINUE_CACHE", default_cache()))
    entry = Registry(cache).get(MODEL)
    rows: dict[tuple[int, str], list[dict[str, float]]] = {}
    with (
        tempfile.TemporaryDirectory() as home,
        retinue(cache, home) as ours,
        flask(entry) as theirs,
    ):
        servers = {"Retinue": ours, "Flask + gunicorn": theirs}
        agreed = check_same_answer({name: url for name, (url, _) in servers.items()})
        for url, pid in servers.values():
            measure(url, pid, WORKERS, 1.0)
        for concurrency in CONCURRENCY:
            for _ in range(given.rounds):
                for name, (url, pid) in servers.items():
                    found = measure(url, pid, concurrency, given.seconds)
                    rows.setdefault((concurrency, name), []).append(found)
        memory = {name: memory_mb(pid) for name, (_, pid) in servers.items()}
    report(rows, memory, agreed)


def report(
    rows: Mapping[tuple[int, str], list[dict[str, float]]], memory: Mapping[str, float], agreed: str
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
        f"{MODEL} on {PHOTO.name}, ONNX Runtime f32, {WORKERS} models of one thread each.",
        f"Same work: {agreed}.",
        "Memory (PSS): " + ", ".join(f"{name} {mb:.0f} MB" for name, mb in memory.items()) + ".",
    ]
    show("HTTP end to end", columns, table, notes=notes)


if __name__ == "__main__":
    main()
