"""The process that `retinue.runtimes.isolated.Isolated` starts: one runtime, served over a socket.

Messages are JSON objects, one a line; tensors go through shared memory.
"""

from __future__ import annotations

import faulthandler
import os
import select
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import orjson

from retinue.core import plugins
from retinue.core.errors import ModelError, ModelRunFailed, RetinueError
from retinue.core.protocols import Runtime, RuntimeFactory
from retinue.runtimes._shared import SharedMemory


def main() -> None:
    """Load what the first message asks for, run what the others ask for, end with the parent."""
    faulthandler.enable()
    for number in (signal.SIGINT, signal.SIGTERM):
        # A stop of the whole service first lets the parent finish its accepted work.
        signal.signal(number, signal.SIG_IGN)
    control, inputs, outputs = (int(argument) for argument in sys.argv[1:])
    threading.Thread(target=_end_with_parent, args=(control,), daemon=True).start()
    with socket.socket(fileno=control) as link, link.makefile("rb") as requests:
        first = requests.readline()
        if not first:
            return
        try:
            runtime = _load(orjson.loads(first))
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything; the parent is told
            _send(link, _described(error, ModelError))
            return
        specs = {"inputs": runtime.inputs, "outputs": runtime.outputs}
        _send(link, specs)
        given, returned = SharedMemory(inputs), SharedMemory(outputs)
        for line in requests:
            _send(link, _run(runtime, orjson.loads(line), given, returned))


def _load(request: dict[str, Any]) -> Runtime:
    factory: RuntimeFactory = plugins.load(plugins.RUNTIMES, request.pop("runtime"))
    return factory(Path(request.pop("path")), **request)


def _run(
    runtime: Runtime, request: dict[str, Any], given: SharedMemory, returned: SharedMemory
) -> dict[str, Any]:
    try:
        tensors = dict(zip(request["names"], given.read(request["places"]), strict=True))
        values = runtime.run(tensors)
        return {"names": list(values), "places": returned.write(values.values())}
    except Exception as error:  # noqa: BLE001 - as in `main`
        return _described(error, ModelRunFailed)


def _described(error: Exception, otherwise: type[RetinueError]) -> dict[str, str]:
    if isinstance(error, RetinueError):
        return {"error": error.code, "message": error.message}
    return {"error": otherwise.code, "message": f"{type(error).__name__}: {error}"}


def _send(link: socket.socket, message: object) -> None:
    try:
        link.sendall(orjson.dumps(message) + b"\n")
    except OSError:  # the parent is gone
        os._exit(0)


def _end_with_parent(control: int) -> None:
    """End this process when the other end of the socket is closed, even in the middle of a run."""
    poll = select.poll()
    poll.register(control, 0)  # hang-ups are always reported
    poll.poll()
    os._exit(0)


if __name__ == "__main__":
    main()
