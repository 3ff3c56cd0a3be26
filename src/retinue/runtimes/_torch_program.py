"""Reading a ``torch.export`` program: its tensors, its precision, the batches that it takes."""

from __future__ import annotations

import logging
import struct
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.core.protocols import Precision
from retinue.core.types import Array, TensorSpec

MOST: Final = 1 << 16
"""Largest batch of a program that names no limit of its own."""

# What the zip reader raises, beside `OSError`, for files that are damaged in different ways.
_BAD_ARCHIVE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    ValueError,
    RuntimeError,
)

ALONE: Final = threading.Lock()
"""Held by what a capture of a CUDA graph does not survive in another thread: whatever may make
the library wait for the whole device, which is all but a replay."""

_EXPORT: Final = (
    "make one with torch.export.save(torch.export.export(model, examples, dynamic_shapes=...), "
    "'model.pt2')"
)


@dataclass(frozen=True, slots=True)
class Program:
    """A program that can be called.

    Attributes:
        call: Flat tensors on the device, in the order of ``inputs``, to flat tensors.
        inputs: What it takes.
        outputs: What it returns.
        dtypes: The inputs' types as the program has them; bfloat16 is float32 in ``inputs``.
        precision: The least precise type that it computes in.
        smallest: Smallest batch that it takes.
        largest: Largest batch that it takes.
        per_item: Of each output, whether it has one row an item.
        graphable: Whether the batch size settles all shapes.
    """

    call: Callable[[Sequence[Any]], list[Any]]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dtypes: tuple[Any, ...]
    precision: Precision
    smallest: int
    largest: int
    per_item: tuple[bool, ...]
    graphable: bool

    def count(self, arrays: Sequence[Array]) -> int:
        """Return how many items a batch has; the smallest batch where that does not vary."""
        sizes = (len(a) for a, s in zip(arrays, self.inputs, strict=True) if s.shape[:1] == (-1,))
        return next(sizes, self.smallest)


def load(torch: Any, path: Path, device: Any) -> Program:
    """Load a program onto a device.

    Raises:
        ModelCorrupt: the file is missing, damaged or no such program.
        UnsupportedModel: this PyTorch cannot load it, or its inputs or outputs are not tensors.
    """
    _check_archive(path)
    with ALONE, _quiet() as causes:
        try:
            with path.open("rb") as file:
                exported = torch.export.load(file)
            exported = torch.export.passes.move_to_device_pass(exported, str(device))
            module = exported.module()
        # The loader names no errors: whatever the file asks for and this PyTorch lacks ends here.
        except Exception as error:
            cause = causes[0] if causes else error
            reason = f"{type(cause).__name__}: {cause}".splitlines()[0]
            raise UnsupportedModel(
                f"PyTorch {torch.__version__} cannot load {path} ({reason}); export it anew with "
                "this version, and import what defines its custom operators first"
            ) from error
    return _describe(torch, path, exported, module)


def _check_archive(path: Path) -> None:
    """Check that a file is a whole archive of an exported program, by its checksums."""
    advice = f"export or import it again; {_EXPORT}"
    if path.suffix == ".onnx" and path.is_file() and not zipfile.is_zipfile(path):
        # An unreadable ONNX file is no better than a readable one here.
        raise UnsupportedModel(
            f"{path}: the torch runtime executes programs of torch.export, not ONNX; {_EXPORT}"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            broken = archive.testzip()
    except (OSError, *_BAD_ARCHIVE) as error:
        raise ModelCorrupt(
            f"{path} cannot be read as a torch.export program ({error}); {advice}"
        ) from error
    if broken is not None:
        raise ModelCorrupt(f"{path} is damaged: {broken} fails its checksum; {advice}")
    if not any(
        name.endswith(("/archive_version", "serialized_exported_program.json")) for name in names
    ):
        raise ModelCorrupt(f"{path} is an archive, but not a torch.export program; {advice}")


@contextmanager
def _quiet() -> Iterator[list[BaseException]]:
    """Collect the errors that PyTorch's loader logs and then replaces by vaguer ones.

    What it warns of is its own: the tensors that it reads are never written to.
    """
    causes: list[BaseException] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            causes.append(record.exc_info[1])
        return False

    logger = logging.getLogger("torch.export")
    logger.addFilter(keep)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            yield causes
    finally:
        logger.removeFilter(keep)


def _describe(torch: Any, path: Path, exported: Any, module: Any) -> Program:
    pytree = torch.utils._pytree
    signature, call_spec = exported.graph_signature, exported.call_spec
    values: dict[str, Any] = {node.name: node.meta.get("val") for node in exported.graph.nodes}
    takes: list[Any] = [
        values.get(name) if isinstance(name, str) else name for name in signature.user_inputs
    ]
    gives: list[Any] = [
        values.get(name) if isinstance(name, str) else name for name in signature.user_outputs
    ]
    for value in (*takes, *gives):
        if not isinstance(value, torch.Tensor):
            raise UnsupportedModel(
                f"{path}: the program takes or returns {type(value).__name__}; only tensors work"
            )
    names = _output_names(pytree, call_spec.out_spec)
    inputs = tuple(_spec(path, n, v) for n, v in zip(signature.user_inputs, takes, strict=True))
    outputs = tuple(_spec(path, n, v) for n, v in zip(names, gives, strict=True))
    if not inputs or not outputs:
        raise UnsupportedModel(f"{path}: the program has no inputs or no outputs")

    def call(flat: Sequence[Any]) -> list[Any]:
        args, kwargs = pytree.tree_unflatten(list(flat), call_spec.in_spec)
        return list(pytree.tree_leaves(module(*args, **kwargs)))

    batch = next((str(v.shape[0]) for v in takes if v.ndim and not _fixed(v.shape[0])), "")
    smallest, largest = _sizes(exported, batch)
    return Program(
        call,
        inputs,
        outputs,
        tuple(value.dtype for value in takes),
        _precision(torch, values.values()),
        smallest,
        largest,
        tuple(value.ndim > 0 and str(value.shape[0]) == batch for value in gives),
        all(
            _fixed(size) or (axis == 0 and str(size) == batch)
            for value in (*takes, *gives)
            for axis, size in enumerate(value.shape)
        ),
    )


def _fixed(size: Any) -> bool:
    return isinstance(size, int)


def _spec(path: Path, name: str, value: Any) -> TensorSpec:
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype == "bfloat16":  # NumPy has none; float32 holds each of its values
        dtype = "float32"
    if not dtype.startswith(("float", "int", "uint", "bool")) or "_" in dtype:
        raise UnsupportedModel(f"{path}: tensor {name!r} is a {dtype}; only numbers work")
    shape = tuple(size if _fixed(size) else -1 for size in value.shape)
    return TensorSpec(name, dtype, shape)


def _output_names(pytree: Any, spec: Any) -> list[str]:
    """Name outputs by their place: keys of a dictionary, numbers in a tuple, or just "output"."""
    places = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    found = []
    for place, _ in pytree.tree_flatten_with_path(places)[0]:
        parts = [str(getattr(part, "key", getattr(part, "idx", part))) for part in place]
        named = parts and hasattr(place[0], "key")
        found.append(".".join(parts) if named else "_".join(["output", *parts]))
    return found


def _sizes(exported: Any, batch: str) -> tuple[int, int]:
    """Return the smallest and largest value of the batch's symbol."""
    for symbol, sizes in exported.range_constraints.items():
        if str(symbol) == batch:
            largest = MOST if sizes.upper > MOST else int(sizes.upper)
            return max(int(sizes.lower), 1), largest
    return 1, MOST


def _precision(torch: Any, values: Iterable[Any]) -> Precision:
    dtypes = {
        tensor.dtype
        for value in values
        for tensor in (value if isinstance(value, (tuple, list)) else (value,))
        if isinstance(tensor, torch.Tensor)
    }
    if torch.bfloat16 in dtypes:
        return "bf16"
    return "f16" if torch.float16 in dtypes else "f32"
