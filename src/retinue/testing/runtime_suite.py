"""The contract of every `Runtime`, as checks that any test runner can call.

A check takes a subject (what a plug-in exposes as ``RUNTIME``, and what it reads) and an empty
folder, and raises `AssertionError` where the contract is broken. An author of a runtime runs them
all::

    @pytest.mark.parametrize("check", runtime_suite.CHECKS, ids=lambda c: c.__name__)
    def test_contract(check, tmp_path):
        check(runtime_suite.Subject(MyRuntime), tmp_path)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from retinue.core.errors import (
    ConfigError,
    InvalidTensor,
    MissingExtra,
    ModelCorrupt,
    ModelRunFailed,
    RetinueError,
    UnsupportedModel,
)
from retinue.core.protocols import Runtime, RuntimeFactory
from retinue.core.types import Array, Tensors, TensorSpec
from retinue.testing import onnx_models
from retinue.testing.checks import raises
from retinue.testing.onnx_models import Floats

TOLERANCE = 2e-5


class Networks(Protocol):
    """Writes the suite's networks, those of `retinue.testing.onnx_models`, in some format.

    Each returns the file, which may have another suffix than the path that is given.
    """

    def convolution(self, path: Path) -> Path:
        """Write ``picture`` (N, 3, 8, 8) -> ``features`` (N, 5) and ``scores`` (N, 4)."""
        ...

    def two_inputs(self, path: Path) -> Path:
        """Write ``left`` float32 (N, 2), ``right`` int64 (N, 2) -> ``total`` float32 (N, 2)."""
        ...

    def aliases(self, path: Path) -> Path:
        """Write ``x`` (N, 3) -> ``doubled``, ``again:0``, which is the same, and ``positive``."""
        ...

    def unknown_operator(self, path: Path) -> Path:
        """Write a network with an operator "NoSuchOperator"."""
        ...


@dataclass(frozen=True, slots=True)
class Subject:
    """A runtime under test.

    Attributes:
        factory: What the plug-in exposes as ``RUNTIME``.
        networks: Writes the files that it reads; ONNX files unless it says otherwise.
        unreadable: What a missing or damaged file is to it; where another machine reads the
            files, only that the model is not there.
        unsupported: The same of an operator that the engine lacks.
    """

    factory: RuntimeFactory
    networks: Networks = onnx_models
    unreadable: type[RetinueError] = ModelCorrupt
    unsupported: type[RetinueError] = UnsupportedModel


Check = Callable[[Subject, Path], None]


def _pictures(count: int, seed: int = 0) -> Floats:
    random = np.random.default_rng(seed)
    return random.normal(size=(count, 3, 8, 8)).astype(np.float32)


def specs_are_those_of_the_file(subject: Subject, folder: Path) -> None:
    """Names, dtypes, shapes and order are the file's; -1 where a dimension varies."""
    with closing(subject.factory(subject.networks.convolution(folder / "m.onnx"))) as runtime:
        assert isinstance(runtime, Runtime)
        assert runtime.inputs == (TensorSpec("picture", "float32", (-1, 3, 8, 8)),)
        assert runtime.outputs == (
            TensorSpec("features", "float32", (-1, 5)),
            TensorSpec("scores", "float32", (-1, 4)),
        )
    with closing(subject.factory(subject.networks.two_inputs(folder / "t.onnx"))) as runtime:
        assert [(spec.name, spec.dtype) for spec in runtime.inputs] == [
            ("left", "float32"),
            ("right", "int64"),
        ]


def outputs_keep_their_names(subject: Subject, folder: Path) -> None:
    """Outputs that are one value under several names, or have odd names, are all returned."""
    x = np.array([[-1, 0, 2]], np.float32)
    with closing(subject.factory(subject.networks.aliases(folder / "m.onnx"))) as runtime:
        assert [spec.name for spec in runtime.outputs] == ["doubled", "again:0", "positive"]
        values = runtime.run({"x": x})
    assert list(values) == ["doubled", "again:0", "positive"]
    np.testing.assert_array_equal(values["doubled"], 2 * x)
    np.testing.assert_array_equal(values["again:0"], 2 * x)
    np.testing.assert_array_equal(values["positive"], np.maximum(2 * x, 0))


def agrees_with_numpy(subject: Subject, folder: Path) -> None:
    """In f32 the answers are those of a plain evaluation, at batch sizes 1 to 9 in any order."""
    with closing(subject.factory(subject.networks.convolution(folder / "m.onnx"))) as runtime:
        for count in (1, 4, 2, 9, 1):
            pictures = _pictures(count, seed=count)
            _close(runtime.run({"picture": pictures}), onnx_models.evaluate_convolution(pictures))


def takes_views_and_leaves_inputs_alone(subject: Subject, folder: Path) -> None:
    """A strided, read-only input is run as what it shows, and is not written to."""
    pictures = np.ascontiguousarray(_pictures(6).transpose(0, 1, 3, 2))
    view = pictures.transpose(0, 1, 3, 2)[::2]
    view.flags.writeable = False
    before = view.copy()
    with closing(subject.factory(subject.networks.convolution(folder / "m.onnx"))) as runtime:
        _close(runtime.run({"picture": view}), onnx_models.evaluate_convolution(before))
    np.testing.assert_array_equal(view, before)


def outputs_outlive_the_next_run(subject: Subject, folder: Path) -> None:
    """What a run returned does not change when the next one runs, nor after `close`."""
    with closing(subject.factory(subject.networks.convolution(folder / "m.onnx"))) as runtime:
        first = runtime.run({"picture": _pictures(2)})
        kept = {name: array.copy() for name, array in first.items()}
        runtime.run({"picture": _pictures(2, seed=5)})
    for name, array in first.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, kept[name])


def refuses_wrong_tensors(subject: Subject, folder: Path) -> None:
    """A missing, unknown, mistyped, misshapen or empty tensor is an `InvalidTensor`."""
    left, right = np.zeros((2, 2), np.float32), np.zeros((2, 2), np.int64)
    good: dict[str, Array] = {"left": left, "right": right}
    wrong: dict[str, Tensors] = {
        "missing": {"left": left},
        "unknown": {**good, "middle": left},
        "dtype": {**good, "right": left},
        "byte order": {**good, "left": left.astype(left.dtype.newbyteorder())},
        "rank": {**good, "left": left[0]},
        "size": {**good, "left": np.zeros((2, 3), np.float32)},
        "batch": {**good, "left": left[:1]},
        "empty": {"left": left[:0], "right": right[:0]},
    }
    with closing(subject.factory(subject.networks.two_inputs(folder / "m.onnx"))) as runtime:
        for what, tensors in wrong.items():
            error = raises(InvalidTensor, runtime.run, tensors)
            assert "tensor" in error.message, what
        assert runtime.run(good)["total"].shape == (2, 2), "it must work after refusals"


def closes_twice(subject: Subject, folder: Path) -> None:
    """`close` may be called twice; a closed runtime refuses to run."""
    runtime = subject.factory(subject.networks.convolution(folder / "m.onnx"))
    runtime.close()
    runtime.close()
    error = raises(ModelRunFailed, runtime.run, {"picture": _pictures(1)})
    assert "closed" in error.message


def instances_run_side_by_side(subject: Subject, folder: Path) -> None:
    """Two instances, each in its own thread, give each its own answers."""
    path = subject.networks.convolution(folder / "m.onnx")
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            with closing(subject.factory(path)) as runtime:
                for turn in range(20):
                    pictures = _pictures(1 + turn % 3, seed=100 * seed + turn)
                    expected = onnx_models.evaluate_convolution(pictures)
                    _close(runtime.run({"picture": pictures}), expected)
        except BaseException as error:  # noqa: BLE001 - a thread's failure is the check's failure
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def may_move_between_threads(subject: Subject, folder: Path) -> None:
    """An instance made in one thread runs in another, one at a time."""
    with closing(subject.factory(subject.networks.convolution(folder / "m.onnx"))) as runtime:
        answers: list[dict[str, Array]] = []
        pictures = _pictures(2)
        for _ in range(3):
            thread = threading.Thread(
                target=lambda: answers.append(runtime.run({"picture": pictures}))
            )
            thread.start()
            thread.join()
    assert len(answers) == 3
    for answer in answers:
        _close(answer, onnx_models.evaluate_convolution(pictures))


def threads_do_not_change_answers(subject: Subject, folder: Path) -> None:
    """One thread or three: the same answers. Fewer than one is a `ConfigError`."""
    path = subject.networks.convolution(folder / "m.onnx")
    pictures = _pictures(5)
    for threads in (1, 3):
        with closing(subject.factory(path, threads=threads)) as runtime:
            _close(runtime.run({"picture": pictures}), onnx_models.evaluate_convolution(pictures))
    raises(ConfigError, subject.factory, path, threads=0)


def precision_is_never_silent(subject: Subject, folder: Path) -> None:
    """The default is f32; another precision is what was asked for, or a `ConfigError`."""
    path = subject.networks.convolution(folder / "m.onnx")
    pictures = _pictures(4)
    expected = onnx_models.evaluate_convolution(pictures)
    for precision, bits in (("bf16", 8), ("f16", 11)):
        try:
            runtime = subject.factory(path, precision=precision)  # type: ignore[arg-type]
        except ConfigError as error:
            assert precision in error.message
            assert "f32" in error.message
            continue
        with closing(runtime):
            values = runtime.run({"picture": pictures})
        for name, value in values.items():
            error_bound = np.abs(expected[name]).max() * 2.0**-bits * 4
            assert np.abs(value - expected[name]).max() <= error_bound


def refuses_unreadable_files(subject: Subject, folder: Path) -> None:
    """A missing, empty, truncated, damaged or foreign file is refused, and named."""
    file = subject.networks.convolution(folder / "whole.onnx")
    whole = file.read_bytes()
    middle = len(whole) // 2
    contents = {
        "empty": b"",
        "truncated": whole[:middle],
        "damaged": whole[:40] + b"\xff" * 20 + whole[60:],
        "text": b"this is not a network, whatever its name says\n",
        "zeros": bytes(500),
    }
    for name, content in contents.items():
        path = (folder / name).with_suffix(file.suffix)
        path.write_bytes(content)
        error = raises(subject.unreadable, subject.factory, path)
        assert path.stem in error.message
    raises(subject.unreadable, subject.factory, (folder / "missing").with_suffix(file.suffix))
    raises(subject.unreadable, subject.factory, folder)


def names_what_it_does_not_support(subject: Subject, folder: Path) -> None:
    """An operator that the engine lacks is named, or at least the model is."""
    path = subject.networks.unknown_operator(folder / "peculiar.onnx")
    error = raises(subject.unsupported, subject.factory, path)
    wanted = "NoSuchOperator" if subject.unsupported is UnsupportedModel else path.stem
    assert wanted in error.message


def knows_its_devices(subject: Subject, folder: Path) -> None:
    """A device that is not there is a `ConfigError` that names it."""
    path = subject.networks.convolution(folder / "m.onnx")
    error = raises(ConfigError, subject.factory, path, device="abacus:7")
    assert "abacus:7" in error.message


def names_its_missing_extra(subject: Subject, folder: Path) -> None:
    """Where its engine is not installed, it says how to install it: the one check that is left."""
    error = raises(MissingExtra, subject.factory, folder / "m.onnx")
    assert "pip install 'retinue[" in error.message


def _close(values: Tensors, expected: Tensors) -> None:
    assert set(values) == set(expected)
    for name, array in expected.items():
        assert values[name].shape == array.shape
        np.testing.assert_allclose(values[name], array, rtol=TOLERANCE, atol=TOLERANCE)


CHECKS: tuple[Check, ...] = (
    specs_are_those_of_the_file,
    outputs_keep_their_names,
    agrees_with_numpy,
    takes_views_and_leaves_inputs_alone,
    outputs_outlive_the_next_run,
    refuses_wrong_tensors,
    closes_twice,
    instances_run_side_by_side,
    may_move_between_threads,
    threads_do_not_change_answers,
    precision_is_never_silent,
    refuses_unreadable_files,
    names_what_it_does_not_support,
    knows_its_devices,
)
