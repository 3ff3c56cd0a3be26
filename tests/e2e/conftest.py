"""The real program, started as a process."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

from ..forked import Process

START_S = 120
STOP_S = 30
READY = re.compile(rb"http://\S+")
GRPC = re.compile(rb"gRPC is at (\S+)")

# A server with the echo app and a fake model: what it takes to try connections, not pictures.
ECHO_PROGRAM = """
import json, sys
from retinue.core.settings import Server, Settings
from retinue.host import serve
from retinue.host.protocol import BoundedProtocol
from retinue.testing.host import FakeHost
given = json.loads(sys.argv[1])
for name, value in given.pop("protocol", {}).items():
    setattr(BoundedProtocol, name, value)
delay_s = given.pop("delay_s", 0.0)
serve.run(Settings(server=Server(port=0, **given)),
          open_host=lambda settings: FakeHost(settings, delay_s=delay_s),
          on_ready=lambda url, grpc: print(f"ready at {url}\\ngRPC is at {grpc}", flush=True))
"""


@dataclass
class Program:
    """A server under test."""

    process: subprocess.Popen[bytes] | Process
    url: str
    log: Path
    grpc: str = ""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def rss_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    @property
    def open_files(self) -> int:
        return int(psutil.Process(self.process.pid).num_fds())

    def get(self, path: str, **more: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=60, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return httpx.post(self.url + path, timeout=60, **more)

    def is_alive(self) -> bool:
        return self.get("/healthz").status_code == 200 and self.process.poll() is None

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_S)


def start(arguments: list[str], log: Path, **environment: str) -> Program:
    """Start a program and wait for the line that holds its URL."""
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **environment},
        )
    return _ready(process, log)


def _ready(process: subprocess.Popen[bytes] | Process, log: Path) -> Program:
    assert process.stdout is not None
    end = time.monotonic() + START_S
    text = b""
    while time.monotonic() < end and (process.poll() is None or text):
        readable, _, _ = select.select([process.stdout], [], [], 0.5)
        if readable:
            piece = os.read(process.stdout.fileno(), 4096)
            text += piece
            found = READY.search(text)
            if found and text.endswith(b"\n"):
                grpc = GRPC.search(text)
                address = grpc[1].decode() if grpc else ""
                return Program(process, found.group().decode(), log, address)
            if not piece:
                break
    process.kill()
    process.wait(STOP_S)
    raise AssertionError(f"the server did not start: {text!r} {log.read_text()}")


def end(program: Program) -> None:
    """End a program, at once if need be."""
    if program.process.poll() is None:
        program.process.kill()
    program.process.wait(STOP_S)
    assert program.process.stdout is not None
    program.process.stdout.close()


def connect(program: Program) -> socket.socket:
    """Open a connection whose small pieces are sent at once."""
    sock = socket.create_connection(("127.0.0.1", program.port), timeout=20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def post_head(path: str, length: int) -> bytes:
    """Return the head of a POST request."""
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    return head.encode()


def read_all(sock: socket.socket) -> bytes:
    """Read until the other end closes or cuts the connection."""
    text = b""
    try:
        while piece := sock.recv(65536):
            text += piece
    except ConnectionResetError:
        pass
    return text


def unread(program: Program, requests: int) -> socket.socket:
    """Ask for large answers and read none of them."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.settimeout(20)
    sock.connect(("127.0.0.1", program.port))
    large = b"GET /swagger/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    sock.sendall(large * requests)
    return sock


def _echo_servers(folder: Path) -> Iterator[Callable[..., Program]]:
    started: list[Program] = []

    def make(**server: Any) -> Program:
        log = folder / f"server{len(started)}.log"
        with log.open("wb") as errors:
            process = Process([json.dumps(server)], errors, code=ECHO_PROGRAM)
        started.append(_ready(process, log))
        return started[-1]

    yield make
    for program in started:
        end(program)


@pytest.fixture(scope="session")
def start_echo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Program]]:
    """Start servers with a fake host that live on; the arguments are settings of ``server``."""
    yield from _echo_servers(tmp_path_factory.mktemp("echo"))


@pytest.fixture
def echo_server(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start servers with a fake host for one test."""
    yield from _echo_servers(tmp_path)


@pytest.fixture(scope="session")
def start_server(model_cache_dir: Path) -> Callable[[Path], Iterator[Program]]:
    """`retinue up` with the default models and its state in a folder, until the test's end."""

    def run(folder: Path) -> Iterator[Program]:
        program = start(
            ["-m", "retinue", "up", "--port", "0"],
            folder / "server.log",
            RETINUE_HOME=str(folder / "home"),
            RETINUE_CACHE=str(model_cache_dir),
        )
        yield program
        end(program)

    return run


@pytest.fixture(scope="session")
def server(
    start_server: Callable[[Path], Iterator[Program]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Program]:
    """A server shared by all tests that leave it alive."""
    yield from start_server(tmp_path_factory.mktemp("server"))


@pytest.fixture
def retinue_up(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Start `retinue up` by settings given as TOML, with models and state of the test's own."""
    started: list[Program] = []

    def run(settings: str) -> Program:
        config = tmp_path / "retinue.toml"
        config.write_text(settings)
        program = start(
            ["-m", "retinue", "up", "--port", "0", "--config", str(config)],
            tmp_path / "server.log",
            RETINUE_HOME=str(tmp_path / "home"),
            RETINUE_CACHE=str(tmp_path / "cache"),
        )
        started.append(program)
        return program

    yield run
    for program in started:
        end(program)


@pytest.fixture(scope="session")
def ar_server(
    start_server: Callable[[Path], Iterator[Program]],
    tmp_path_factory: pytest.TempPathFactory,
    ar_cache_dir: Path,
) -> Iterator[Program]:
    """A server that has the networks of AR filters as their makers published them."""
    from tests.conftest import AR_MODELS

    from retinue.apps.ar.originals import original

    folder = tmp_path_factory.mktemp("ar-server")
    there = folder / "home" / "ar" / "originals"
    there.mkdir(parents=True)
    for name in AR_MODELS:
        shutil.copy(original(ar_cache_dir.parent / "originals", name), there)
    yield from start_server(folder)


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[..., Browser]]:
    """Start Chromium with more flags; it lives until the module's end."""
    from playwright.sync_api import expect, sync_playwright
    from tests.e2e.console_ar_page import CHROMIUM, FLAGS

    # Pixels are drawn by the CPU here.
    expect.set_options(timeout=60_000)
    with sync_playwright() as playwright:
        yield lambda *more: playwright.chromium.launch(
            executable_path=CHROMIUM, args=[*FLAGS, *more]
        )
    expect.set_options(timeout=5_000)


@pytest.fixture(scope="module")
def ar_browser(launch: Callable[..., Browser]) -> Browser:
    """A browser without a camera."""
    return launch()


@pytest.fixture
def opened(ar_server: Program) -> Iterator[Callable[..., Page]]:
    """Open the page of AR filters, as one test's own."""
    from tests.e2e.console_ar_page import opening

    yield from opening(ar_server.url)


@pytest.fixture(scope="module")
def photo_page(ar_server: Program, ar_browser: Browser) -> Iterator[Page]:
    """The page of AR filters with a photo in it, shared by tests that leave the photo there."""
    from tests.e2e.console_ar_page import open_photo, opening

    for opened in opening(ar_server.url):
        page = opened(ar_browser)
        open_photo(page)
        yield page
