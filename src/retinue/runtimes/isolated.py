"""A runtime in a process of its own: what ends its engine does not end this process.

Not a plug-in but a wrapper of any: ``execution.isolate``.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from retinue.core.errors import InstanceCrashed, ModelRunFailed, RetinueError, Unavailable
from retinue.core.protocols import Precision
from retinue.core.types import Array, Tensors, TensorSpec
from retinue.runtimes import tensors as tensor_checks
from retinue.runtimes._shared import SharedMemory

_log = logging.getLogger(__name__)

_END_S: Final = 2.0


class Isolated:
    """Another runtime in a child process, with the tensors in shared memory.

    A segmentation fault, an ``abort()`` or the kernel's out-of-memory killer then ends the child
    alone: `run` raises `InstanceCrashed`, and so does every later one; make a new instance then.
    A child that dies while it runs nothing is replaced by the next `run`: no answer was lost.
    The child ends with this process, however that ends. It guards against accidents, not against
    malice: the child has all rights of its user.
    """

    def __init__(
        self,
        runtime: str,
        path: Path,
        *,
        threads: int = 1,
        precision: Precision = "f32",
        device: str = "",
        name: str = "",
    ) -> None:
        """Start a process and load a model in it.

        Args:
            runtime: Key of the runtime's plug-in.
            path: The weights' file; this and the others as in
                `retinue.core.protocols.RuntimeFactory`.
            threads: Threads inside one run.
            precision: Arithmetic that is asked for.
            device: Where it is executed.
            name: The model's name in the registry.

        Raises:
            InstanceCrashed: the process died while it loaded the model.
            Unavailable: no process can be started.
            RetinueError: what the runtime itself raises, as the same class.
        """
        self._what = f"{runtime} on {path.name}"
        self._asked = {
            "runtime": runtime,
            "path": os.fspath(path),
            "threads": threads,
            "precision": precision,
            "device": device,
            "name": name,
        }
        self._closed = False
        self._crash = ""
        self._using = threading.Lock()
        specs = self._start()
        self._inputs = tuple(_specs(specs["inputs"]))
        self._outputs = tuple(_specs(specs["outputs"]))

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` needs, in the model file's order."""
        return self._inputs

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` returns, in the model file's order."""
        return self._outputs

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Run one batch.

        Raises:
            InvalidTensor: a tensor is missing, unknown, or of the wrong dtype or shape.
            ModelRunFailed: the engine failed, or the runtime is closed, now or before.
            InstanceCrashed: the process died, now or before, or cannot be replaced.
        """
        with self._using:
            self._check_open()
            tensor_checks.check(tensors, self._inputs)
            if self._child.ended:
                self._replace()
            child = self._child
            places = child.given.write(tensors.values())
            answer = self._ask({"names": list(tensors), "places": places})
            views = child.returned.read(answer["places"])
            return {name: np.array(view) for name, view in zip(answer["names"], views, strict=True)}

    def close(self) -> None:
        """End the process within seconds. May be called twice.

        Another thread may call it to end a run that hangs.
        """
        if self._closed:
            return
        self._closed = True
        self._child.end()  # a run that waits is woken
        with self._using:
            self._child.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ModelRunFailed(f"{self._what}: the runtime is closed")
        if self._crash:
            raise InstanceCrashed(self._crash)

    def _start(self) -> dict[str, Any]:
        """Start a process and load the model in it; return its tensors."""
        try:
            self._child = _Child()
        except OSError as error:
            raise Unavailable(
                f"no process can be started for {self._what}: {error.strerror or error}; look at "
                "the limits of processes, open files and memory (ulimit -a), or set "
                "execution.isolate = false"
            ) from error
        try:
            return self._ask(self._asked)
        except BaseException:
            self._child.end()
            self._child.close()
            raise

    def _replace(self) -> None:
        """Put a new process in the place of one that died while it ran nothing."""
        ended = f"the process for {self._what} {_ending(self._child.end())} while it ran nothing"
        self._child.close()
        try:
            self._start()
        except RetinueError as error:
            self._crash = f"{ended}, and cannot be replaced: {error.message}"
            raise InstanceCrashed(self._crash) from error
        _log.warning("%s; another one took its place", ended)
        if self._closed:
            self._child.end()
            self._check_open()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        answer = self._child.ask(message)
        if answer is None:
            if self._closed:
                raise ModelRunFailed(f"{self._what}: the runtime was closed while it ran")
            self._crash = (
                f"the process that ran {self._what} {_ending(self._child.end())}; what it was "
                "running is lost. If this repeats, the engine's own log and the kernel's (dmesg) "
                "say why"
            )
            raise InstanceCrashed(self._crash)
        if "error" in answer:
            raise _error(answer["error"])(answer["message"])
        return answer


class _Child:
    """A process, the socket to it, and the memory that is shared with it."""

    def __init__(self) -> None:
        """Start it.

        Raises:
            OSError: that cannot be done.
        """
        with ExitStack() as opened:
            self.given = opened.enter_context(closing(SharedMemory.make()))
            self.returned = opened.enter_context(closing(SharedMemory.make()))
            self._link, theirs = socket.socketpair()
            with theirs:
                opened.enter_context(self._link)
                self._answers = opened.enter_context(self._link.makefile("rb"))
                self._process = _start(
                    theirs.fileno(), self.given.descriptor, self.returned.descriptor
                )
            # A child that hangs does not see its parent end.
            atexit.register(self._process.kill)
            opened.callback(atexit.unregister, self._process.kill)
            self._opened = opened.pop_all()

    @property
    def ended(self) -> bool:
        """Whether the process is dead."""
        return self._process.poll() is not None

    def ask(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """Return the answer to a message; None where the process ends without one."""
        try:
            self._link.sendall(orjson.dumps(message) + b"\n")
            line = self._answers.readline()
        except OSError:
            return None
        answer: dict[str, Any] | None = orjson.loads(line) if line.endswith(b"\n") else None
        return answer

    def end(self) -> int:
        """End the process, wake whoever asks it, and return its exit status."""
        with suppress(OSError):  # it may have hung up itself
            self._link.shutdown(socket.SHUT_RDWR)
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def close(self) -> None:
        """Close the socket and the memory, after `end`."""
        self._opened.close()


def _start(*descriptors: int) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-P", "-m", "retinue.runtimes._child", *map(str, descriptors)]
    # It finds what this process finds, and Ctrl-C in a terminal is this process's alone.
    paths = os.pathsep.join(path or str(Path.cwd()) for path in sys.path)
    return subprocess.Popen(
        arguments,
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.DEVNULL,
        pass_fds=descriptors,
        start_new_session=True,
    )


def _specs(described: list[dict[str, Any]]) -> Iterator[TensorSpec]:
    for spec in described:
        yield TensorSpec(spec["name"], spec["dtype"], tuple(spec["shape"]))


def _ending(status: int) -> str:
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = str(-status)
    hint = ", as the kernel does when memory runs out" if -status == signal.SIGKILL else ""
    return f"was ended by signal {name}{hint}"


def _error(code: str) -> type[RetinueError]:
    """Return the class of the error tree that has a code."""
    waiting: list[type[RetinueError]] = [RetinueError]
    for kind in waiting:
        if kind.code == code:
            return kind
        waiting += kind.__subclasses__()
    return RetinueError
