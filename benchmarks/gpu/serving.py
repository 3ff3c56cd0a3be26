"""Section "serving": Retinue's HTTP server and one request at a time in Flask, same offered loads.

Retinue: one process, Open Inference Protocol with binary tensors, dynamic batching. Flask: gunicorn
with one process (one model on the GPU) and threads, the image's bytes as the body. Both get the
same arrivals, and GPU counters are taken over the same seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import procs
from counters import Counters
from load import Generator
from section import HERE, Section, arguments, images

START_S = 90
THREADS = 16
ENOUGH = 2  # loads of more than twice the capacity, beside the largest


@dataclass(frozen=True)
class Contender:
    """A server and how it is asked.

    Attributes:
        name: What tables call it.
        url: URL of a request.
        body: Body of a request.
        headers: Headers of a request.
        base: URL of the server, for its own figures; "" if it has none.
        pid: The process that uses the GPU, or its parent.
    """

    name: str
    url: str
    body: bytes
    headers: dict[str, str]
    base: str
    pid: int


@contextlib.contextmanager
def started(
    command: list[str], log: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server while the block runs."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=HERE,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _get(url: str, timeout_s: float = 30) -> str:
    with urllib.request.urlopen(url, timeout=timeout_s) as answer:
        return str(answer.read().decode())


def _await(process: subprocess.Popen[bytes], log: Path, ask: Any) -> Any:
    """Return what ``ask`` returns once it returns something."""
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError):
            if found := ask():
                return found
        time.sleep(0.2)
    raise RuntimeError(f"no answer from the server: {log.read_text()[-2000:]}")


@contextlib.contextmanager
def retinue(section: Section, network: str) -> Iterator[Contender]:
    """Serve a network by Retinue."""
    plan, log = section.plan, section.work / f"retinue-{network}.log"
    command = [
        *(sys.executable, "served.py", str(section.program(network))),
        *("--device", section.device, "--instances", str(plan.instances)),
        *("--max-batch", str(plan.max_batch), "--window-ms", str(plan.window_ms)),
    ]
    with started(command, log, dict(os.environ)) as process:
        found = _await(process, log, lambda: re.search(r"ready (http://\S+)", log.read_text()))
        base = found.group(1)
        body, headers = _v2(section, plan.deadline_ms)
        url = f"{base}/v2/models/{network}/infer"
        name = f"Retinue, {plan.window_ms:g} ms window, {plan.instances} instances"
        yield Contender(name, url, body, headers, base, process.pid)


def _v2(section: Section, deadline_ms: float) -> tuple[bytes, dict[str, str]]:
    image = images(1, section.size)
    head = {
        "inputs": [
            {
                "name": "images",
                "datatype": "UINT8",
                "shape": list(image.shape),
                "parameters": {"binary_data_size": image.nbytes},
            }
        ],
        "parameters": {"binary_data_output": True, "timeout": round(1000 * deadline_ms)},
    }
    text = json.dumps(head).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(text)),
    }
    return text + image.tobytes(), headers


@contextlib.contextmanager
def flask(section: Section, network: str, way: str) -> Iterator[Contender]:
    """Serve a network by Flask, one request at a time."""
    log, port = section.work / f"flask-{way}-{network}.log", procs.port()
    environment = {
        **os.environ,
        "WAY": way,
        "NETWORK": network,
        "SIZE": str(section.size),
        "DEVICE": section.device,
        "PROGRAM": str(section.program(network)),
    }
    command = [
        *(sys.executable, "-m", "gunicorn", "--worker-class", "gthread", "--workers", "1"),
        *("--threads", str(THREADS), "--bind", f"127.0.0.1:{port}", "--timeout", "120"),
        *("--keep-alive", "30", "--backlog", "4096", "flask_app:app"),
    ]
    with started(command, log, environment) as process:
        base = f"http://127.0.0.1:{port}"
        _await(process, log, lambda: _get(f"{base}/ready"))
        body, headers = images(1, section.size).tobytes(), {"Content-Type": "image/raw"}
        name = f"Flask, one at a time, {'CUDA graphs' if way == 'graphs' else 'eager'}"
        yield Contender(name, f"{base}/predict", body, headers, "", process.pid)


def own_figures(contender: Contender, network: str) -> dict[str, float]:
    """Return a server's own counts: runs, images, and dispatched batches by reason."""
    if not contender.base:
        return {}
    found: dict[str, float] = {}
    try:
        stats = json.loads(_get(f"{contender.base}/v2/models/{network}/stats"))["model_stats"][0]
        found |= {"runs": stats["execution_count"], "images": stats["inference_count"]}
        metrics = _get(f"{contender.base}/metrics")
    except OSError as error:  # a server in trouble is measured all the same
        print(f"{contender.name}: {error}", flush=True)
        return found
    for line in metrics.splitlines():
        name, _, value = line.rpartition(" ")
        if reason := re.search(r'_total\{.*reason="(\w+)"', name):
            kind = name.partition("{")[0].removeprefix("retinue_").removesuffix("_total")
            found[f"{kind}: {reason.group(1)}"] = float(value)
    return found


def measure(section: Section, generator: Generator, contender: Contender, network: str) -> None:
    """Offer each load to a running server."""
    plan, overloaded = section.plan, 0
    for rate in plan.loads[network]:
        if not section.left(plan.load_s + plan.settle_s + 2):
            return
        if overloaded >= ENOUGH and rate != plan.loads[network][-1]:
            continue
        before, cpu = own_figures(contender, network), procs.cpu_s(contender.pid)
        with Counters() as counters:
            result = generator.offer(
                contender.url,
                contender.body,
                contender.headers,
                rate=rate,
                seconds=plan.load_s,
                settle_s=plan.settle_s,
                deadline_s=plan.deadline_ms / 1000,
            )
        cpu = procs.cpu_s(contender.pid) - cpu
        overloaded += result["throughput_per_s"] < rate / 2
        after = own_figures(contender, network)
        gained = {key: value - before.get(key, 0) for key, value in after.items()}
        section.add(
            network=network,
            server=contender.name,
            rate=rate,
            **result,
            cores=cpu / (plan.load_s + plan.settle_s),
            mean_batch=gained["images"] / gained["runs"] if gained.get("runs") else None,
            counts={key: value for key, value in gained.items() if ":" in key and value},
            counters=counters.figures,
        )


def main() -> None:
    """Measure each server with each network."""
    section = arguments()
    with Generator(2 if section.quick else 6) as generator:
        for network in section.networks:
            for make in (
                lambda n=network: retinue(section, n),
                lambda n=network: flask(section, n, "graphs"),
                lambda n=network: flask(section, n, "eager"),
            ):
                if not section.left(30):
                    return
                try:
                    with make() as contender:
                        measure(section, generator, contender, network)
                except (RuntimeError, OSError) as error:
                    section.add(network=network, error=str(error))


if __name__ == "__main__":
    main()
