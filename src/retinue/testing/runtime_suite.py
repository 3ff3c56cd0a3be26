"""The contract of every `Runtime`, as checks that any test runner can call.

A check takes a factory (what a plug-in exposes as ``RUNTIME``) and an empty folder, and raises
`AssertionError` where the contract is broken. An author of a runtime runs them all::

    @pytest.mark.parametrize("check", runtime_suite.CHECKS, ids=lambda c: c.__name__)
    def test_contract(check, tmp_path):
        check(MyRuntime, tmp_path)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np

from retinue.core.errors import (
    ConfigError,
    InvalidTensor,
    ModelCorrupt,
    ModelRunFailed,
    RetinueError,
    UnsupportedModel,
)
from retinue.core.protocols import Runtime, RuntimeFactory
from retinue.core.types import Array, Tensors, TensorSpec
from retinue.testing import onnx_models
from retinue.testing.onnx_models import Floats

Check = Callable[[RuntimeFactory, Path], None]

TOLERANCE = 2e-5


def _pictures(count: int, seed: int = 0) -> Floats:
    random = np.random.default_rng(seed)
    return random.normal(size=(count, 3, 8, 8)).astype(np.float32)


def _raises(kind: type[RetinueError], action: Callable[[], object]) -> RetinueError:
    try:
        action()
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}")


def specs_are_those_of_the_file(factory: RuntimeFactory, folder: Path) -> None:
    """Names, dtypes, shapes and order are the file's; -1 where a dimension varies."""
    with closing(factory(onnx_models.convolution(folder / "m.onnx"))) as runtime:
        assert isinstance(runtime, Runtime)
        assert runtime.inputs == (TensorSpec("picture", "float32", (-1, 3, 8, 8)),)
        assert runtime.outputs == (
            TensorSpec("features", "float32", (-1, 5)),
            TensorSpec("scores", "float32", (-1, 4)),
        )
    with closing(factory(onnx_models.two_inputs(folder / "t.onnx"))) as runtime:
        assert [(spec.name, spec.dtype) for spec in runtime.inputs] == [
            ("left", "float32"),
            ("right", "int64"),
        ]


def outputs_keep_their_names(factory: RuntimeFactory, folder: Path) -> None:
    """Outputs that are one value under several names, or have odd names, are all returned."""
    x = np.array([[-1, 0, 2]], np.float32)
    with closing(factory(onnx_models.aliases(folder / "m.onnx"))) as runtime:
        assert [spec.name for spec in runtime.outputs] == ["doubled", "again:0", "positive"]
        values = runtime.run({"x": x})
    assert list(values) == ["doubled", "again:0", "positive"]
    np.testing.assert_array_equal(values["doubled"], 2 * x)
    np.testing.assert_array_equal(values["again:0"], 2 * x)
    np.testing.assert_array_equal(values["positive"], np.maximum(2 * x, 0))


def agrees_with_numpy(factory: RuntimeFactory, folder: Path) -> None:
    """In f32 the answers are those of a plain evaluation, at batch sizes 1 to 9 in any order."""
    with closing(factory(onnx_models.convolution(folder / "m.onnx"))) as runtime:
        for count in (1, 4, 2, 9, 1):
            pictures = _pictures(count, seed=count)
            _close(runtime.run({"picture": pictures}), onnx_models.evaluate_convolution(pictures))


def takes_views_and_leaves_inputs_alone(factory: RuntimeFactory, folder: Path) -> None:
    """A strided, read-only input is run as what it shows, and is not written to."""
    pictures = np.ascontiguousarray(_pictures(6).transpose(0, 1, 3, 2))
    view = pictures.transpose(0, 1, 3, 2)[::2]
    view.flags.writeable = False
    before = view.copy()
    with closing(factory(onnx_models.convolution(folder / "m.onnx"))) as runtime:
        _close(runtime.run({"picture": view}), onnx_models.evaluate_convolution(before))
    np.testing.assert_array_equal(view, before)


def outputs_outlive_the_next_run(factory: RuntimeFactory, folder: Path) -> None:
    """What a run returned does not change when the next one runs, nor after `close`."""
    with closing(factory(onnx_models.convolution(folder / "m.onnx"))) as runtime:
        first = runtime.run({"picture": _pictures(2)})
        kept = {name: array.copy() for name, array in first.items()}
        runtime.run({"picture": _pictures(2, seed=5)})
    for name, array in first.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, kept[name])


def refuses_wrong_tensors(factory: RuntimeFactory, folder: Path) -> None:
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
    with closing(factory(onnx_models.two_inputs(folder / "m.onnx"))) as runtime:
        for what, tensors in wrong.items():
            error = _raises(InvalidTensor, lambda tensors=tensors: runtime.run(tensors))  # type: ignore[misc]
            assert "tensor" in error.message, what
        assert runtime.run(good)["total"].shape == (2, 2), "it must work after refusals"


def closes_twice(factory: RuntimeFactory, folder: Path) -> None:
    """`close` may be called twice; a closed runtime refuses to run."""
    runtime = factory(onnx_models.convolution(folder / "m.onnx"))
    runtime.close()
    runtime.close()
    error = _raises(ModelRunFailed, lambda: runtime.run({"picture": _pictures(1)}))
    assert "closed" in error.message


def instances_run_side_by_side(factory: RuntimeFactory, folder: Path) -> None:
    """Two instances, each in its own thread, give each its own answers."""
    path = onnx_models.convolution(folder / "m.onnx")
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            with closing(factory(path)) as runtime:
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


def may_move_between_threads(factory: RuntimeFactory, folder: Path) -> None:
    """An instance made in one thread runs in another, one at a time."""
    with closing(factory(onnx_models.convolution(folder / "m.onnx"))) as runtime:
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


def threads_do_not_change_answers(factory: RuntimeFactory, folder: Path) -> None:
    """One thread or three: the same answers. Fewer than one is a `ConfigError`."""
    path = onnx_models.convolution(folder / "m.onnx")
    pictures = _pictures(5)
    for threads in (1, 3):
        with closing(factory(path, threads=threads)) as runtime:
            _close(runtime.run({"picture": pictures}), onnx_models.evaluate_convolution(pictures))
    _raises(ConfigError, lambda: factory(path, threads=0))


def precision_is_never_silent(factory: RuntimeFactory, folder: Path) -> None:
    """The default is f32; another precision is what was asked for, or a `ConfigError`."""
    path = onnx_models.convolution(folder / "m.onnx")
    pictures = _pictures(4)
    expected = onnx_models.evaluate_convolution(pictures)
    for precision, bits in (("bf16", 8), ("f16", 11)):
        try:
            runtime = factory(path, precision=precision)  # type: ignore[arg-type]
        except ConfigError as error:
            assert precision in error.message
            assert "f32" in error.message
            continue
        with closing(runtime):
            values = runtime.run({"picture": pictures})
        for name, value in values.items():
            error_bound = np.abs(expected[name]).max() * 2.0**-bits * 4
            assert np.abs(value - expected[name]).max() <= error_bound


def refuses_unreadable_files(factory: RuntimeFactory, folder: Path) -> None:
    """A missing, empty, truncated, damaged or foreign file is a `ModelCorrupt` that names it."""
    whole = onnx_models.convolution(folder / "whole.onnx").read_bytes()
    contents = {
        "empty": b"",
        "truncated": whole[: len(whole) // 2],
        "damaged": whole[:40] + b"\xff" * 20 + whole[60:],
        "text": b"this is not a network, whatever its name says\n",
        "zeros": bytes(500),
    }
    for name, content in contents.items():
        path = folder / f"{name}.onnx"
        path.write_bytes(content)
        error = _raises(ModelCorrupt, lambda path=path: factory(path))  # type: ignore[misc]
        assert path.name in error.message
    _raises(ModelCorrupt, lambda: factory(folder / "missing.onnx"))
    _raises(ModelCorrupt, lambda: factory(folder))


def names_what_it_does_not_support(factory: RuntimeFactory, folder: Path) -> None:
    """An operator that the engine lacks is an `UnsupportedModel` that names it."""
    path = onnx_models.unknown_operator(folder / "m.onnx")
    error = _raises(UnsupportedModel, lambda: factory(path))
    assert "NoSuchOperator" in error.message


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
)
