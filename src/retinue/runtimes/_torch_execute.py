"""Executing a `torch.export` program: operator by operator, or as CUDA graphs a batch size."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from retinue.core.types import Array, TensorSpec
from retinue.runtimes._torch_program import ALONE, Program

_log = logging.getLogger(__name__)

_WARM_UPS: Final = 3
_ATTEMPTS: Final = 3


class Executor(Protocol):
    """Executes batches that fit the program."""

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run one batch; arrays in the order of the program's inputs and outputs."""
        ...

    def close(self) -> None:
        """Give memory back."""
        ...


def padded(count: int, smallest: int, largest: int) -> int:
    """Return the batch size that ``count`` items are run as: 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, ...

    Powers of two and the middles between them: at most a third of a run is padding, and up to a
    batch of 64 there are twelve graphs to capture and keep.

    Args:
        count: Items; at most ``largest``.
        smallest: Smallest size that the program takes.
        largest: Largest size that the program takes.
    """
    power = 1 << (count - 1).bit_length()
    middle = power * 3 // 4
    size = middle if power >= 4 and count <= middle else power
    return min(max(size, smallest), largest)


def _rows(per_item: bool, count: int) -> Any:
    """Return the index of what belongs to the batch's items in a tensor that may be padded."""
    return slice(count) if per_item else ...


class Eager:
    """Calls the program's operators one by one, on any device."""

    def __init__(self, torch: Any, program: Program, device: Any, threads: int) -> None:
        self._torch, self._program, self._device = torch, program, device
        self._threads = threads

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run one batch; padded only where the program takes none so small."""
        torch, program = self._torch, self._program
        count = program.count(arrays)
        # Of the calling thread; an instance may move between threads.
        torch.set_num_threads(self._threads)
        alone = ALONE if self._device.type == "cuda" else nullcontext()
        with alone, torch.inference_mode():
            tensors = [
                self._staged(array, spec, count).to(self._device, dtype)
                for array, spec, dtype in zip(arrays, program.inputs, program.dtypes, strict=True)
            ]
            values = program.call(tensors)
            return [
                _array(torch, value)[_rows(per_item, count)].copy()
                for value, per_item in zip(values, program.per_item, strict=True)
            ]

    def _staged(self, array: Array, spec: TensorSpec, count: int) -> Any:
        # A copy: PyTorch takes no strided view that runs backwards, and warns of read-only ones.
        if count < self._program.smallest and spec.shape[:1] == (-1,):
            array = np.concatenate([array, *[array[-1:]] * (self._program.smallest - count)])
        return self._torch.from_numpy(np.array(array))

    def close(self) -> None:
        """Forget the program."""
        del self._program


def _array(torch: Any, value: Any) -> Array:
    widened = value.float() if value.dtype == torch.bfloat16 else value
    array: Array = widened.cpu().numpy()
    return array


@dataclass(frozen=True, slots=True)
class _Captured:
    """A graph and the memory that it reads and writes: pinned on the host, fixed on the device."""

    graph: Any
    host_inputs: list[Any]
    inputs: list[Any]
    outputs: list[Any]
    host_outputs: list[Any]


class Graphs:
    """Replays CUDA graphs, one a padded batch size, each captured when first needed.

    A replay costs one launch where the program has hundreds, which is what small batches wait
    for. The graphs of an instance share one memory pool: they never run at the same time.
    """

    def __init__(self, torch: Any, program: Program, device: Any) -> None:
        self._torch, self._program, self._device = torch, program, device
        with torch.cuda.device(device):
            self._stream = torch.cuda.Stream()
            self._pool = torch.cuda.graph_pool_handle()
            # Blocking: a waiting thread sleeps instead of spinning on a core.
            self._done = torch.cuda.Event(blocking=True)
        self._captured: dict[int, _Captured] = {}
        self._eager = Eager(torch, program, device, 1)
        self._failures = 0

    def run(self, arrays: Sequence[Array]) -> list[Array]:
        """Run one batch; the calling thread waits without holding Python's lock."""
        torch, program = self._torch, self._program
        count = program.count(arrays)
        size = padded(count, program.smallest, program.largest)
        with torch.cuda.device(self._device), torch.inference_mode():
            held = self._captured.get(size) or self._capture(size)
            if held is None:
                return self._eager.run(arrays)
            parts = [_rows(spec.shape[:1] == (-1,), count) for spec in program.inputs]
            for host, array, part in zip(held.host_inputs, arrays, parts, strict=True):
                host.numpy()[part] = array
            with torch.cuda.stream(self._stream):
                for fixed, host, part in zip(held.inputs, held.host_inputs, parts, strict=True):
                    fixed[part].copy_(host[part], non_blocking=True)
                held.graph.replay()
                for host, fixed in zip(held.host_outputs, held.outputs, strict=True):
                    host.copy_(fixed, non_blocking=True)
                self._done.record()
            self._done.synchronize()
        return [
            host.numpy()[_rows(per_item, count)].copy()
            for host, per_item in zip(held.host_outputs, program.per_item, strict=True)
        ]

    def _capture(self, size: int) -> _Captured | None:
        """Capture a batch size; None if that fails, and soon is not tried any more.

        Once may be by chance: anything in the process that synchronises the device meanwhile
        ends a capture. A program that cannot be captured fails each time.
        """
        torch = self._torch
        if self._failures >= _ATTEMPTS:
            return None
        try:
            with ALONE:
                held = self._record(size)
        except torch.cuda.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._failures += 1
            reason = str(error).splitlines()[0]
            _log.warning("no CUDA graph of %d items, running without: %s", size, reason)
            return None
        self._captured[size] = held
        return held

    def _record(self, size: int) -> _Captured:
        torch = self._torch
        fed = [
            (tuple(size if d == -1 else d for d in spec.shape), getattr(torch, spec.dtype))
            for spec in self._program.inputs
        ]
        host_inputs = [torch.zeros(s, dtype=kind, pin_memory=True) for s, kind in fed]
        inputs = [torch.zeros(s, dtype=kind, device=self._device) for s, kind in fed]
        torch.cuda.synchronize()
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):  # libraries choose their kernels and workspaces now
                self._compute(inputs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            outputs = self._compute(inputs)
        host_outputs = [torch.empty(v.shape, dtype=v.dtype, pin_memory=True) for v in outputs]
        return _Captured(graph, host_inputs, inputs, outputs, host_outputs)

    def _compute(self, inputs: list[Any]) -> list[Any]:
        torch, program = self._torch, self._program
        pairs = zip(inputs, program.dtypes, strict=True)
        values = program.call([value.to(dtype) for value, dtype in pairs])
        return [v.float() if v.dtype == torch.bfloat16 else v for v in values]

    def close(self) -> None:
        """Free the graphs and what PyTorch keeps of the device's memory."""
        with ALONE:
            self._captured.clear()
            self._eager.close()
            del self._program
            self._torch.cuda.empty_cache()
