"""The servers that benchmarks compare, Retinue and its peers of ``peers/``: start, load, check.

A peer is two files: ``NAME_app.py`` and ``NAME.txt``, its pinned requirements, from which an
environment of its own is made in ``build/peers/`` on first use. OpenCV, ONNX Runtime and, where the
peer allows it, NumPy are this environment's, the same for all.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import psutil
import sklearn

from common import peer_python
from retinue.models.registry import Entry

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
PHOTO = Path(sklearn.__file__).parent / "datasets" / "images" / "china.jpg"
MODEL = "nanodet-g-416"
CONF = 0.25
INSTANCES = 2
CLIENTS = 4
MOSEC_CAPACITY = 12
START_S = 90
SCORE_WITHIN = 0.02
IOU_AT_LEAST = 0.95
Figures = dict[str, Any]


@dataclass(frozen=True)
class Server:
    """How a server is started and asked.

    Attributes:
        name: What the tables call it.
        command: Its command line; ``{port}`` stands for the port.
        environment: Variables on top of this process's.
        path: Path and query of a request.
        headers: Headers of a request.
        body: Body of a request.
        settings: Its batching and what it was told of the deadline, for the notes.
    """

    name: str
    command: tuple[str, ...]
    path: str
    body: bytes
    environment: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=lambda: {"Content-Type": "image/jpeg"})
    settings: str = ""


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        server: What was started.
        url: The URL of its requests.
        pid: Its first process.
    """

    server: Server
    url: str
    pid: int

    def ask(self) -> httpx.Response:
        """Send one request with the usual library."""
        given = self.server
        return httpx.post(self.url, content=given.body, headers=dict(given.headers), timeout=30)

    def cpu_s(self) -> float:
        """Return the CPU seconds that it and what it started have used."""
        return sum(sum(process.cpu_times()[:2]) for process in self.tree())

    def memory_mb(self) -> float:
        """Return its memory, pages that its processes share counted once (PSS)."""
        return float(sum(process.memory_full_info().pss for process in self.tree()) / 1e6)

    def tree(self) -> list[psutil.Process]:
        """Return its first process and all that it started."""
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]


@contextlib.contextmanager
def running(server: Server) -> Iterator[Running]:
    """Run a server until the end of the block; it has answered a request with 200 before.

    Raises:
        SystemExit: it did not start; with its log.
    """
    port = free_port()
    command = [part.replace("{port}", str(port)) for part in server.command]
    environment = {k: v.replace("{port}", str(port)) for k, v in server.environment.items()}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env={**os.environ, **environment}
            )
        made = Running(server, f"http://127.0.0.1:{port}{server.path}", process.pid)
        try:
            _wait_for(made, process, log)
            yield made
        finally:
            if process.poll() is not None:
                ended = f"{server.name} ended with {process.returncode}"
                print(f"{ended}:\n{_tail(log)}", file=sys.stderr)
            _stop(process)


def _wait_for(made: Running, process: subprocess.Popen[bytes], log: Path) -> None:
    said = ""
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            answer = made.ask()
            if answer.status_code == 200:
                return
            said = f"{answer.status_code} {answer.text[:500]}"
        time.sleep(0.1)
    raise SystemExit(f"{made.server.name} did not start; its last answer: {said}\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-5000:]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a server and whatever it leaves behind."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        family = [root, *root.children(recursive=True)]
        process.send_signal(signal.SIGTERM)
        _, left = psutil.wait_procs(family, timeout=5)
        for one in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
    process.wait(30)


def free_port() -> int:
    """Return a port that was free a moment ago (not every server reports the one it took)."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def card_of(entry: Entry | None) -> str:
    """Return what ``peers/detector.py`` must know of a model; "" for one that does nothing."""
    if entry is None:
        return ""
    card = entry.card
    return json.dumps(
        {
            "path": str(entry.path),
            "size": card.input.width,
            "classes": len(card.classes),
            "pad": card.input.pad,
            "color": card.input.color,
            "mean": card.input.mean,
            "std": card.input.std,
            "probabilities": card.output.scores == "probabilities",
            "iou": card.output.nms_iou,
        }
    )


def retinue(
    entry: Entry, cache: Path, home: str, *, body: bytes, deadline_ms: float | None = None
) -> Server:
    """Return `retinue up` with its defaults and two instances of a detector."""
    deadline = "" if deadline_ms is None else f"&deadline_ms={deadline_ms:g}"
    return Server(
        "Retinue",
        (sys.executable, "-m", "retinue", "up", "--port", "{port}"),
        f"/v1/detect?conf={CONF}{deadline}",
        body,
        environment={
            "RETINUE_HOME": home,
            "RETINUE_CACHE": str(cache),
            "RETINUE_EXECUTION__INSTANCES": str(INSTANCES),
            "RETINUE_SERVER__GRPC_PORT": "0",
            "RETINUE_APPS": json.dumps({"detect": {"model": entry.card.name}}),
        },
        settings="defaults; ?deadline_ms=" if deadline else "defaults",
    )


def flask(entry: Entry | None, *, body: bytes, deadline_ms: float | None = None) -> Server:
    """Return Flask behind gunicorn with two workers; it knows neither batches nor deadlines."""
    command = (peer_python("flask"), "-m", "gunicorn", "-w", str(INSTANCES), "-k", "sync")
    return Server(
        "Flask + gunicorn",
        (*command, "-b", "127.0.0.1:{port}", "--chdir", str(PEERS), "flask_app:app"),
        "/v1/detect",
        body,
        environment={"DETECTOR": card_of(entry)},
        settings=f"{INSTANCES} sync workers",
    )


def litserve(entry: Entry | None, *, body: bytes, deadline_ms: float | None = None) -> Server:
    """Return LitServe; it drops what waited longer than its request timeout."""
    return Server(
        "LitServe",
        (peer_python("litserve"), str(PEERS / "litserve_app.py")),
        "/predict",
        body,
        environment={
            "PORT": "{port}",
            "DETECTOR": card_of(entry),
            **_deadline_s(deadline_ms),
        },
        settings=f"{INSTANCES} workers, no batches, timeout = deadline",
    )


def mosec(entry: Entry | None, *, body: bytes, deadline_ms: float | None = None) -> Server:
    """Return mosec; it answers 408 at its timeout and skips what timed out."""
    command = (peer_python("mosec"), str(PEERS / "mosec_app.py"), "--address", "127.0.0.1")
    return Server(
        "mosec",
        (*command, "--port", "{port}", "--timeout", f"{deadline_ms or 30_000:.0f}"),
        "/inference",
        body,
        environment={"DETECTOR": card_of(entry)},
        settings=f"{INSTANCES} workers of one stage, no batches, timeout = deadline",
    )


def mosec_bounded(entry: Entry | None, *, body: bytes, deadline_ms: float | None = None) -> Server:
    """Return mosec with a queue bounded by hand so that what waits can be answered in time.

    The bound fits one model, machine and deadline: with 16 in place of 12, half the goodput of the
    overload is gone again.
    """
    server = mosec(entry, body=body, deadline_ms=deadline_ms)
    most = MOSEC_CAPACITY if entry else 1024
    return replace(
        server,
        name="mosec bounded",
        command=(*server.command, "--capacity", str(most)),
        settings=f"{server.settings}, at most {most} requests, a bound found by trying",
    )


def pytriton(entry: Entry | None, *, body: bytes, deadline_ms: float | None = None) -> Server:
    """Return Triton with a Python function; its queue policy rejects what waited too long."""
    length = len(body) + 4
    shape: dict[str, Any] = {"name": "photo", "shape": [1, 1], "datatype": "BYTES"}
    shape["parameters"] = {"binary_data_size": length}
    head = json.dumps({"inputs": [shape]}).encode()
    return Server(
        "pytriton",
        (peer_python("pytriton"), str(PEERS / "pytriton_app.py")),
        "/v2/models/detector/infer",
        head + len(body).to_bytes(4, "little") + body,
        headers={
            "Content-Type": "application/octet-stream",
            "Inference-Header-Content-Length": str(len(head)),
        },
        environment={
            "PORT": "{port}",
            "DETECTOR": card_of(entry),
            # Its server embeds Python and looks for the library of the interpreter.
            "LD_LIBRARY_PATH": sysconfig.get_config_var("LIBDIR") or "",
            **_deadline_s(deadline_ms),
        },
        settings=f"{INSTANCES} instances, no batches, queue timeout = deadline",
    )


def _deadline_s(deadline_ms: float | None) -> dict[str, str]:
    return {} if deadline_ms is None else {"DEADLINE_S": str(deadline_ms / 1000)}


def detections(server: Server, answer: httpx.Response) -> list[dict[str, Any]]:
    """Return the boxes that a server answered."""
    value = answer.json()
    if server.name == "pytriton":
        value = json.loads(value["outputs"][0]["data"][0])
    found: list[dict[str, Any]] = value["detections"]
    return found


def generate(program: str, running: Running, *arguments: str) -> Figures:
    """Run a load generator against a server; add the server's CPU seconds to its figures."""
    server = running.server
    headers = itertools.chain.from_iterable(
        ("--header", f"{name}: {value}") for name, value in server.headers.items()
    )
    with tempfile.NamedTemporaryFile() as body:
        body.write(server.body)
        body.flush()
        command = [sys.executable, str(HERE / program), running.url, body.name]
        before = running.cpu_s()
        done = subprocess.run(
            [*command, *headers, *arguments], check=True, stdout=subprocess.PIPE, text=True
        )
        found: Figures = json.loads(done.stdout)
        return found | {"cpu_s": running.cpu_s() - before}


def closed(running: Running, clients: int, seconds: float) -> Figures:
    """Measure with clients that wait for their answers."""
    found = generate(
        "http_load.py", running, "--concurrency", str(clients), "--seconds", str(seconds)
    )
    statuses: dict[str, int] = found["statuses"]
    if set(statuses) != {"200"} or found["broken"]:
        print(f"{running.server.name}: not all was well: {found}", file=sys.stderr)
    return found | {"cpu_ms": 1e3 * found["cpu_s"] / max(1, found["requests"])}


def warm_up(running: Running, clients: int = CLIENTS) -> None:
    """Let a server that just started reach its pace."""
    closed(running, clients, 1.5)


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the intersection of two boxes over their union."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(0.0, width) * max(0.0, height)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / (sum(areas) - common)


def check_same(found: Mapping[str, list[Figures]]) -> None:
    """Make sure that all servers did the same work.

    Raises:
        SystemExit: they did not find the same boxes.
    """
    first, *others = found
    for other in others:
        a, b = (sorted(found[n], key=lambda d: -d["score"]) for n in (first, other))
        same = len(a) == len(b) and all(
            x["class_id"] == y["class_id"]
            and abs(x["score"] - y["score"]) <= SCORE_WITHIN
            and iou(x["box"], y["box"]) >= IOU_AT_LEAST
            for x, y in zip(a, b, strict=True)
        )
        if not same:
            raise SystemExit(f"{first} and {other} do not agree on {PHOTO.name}: {a} and {b}")
