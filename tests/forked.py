"""Processes of Retinue that share the import of other people's code, most of a start's time.

Each is forked from one process that has imported libraries, and nothing of Retinue's. All else is
as a user's: a ``__main__``, arguments, environment, folder, files and an exit of its own.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import IO

WAIT_S = 120

# Each caller connects, says what is wanted, and is told the process's number, then its exit code.
PARENT = """
import contextlib, gc, json, os, runpy, select, signal, socket, sys, threading
import av, cv2, faiss, httptools, httpx, jinja2, numpy, onnx, onnxruntime, pdqhash, PIL.Image
import prometheus_client, pydantic_settings, python_multipart, rich.console, rich.table
import sqlalchemy.dialects.postgresql, sqlalchemy.dialects.sqlite, starlette.applications
import tokenizers, typer, uvicorn
from pydantic import TypeAdapter
assert not [name for name in sys.modules if name.startswith("retinue")]
assert threading.active_count() == 1
gc.freeze()
listener = socket.socket(fileno=int(sys.argv[1]))
ended, told = os.pipe()
os.set_blocking(told, False)
signal.signal(signal.SIGCHLD, lambda *_: None)
signal.set_wakeup_fd(told)
callers = {}
while True:
    ready, _, _ = select.select([listener, ended, 0], [], [])
    if 0 in ready:
        sys.exit()
    if ended in ready:
        os.read(ended, 4096)
    while callers and (pid := (waited := os.waitpid(-1, os.WNOHANG))[0]):
        with callers.pop(pid) as caller, contextlib.suppress(OSError):
            caller.send(b"%d" % os.waitstatus_to_exitcode(waited[1]))
    if listener in ready:
        caller, _ = listener.accept()
        asked, files, _, _ = socket.recv_fds(caller, 1 << 18, 3)
        child = os.fork()
        if not child:
            break
        callers[child] = caller
        for file in files:
            os.close(file)
        caller.send(b"%d" % child)
signal.set_wakeup_fd(-1)
signal.signal(signal.SIGCHLD, signal.SIG_DFL)
for number, file in enumerate(files):
    os.dup2(file, number)
for file in (ended, told, *files):
    os.close(file)
for one in (listener, caller, *callers.values()):
    one.close()
asked = json.loads(asked)
os.chdir(asked["folder"])
os.environ.clear()
os.environ.update(asked["environment"])
if asked["code"]:
    sys.argv = ["-c", *asked["words"]]
    exec(compile(asked["code"], "<string>", "exec"), {"__name__": "__main__"})
else:
    sys.argv = ["retinue", *asked["words"]]
    runpy.run_module("retinue", run_name="__main__", alter_sys=True)
"""

# A program for a shell, which asks for a process and waits for its end.
PROGRAM = """#!{python} -IS
import json, os, socket, sys
asked = {{"words": sys.argv[1:], "code": "", "folder": os.getcwd()}}
asked["environment"] = dict(os.environ)
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as parent:
    parent.connect({address!r})
    socket.send_fds(parent, [json.dumps(asked).encode()], [0, 1, 2])
    parent.recv(64)
    sys.exit(int(parent.recv(64)) % 256)
"""


@cache
def _address() -> str:
    """Start the process that others are forked from; return the address of its socket."""
    folder = Path(tempfile.mkdtemp())
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(folder / "socket"))
        listener.listen()
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(listener.fileno())],
            # As Retinue does before it imports ONNX Runtime, whose reporting has threads, and with
            # those no process may be forked.
            env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
            # Its end is the parent's too, however the tests end.
            stdin=subprocess.PIPE,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )

    def stop() -> None:
        with parent:
            os.killpg(parent.pid, signal.SIGKILL)
        shutil.rmtree(folder)

    atexit.register(stop)
    return str(folder / "socket")


def program(folder: Path) -> Path:
    """Write a ``retinue`` for a shell's path into a folder, and return the folder."""
    file = folder / "retinue"
    file.write_text(PROGRAM.format(python=sys.executable, address=_address()))
    file.chmod(0o755)
    return folder


class Process:
    """What is used of a `subprocess.Popen`, of a process that is forked.

    Args:
        words: The arguments, of ``retinue`` unless there is ``code``.
        stderr: The file for its errors.
        stdout: The file for its output; the attribute ``stdout`` is a pipe's end if None.
        code: Python to run in place of ``retinue``.
    """

    def __init__(
        self,
        words: Sequence[str],
        stderr: IO[bytes],
        stdout: IO[bytes] | None = None,
        *,
        code: str = "",
    ) -> None:
        self.args = [*words]
        self.returncode: int | None = None
        self.stdout: IO[bytes] | None = None
        self._parent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._parent.settimeout(WAIT_S)
        self._parent.connect(_address())
        with Path(os.devnull).open("rb") as nothing:
            if stdout is not None:
                self.pid = self._fork(code, nothing, stdout, stderr)
                return
            ours, theirs = os.pipe()
            self.stdout = os.fdopen(ours, "rb", 0)
            with os.fdopen(theirs, "wb", 0) as file:
                self.pid = self._fork(code, nothing, file, stderr)

    def _fork(self, code: str, *files: IO[bytes]) -> int:
        folder, environment = str(Path.cwd()), dict(os.environ)
        asked = {"words": self.args, "code": code, "folder": folder, "environment": environment}
        message = json.dumps(asked).encode()
        socket.send_fds(self._parent, [message], [file.fileno() for file in files])
        return int(self._parent.recv(64))

    def _look(self, wait_s: float) -> int | None:
        if self.returncode is None and select.select([self._parent], [], [], wait_s)[0]:
            with self._parent:
                self.returncode = int(self._parent.recv(64))
        return self.returncode

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._look(0.0)

    def wait(self, timeout: float) -> int:
        """Wait for its end; raise `subprocess.TimeoutExpired` after so many seconds."""
        code = self._look(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run ``retinue`` to its end, as `subprocess.run` would."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = Process([*map(str, words)], errors, out)
        try:
            code = process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(WAIT_S)
            raise
        for file in (out, errors):
            file.seek(0)
        texts = [file.read().decode() for file in (out, errors)]
    return subprocess.CompletedProcess(process.args, code, *texts)
