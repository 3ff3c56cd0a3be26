"""A runtime in a process of its own: crashes, hangs, ends, and tensors in shared memory."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from retinue.core import plugins
from retinue.core.errors import (
    InstanceCrashed,
    InvalidTensor,
    ModelCorrupt,
    ModelError,
    ModelRunFailed,
    PluginError,
    Unavailable,
)
from retinue.runtimes import isolated
from retinue.runtimes._shared import SharedMemory
from retinue.runtimes.isolated import Isolated
from retinue.testing import onnx_models

RUNTIME = """
import ctypes, os, signal, time
from retinue.core.errors import InvalidTensor, ModelCorrupt
from retinue.core.types import TensorSpec

class Fragile:
    inputs = outputs = (TensorSpec("x", "float32", (-1, 1)),)

    def __init__(self, path, *, threads=1, precision="f32", device="", name=""):
        if device == "abort":
            os.abort()
        if device == "odd":
            raise ZeroDivisionError("odd")
        if device == "corrupt":
            raise ModelCorrupt(f"{path} is corrupt")

    def run(self, tensors):
        x = tensors["x"]
        ends = {1: signal.SIGSEGV, 2: signal.SIGABRT, 3: signal.SIGKILL}
        what = int(x[0, 0])
        if what in ends:
            os.kill(os.getpid(), ends[what])
        if what == 4:
            os._exit(7)
        if what == 5:
            time.sleep(1000)
        if what == 6:
            raise ZeroDivisionError("six")
        if what == 7:
            raise InvalidTensor("seven is no good")
        return {"x": np_repeat(x)}

    def close(self):
        pass

def np_repeat(x):
    import numpy as np
    return np.repeat(x, max(int(x[0, 0]), 1), axis=0) if x[0, 0] > 100 else x

RUNTIME = Fragile
"""


def row(value: float) -> dict[str, np.ndarray]:
    return {"x": np.full((1, 1), value, np.float32)}


def await_end(child: int) -> None:
    end = time.monotonic() + 10
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end, "the child outlives its parent"
        time.sleep(0.02)


@pytest.fixture
def fragile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Isolated]]:
    """Install a runtime that crashes on demand as a plug-in from outside."""
    (tmp_path / "fragile_plugin.py").write_text(RUNTIME)
    metadata = tmp_path / "fragile-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fragile\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[retinue.runtimes]\nfragile = fragile_plugin\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[Isolated] = []

    def make(**options: str) -> Isolated:
        made.append(Isolated("fragile", Path("weights.onnx"), **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for runtime in made:
        runtime.close()
    plugins._outside.cache_clear()


@pytest.mark.parametrize(
    ("value", "how"),
    [(1, "signal SIGSEGV"), (2, "signal SIGABRT"), (3, "SIGKILL, as the kernel"), (4, "code 7")],
)
def test_a_crash_is_an_error_and_this_process_lives(
    fragile: Callable[..., Isolated], value: float, how: str
) -> None:
    runtime = fragile()
    assert runtime.run(row(0))["x"][0, 0] == 0
    with pytest.raises(InstanceCrashed, match=how):
        runtime.run(row(value))
    with pytest.raises(InstanceCrashed, match=how):
        runtime.run(row(0))
    runtime.close()
    with pytest.raises(ModelRunFailed, match="closed"):
        runtime.run(row(0))


def test_a_death_while_nothing_ran_costs_no_answer(fragile: Callable[..., Isolated]) -> None:
    runtime = fragile()
    for _ in range(2):
        runtime._child._process.kill()
        runtime._child._process.wait()
        assert runtime.run(row(0))["x"][0, 0] == 0


def test_a_process_that_cannot_be_replaced_is_a_crash(tmp_path: Path) -> None:
    path = onnx_models.aliases(tmp_path / "m.onnx")
    x = {"x": np.ones((1, 3), np.float32)}
    with closing(Isolated("onnxruntime", path)) as runtime:
        path.unlink()
        runtime._child._process.kill()
        runtime._child._process.wait()
        for _ in range(2):
            with pytest.raises(InstanceCrashed, match=r"SIGKILL.* while it ran nothing, .*m\.onnx"):
                runtime.run(x)


def test_a_process_that_cannot_be_started_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = psutil.Process().num_fds()
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    for _ in range(3):
        with pytest.raises(Unavailable, match=r"no process can be started for .*ulimit"):
            Isolated("onnxruntime", Path("x"))
    assert psutil.Process().num_fds() == before


def test_errors_arrive_as_the_same_class(fragile: Callable[..., Isolated]) -> None:
    runtime = fragile()
    with pytest.raises(ModelRunFailed, match="ZeroDivisionError: six"):
        runtime.run(row(6))
    with pytest.raises(InvalidTensor, match="seven is no good"):
        runtime.run(row(7))
    assert runtime.run(row(0))["x"].shape == (1, 1)
    with pytest.raises(ModelCorrupt, match=r"weights\.onnx is corrupt"):
        fragile(device="corrupt")
    with pytest.raises(ModelError, match="ZeroDivisionError: odd"):
        fragile(device="odd")
    with pytest.raises(InstanceCrashed, match="SIGABRT"):
        fragile(device="abort")
    with pytest.raises(PluginError, match="no runtimes plug-in is called 'nope'"):
        Isolated("nope", Path("x"))


def test_answers_may_outgrow_the_memory_and_outlive_the_runtime(
    fragile: Callable[..., Isolated],
) -> None:
    runtime = fragile()
    kept = [runtime.run(row(size))["x"] for size in (101, 50_000, 1_000, 200_000)]
    runtime.close()
    assert [len(array) for array in kept] == [101, 50_000, 1_000, 200_000]
    for array in kept:
        assert (array == len(array)).all()


def test_a_run_that_hangs_is_ended_by_closing(fragile: Callable[..., Isolated]) -> None:
    runtime = fragile()
    found: list[BaseException] = []

    def hang() -> None:
        try:
            runtime.run(row(5))
        except ModelRunFailed as error:
            found.append(error)

    thread = threading.Thread(target=hang)
    thread.start()
    time.sleep(0.2)
    start = time.monotonic()
    runtime.close()
    thread.join()
    assert time.monotonic() - start < 5
    assert "closed while it ran" in str(found[0])


@pytest.mark.parametrize("value", [0, 5])
def test_the_child_ends_with_its_parent(fragile: Callable[..., Isolated], value: float) -> None:
    code = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from retinue.runtimes.isolated import Isolated\n"
        "runtime = Isolated('fragile', Path('w.onnx'))\n"
        "print(runtime._child._process.pid, flush=True)\n"
        f"runtime.run({{'x': np.full((1, 1), {value}, np.float32)}})\n"
        "sys.stdin.read()\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert psutil.pid_exists(child)
        time.sleep(0.2)
        parent.send_signal(signal.SIGKILL)
    await_end(child)


def test_a_child_that_hangs_ends_with_its_parent_too(tmp_path: Path) -> None:
    path = onnx_models.aliases(tmp_path / "m.onnx")
    code = (
        "import signal\n"
        "from pathlib import Path\n"
        "from retinue.runtimes.isolated import Isolated\n"
        f"runtime = Isolated('onnxruntime', Path({str(path)!r}))\n"
        "print(runtime._child._process.pid, flush=True)\n"
        "runtime._child._process.send_signal(signal.SIGSTOP)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    await_end(int(done.stdout))


@pytest.mark.parametrize("asked", [b"", b'{"runtime": "nope", "path": "x"}\n'])
def test_the_child_of_a_parent_that_is_gone_says_nothing(
    asked: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    for waits in (False, True):
        ours, theirs = socket.socketpair()
        with ours, theirs, closing(SharedMemory.make()) as memory:
            ours.sendall(asked)
            if not waits:
                ours.close()
            child = isolated._start(theirs.fileno(), memory.descriptor, memory.descriptor)
            time.sleep(0.3 if waits else 0)
        assert child.wait(10) == 0
    assert capfd.readouterr() == ("", "")


def test_stop_signals_are_the_parent_s_business(fragile: Callable[..., Isolated]) -> None:
    runtime = fragile()
    for number in (signal.SIGINT, signal.SIGTERM):
        runtime._child._process.send_signal(number)
    assert runtime.run(row(0))["x"][0, 0] == 0


def test_nothing_is_left_open(tmp_path: Path) -> None:
    path = onnx_models.convolution(tmp_path / "m.onnx")
    before = psutil.Process().num_fds()
    for _ in range(3):
        Isolated("onnxruntime", path).close()
    with pytest.raises(ModelCorrupt):
        Isolated("onnxruntime", tmp_path / "missing.onnx")
    assert psutil.Process().num_fds() == before
    assert not psutil.Process().children()


_NUMBERS = st.one_of(
    hnp.boolean_dtypes(),
    hnp.integer_dtypes(endianness="="),
    hnp.unsigned_integer_dtypes(endianness="="),
    hnp.floating_dtypes(endianness="=", sizes=(16, 32, 64)),
)
_ARRAYS = hnp.arrays(_NUMBERS, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))


@given(st.lists(st.lists(_ARRAYS, max_size=4), max_size=4))
def test_shared_memory_gives_back_what_was_written(batches: list[list[np.ndarray]]) -> None:
    one = SharedMemory.make()
    other = SharedMemory(os.dup(one.descriptor))
    with closing(one), closing(other):
        for arrays in batches:
            places = one.write(array.T for array in arrays)
            for array, read in zip(arrays, other.read(places), strict=True):
                assert read.dtype == array.dtype
                np.testing.assert_array_equal(read, array.T)
