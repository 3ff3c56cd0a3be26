"""A runtime in a process of its own: what ends its engine does not end this process.

Not a plug-in but a wrapper of any: ``execution.isolate``.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson

from retinue.core.errors import InstanceCrashed, ModelRunFailed, RetinueError
from retinue.core.protocols import Precision
from retinue.core.types import Array, Tensors, TensorSpec
from retinue.runtimes import tensors as tensor_checks
from retinue.runtimes._shared import SharedMemory

_END_S: Final = 2.0


class Isolated:
    """Another runtime in a child process, with the tensors in shared memory.

    A segmentation fault, an ``abort()`` or the kernel's out-of-memory killer ends the child alone:
    `run` raises `InstanceCrashed`, and so does every later one; make a new instance then. The
    child ends with this process, however that ends. It guards against accidents, not against
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
            RetinueError: what the runtime itself raises, as the same class.
        """
        self._what = f"{runtime} on {path.name}"
        self._given, self._returned = SharedMemory.make(), SharedMemory.make()
        self._link, theirs = socket.socketpair()
        self._answers = self._link.makefile("rb")
        self._closed = False
        self._using = threading.Lock()
        with theirs:
            self._process = _start(
                theirs.fileno(), self._given.descriptor, self._returned.descriptor
            )
        asked = {
            "runtime": runtime,
            "path": os.fspath(path),
            "threads": threads,
            "precision": precision,
            "device": device,
            "name": name,
        }
        try:
            specs = self._ask(asked)
        except RetinueError:
            self.close()
            raise
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
            InstanceCrashed: the process died, now or before.
        """
        with self._using:
            if self._closed:
                raise ModelRunFailed(f"{self._what}: the runtime is closed")
            tensor_checks.check(tensors, self._inputs)
            places = self._given.write(tensors.values())
            answer = self._ask({"names": list(tensors), "places": places})
            views = self._returned.read(answer["places"])
            return {name: np.array(view) for name, view in zip(answer["names"], views, strict=True)}

    def close(self) -> None:
        """End the process within seconds. May be called twice.

        Another thread may call it to end a run that hangs.
        """
        if self._closed:
            return
        self._closed = True
        self._link.shutdown(socket.SHUT_RDWR)  # the child ends, and a run that waits is woken
        self._wait()
        with self._using:
            for part in (self._link, self._answers, self._given, self._returned):
                part.close()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        try:
            self._link.sendall(orjson.dumps(message) + b"\n")
            line = self._answers.readline()
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            if self._closed:
                raise ModelRunFailed(f"{self._what}: the runtime was closed while it ran")
            raise InstanceCrashed(
                f"the process that ran {self._what} {_ending(self._wait())}; what it was running "
                "is lost. If this repeats, the engine's own log and the kernel's (dmesg) say why"
            )
        answer: dict[str, Any] = orjson.loads(line)
        if "error" in answer:
            raise _error(answer["error"])(answer["message"])
        return answer

    def _wait(self) -> int:
        try:
            return self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


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
