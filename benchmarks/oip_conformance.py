"""The protocol's conformance suite against a real Triton and against Retinue, side by side.

    python benchmarks/oip_conformance.py [--venv build/peers/pytriton] [--differences FILE]

Both serve the same models, which give back what they get; Retinue with its own program: real HTTP
and gRPC fronts, real pipelines. NVIDIA's clients are used as they come. The table has a row for
each portable check of `retinue.testing.oip_suite`. With ``--differences``, every request of
``reference/triton/observe.py`` is sent to both too, and those that one accepts and the other
refuses, or that they refuse differently, are written down as Markdown.

VENV is made by: python -m venv VENV; VENV/bin/pip install -r benchmarks/peers/pytriton.txt
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.utils import InferenceServerException

from common import show
from retinue.core.settings import Server, Settings
from retinue.core.types import Array, Tensors
from retinue.host import serve
from retinue.pipeline.pipeline import ModelPipeline
from retinue.testing import oip_suite
from retinue.testing.host import FakeHost
from retinue.testing.models import FakeModel
from retinue.testing.oip_clients import grpc_front, http_front
from retinue.testing.oip_subjects import Subject, identity
from retinue.testing.pipelines import FAKE_CLASSES, FAKE_MODELS

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "reference" / "triton"))
START_S = 60
# What one server changes for the requests after it, or what only the reference has.
LEFT_OUT = re.compile(
    r"/(load|unload|fixed|slow|failing|half|brain)\b|/logging|/trace|sharedmemory"
)


class Identity(FakeModel):
    """Gives back each input ``NAME`` as ``NAME_out``."""

    def run(self, batch: Sequence[Tensors]) -> list[dict[str, Array]]:
        """Copy the rows."""
        return [{f"{name}_out": np.array(row) for name, row in one.items()} for one in batch]


class Host(FakeHost):
    """The fake models, behind real pipelines."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, models=FAKE_MODELS)

    async def start(self) -> None:
        """Put pipelines in the place of the fakes."""
        for name, fake in list(self.pipelines.items()):
            model: Any = fake.model
            instances = [Identity(model.runtime, name=name, version="1") for _ in range(2)]
            made = ModelPipeline(
                instances, batching=self.settings.batching, limits=self.settings.limits
            )
            await made.start()
            self.pipelines[name] = made  # type: ignore[assignment]

    async def drain(self, timeout_s: float) -> None:
        """Finish accepted work."""
        await asyncio.gather(*(one.drain(timeout_s) for one in self.pipelines.values()))  # type: ignore[attr-defined]


def serve_retinue() -> None:
    """Serve until SIGTERM."""
    serve.run(
        Settings(server=Server(port=0, model_control=True)),
        open_host=Host,
        on_ready=lambda url, grpc: print(f"ready {url} {grpc}", flush=True),
    )


@contextlib.contextmanager
def retinue() -> Iterator[tuple[str, str]]:
    """Run Retinue while the block runs; yield its HTTP and gRPC ``host:port``."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, __file__, "--serve"],
                stdout=out,
                stderr=out,
                env={**os.environ, "RETINUE_HOME": folder},
            )
        try:
            end = time.monotonic() + START_S
            while not (found := re.search(r"ready http://(\S+) (\S+)", log.read_text())):
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"Retinue did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.1)
            yield found[1], found[2]
        finally:
            process.terminate()
            process.wait(30)
            print(log.read_text()[-3000:].partition("\n")[2], file=sys.stderr, end="")


def check_all(http: str, grpc: str) -> dict[tuple[str, str], str]:
    """Run every portable check over both fronts; return "same" or what differs."""
    found = {}
    with http_front(http) as over_http, grpc_front(grpc) as over_grpc:
        for front in (over_http, over_grpc):
            subject = Subject(
                front,
                numbers=identity("fake", "x", "float32", 2),
                texts=identity("text", "text", "object", 1),
                labelled=identity("scores", "scores", "float32", 3, labels=FAKE_CLASSES),
            )
            for check in oip_suite.PORTABLE:
                found[check.__name__, front.name] = _run(check, subject)
    return found


def _run(check: oip_suite.Check, subject: Subject) -> str:
    try:
        check(subject)
    except (AssertionError, InferenceServerException) as error:
        return " ".join(f"{type(error).__name__}: {error}".split())[:160]
    return "as it says"


def differences(triton: tuple[str, str], ours: tuple[str, str]) -> list[str]:
    """Return the requests that the servers do not treat alike, as Markdown."""
    import observe
    import observe_grpc
    import observe_http
    import tritonclient.grpc as client_of

    lines = ["# Where Retinue and Triton differ", ""]
    count = 0
    for name, cases in observe_http.http_groups():
        lines += [f"## HTTP: {name}", ""]
        for case in cases:
            if LEFT_OUT.search(case[2]):
                continue
            count += 1
            theirs, mine = (observe.exchange(address, case) for address in (triton[0], ours[0]))
            if theirs[0] != mine[0]:
                lines += [
                    f"- {observe.described(case)}",
                    f"  - Triton **{theirs[0]}** `{theirs[2][:300]}`",
                    f"  - Retinue **{mine[0]}** `{mine[2][:300]}`",
                ]
    lines += ["", "## gRPC", ""]
    with (
        client_of.InferenceServerClient(triton[1]) as first,
        client_of.InferenceServerClient(ours[1]) as second,
    ):
        for title, rpc, request in observe_grpc.grpc_cases():
            said = f"/{observe.told(request)} {rpc}"
            if re.search(r"half|fixed|slow|failing|SharedMemoryS|TraceS|LogS|Load|Unload", said):
                continue
            count += 1
            theirs, mine = (observe.call(one, rpc, request) for one in (first, second))
            if theirs[0] != mine[0]:
                lines += [
                    f"- **{rpc}** {title} `{observe.told(request)[:200]}`",
                    f"  - Triton **{theirs[0]}** `{theirs[1][:300]}`",
                    f"  - Retinue **{mine[0]}** `{mine[1][:300]}`",
                ]
    differ = sum(line.startswith("- ") for line in lines)
    lines.insert(1, f"\nOf {count} requests, {differ} end with another status.")
    return lines


def main() -> None:
    """Start both, compare, print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--venv", type=Path, default=HERE.parent / "build/peers/pytriton")
    parser.add_argument("--differences", type=Path, help="write them to this file")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve_retinue()
        return
    import server as triton_server

    with triton_server.serving(given.venv) as triton, retinue() as ours:
        theirs, mine = check_all(*triton), check_all(*ours)
        if given.differences:
            given.differences.write_text("\n".join([*differences(triton, ours), ""]))
    rows = [
        [
            check.__name__.replace("_", " "),
            *(
                found[check.__name__, front]
                for front in ("http", "grpc")
                for found in (theirs, mine)
            ),
        ]
        for check in oip_suite.PORTABLE
    ]
    failed = [
        f"{row[0]}, {column}: {cell}"
        for row in rows
        for column, cell in zip(
            ("Triton http", "Retinue http", "Triton grpc", "Retinue grpc"), row[1:], strict=True
        )
        if cell != "as it says"
    ]
    show(
        "Open Inference Protocol, the same checks",
        [
            "the server does what the check says",
            "Triton, HTTP",
            "Retinue, HTTP",
            "Triton, gRPC",
            "Retinue, gRPC",
        ],
        [[row[0], *("yes" if cell == "as it says" else "no" for cell in row[1:])] for row in rows],
        notes=failed,
    )


if __name__ == "__main__":
    main()
