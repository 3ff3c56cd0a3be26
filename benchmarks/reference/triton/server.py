"""A real Triton server, CPU only, for comparison: the one inside the nvidia-pytriton wheel.

    python benchmarks/reference/triton/server.py VENV [--http-port P --grpc-port P]

VENV is a virtual environment with `benchmarks/peers/pytriton.txt` installed. The server's own
executable is started rather than pytriton's front, because pytriton shuts the statistics and
repository extensions off. Its models give back what they get (`model.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ATTEMPTS = 3


class PortTaken(RuntimeError):
    """Somebody took a port between its choice and its use."""


_BATCHING = """dynamic_batching {
  priority_levels: 201
  default_priority_level: 101
  default_queue_policy { allow_timeout_override: true default_timeout_microseconds: 60000000 }
}
"""


@dataclass(frozen=True)
class Reference:
    """One model of the reference repository: ``NAME`` in, ``NAME_out`` out."""

    name: str
    tensor: str
    datatype: str
    dims: str
    max_batch: int = 32
    labels: tuple[str, ...] = ()
    delay_s: float = 0.0
    fail: str = ""

    def config(self) -> str:
        """Return the text of its config.pbtxt."""
        label = 'label_filename: "labels.txt"' if self.labels else ""
        tensor = f"data_type: TYPE_{self.datatype} dims: [ {self.dims} ]"
        parameters = {"delay_s": f"{self.delay_s}", "fail": self.fail}
        return (
            f'name: "{self.name}"\nbackend: "python"\nmax_batch_size: {self.max_batch}\n'
            f'input [ {{ name: "{self.tensor}" {tensor} }} ]\n'
            f'output [ {{ name: "{self.tensor}_out" {tensor} {label} }} ]\n'
            "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
            + (_BATCHING if self.max_batch else "")
            + "".join(
                f'parameters {{ key: "{key}" value {{ string_value: "{value}" }} }}\n'
                for key, value in parameters.items()
                if value
            )
        )


MODELS = (
    Reference("fake", "x", "FP32", "2"),
    Reference("text", "text", "STRING", "1"),
    Reference("scores", "scores", "FP32", "3", labels=("cat", "dog", "owl")),
    Reference("half", "h", "FP16", "2"),
    Reference("brain", "b", "BF16", "2"),
    Reference("fixed", "x", "FP32", "1, 2", max_batch=0),
    Reference("slow", "x", "FP32", "2", max_batch=2, delay_s=0.5),
    Reference("failing", "x", "FP32", "2", fail="it went wrong"),
)


def free_port() -> int:
    """Return a TCP port that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def write_repository(folder: Path) -> None:
    """Write `MODELS` as a Triton model repository."""
    for model in MODELS:
        version = folder / model.name / "1"
        version.mkdir(parents=True)
        shutil.copy(HERE / "model.py", version / "model.py")
        (folder / model.name / "config.pbtxt").write_text(model.config())
        if model.labels:
            (folder / model.name / "labels.txt").write_text("\n".join(model.labels))


def _install(venv: Path, folder: Path) -> tuple[Path, dict[str, str]]:
    """Copy the server with the stub of VENV's Python; return it and its environment."""
    ask = "import sys,sysconfig;print(sys.version_info[1],sysconfig.get_config_var('LIBDIR'))"
    python = venv / "bin" / "python"
    minor, libraries = subprocess.check_output([python, "-c", ask], text=True).split()
    site = venv / "lib" / f"python3.{minor}" / "site-packages"
    root = folder / "tritonserver"
    shutil.copytree(site / "pytriton" / "tritonserver", root)
    stub = root / "python_backend_stubs" / f"3.{minor}" / "triton_python_backend_stub"
    shutil.copy(stub, root / "backends" / "python")
    bundled = site / "nvidia_pytriton.libs"
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": f"{libraries}:{bundled}",
        "PATH": f"{venv / 'bin'}:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(venv),
    }
    return root, environment


@contextlib.contextmanager
def serving(venv: Path, *, http_port: int = 0, grpc_port: int = 0) -> Iterator[tuple[str, str]]:
    """Run the server while the block runs; yield its HTTP and gRPC ``host:port``.

    Raises:
        RuntimeError: it ended or wasn't ready within a minute; with the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="triton-") as name:
        folder = Path(name)
        root, environment = _install(venv.absolute(), folder)
        write_repository(folder / "models")
        for attempt in range(ATTEMPTS):
            ports = http_port or free_port(), grpc_port or free_port()
            process = _start(root, environment, ports)
            try:
                _await_ready(process, ports[0], folder / "log")
                yield f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}"
                return
            except PortTaken:
                if attempt == ATTEMPTS - 1:
                    raise
            finally:
                _end(process)


def _start(
    root: Path, environment: dict[str, str], ports: tuple[int, int]
) -> subprocess.Popen[bytes]:
    folder = root.parent
    command = [
        f"{root}/bin/tritonserver",
        f"--model-repository={folder}/models",
        f"--backend-directory={root}/backends",
        f"--cache-directory={root}/caches",
        "--model-control-mode=explicit",
        "--load-model=*",
        "--http-address=127.0.0.1",
        f"--http-port={ports[0]}",
        "--grpc-address=127.0.0.1",
        f"--grpc-port={ports[1]}",
        "--allow-metrics=false",
    ]
    with (folder / "log").open("wb") as out:
        return subprocess.Popen(command, env=environment, stdout=out, stderr=out)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _await_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    end = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready", timeout=2)
            return
        time.sleep(0.2)
    said = log.read_text()
    failure = PortTaken if "already in use" in said else RuntimeError
    raise failure(f"Triton did not start:\n{said[-3000:]}")


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("venv", type=Path)
    parser.add_argument("--http-port", type=int, default=0)
    parser.add_argument("--grpc-port", type=int, default=0)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with serving(given.venv, http_port=given.http_port, grpc_port=given.grpc_port) as (http, grpc):
        print(f"Triton at http://{http}, gRPC at {grpc}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()


if __name__ == "__main__":
    sys.exit(main())
