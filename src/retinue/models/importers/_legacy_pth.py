"""Reads a state dict from a legacy PyTorch file (``torch.save`` before 1.6), without PyTorch.

Such a file is five pickles in a row, then the raw storages: magic number, protocol version,
system facts, the object, the storages' keys; then for each key its element count (int64) and its
elements. A pickle is a program, so that it is held to what a state dict needs, twice: only the
opcodes that build dicts, tuples and numbers are accepted, before anything runs, and only four
kinds of global are resolved, all to names of this module. What those make has no attributes that
a BUILD could change after the check, and dicts take texts for keys, since hashing a tuple of
tuples can last for ever or exhaust the stack.

Source of the format: ``torch/serialization.py``, ``_legacy_save``.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import struct
import warnings
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, NoReturn

import numpy as np

from retinue.core.errors import ModelCorrupt, UnsafePickle, UnsupportedModel, storage_errors
from retinue.core.types import Array

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_PICKLES = 5
_MOST_MEMO = 1_000_000
_OPCODES = frozenset(
    {"PROTO", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"}
    | {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
    | {"EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"}
    | {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "BINPUT", "LONG_BINPUT", "BINGET"}
    | {"LONG_BINGET", "GLOBAL", "REDUCE", "BUILD", "BINPERSID"}
)
_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


class _StorageType(NamedTuple):
    dtype: str

    def __call__(self, *_: object) -> NoReturn:
        raise UnsafePickle("the pickle builds a storage by itself; it was not loaded")


class _Storage(NamedTuple):
    key: str
    dtype: str
    length: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Dict(dict[str, Any]):
    """Every dict of a pickle, ordered or not: its keys are texts, and it has no attributes."""

    __slots__ = ()

    def __init__(self, items: Iterable[tuple[str, Any]] = ()) -> None:
        super().__init__()
        for key, value in items:
            self[key] = value

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise UnsafePickle(f"the pickle has a key that is a {type(key).__name__}, not a text")
        super().__setitem__(key, value)

    def __setstate__(self, state: object) -> None:
        """Drop the attributes of a state dict: notes on the versions of its layers."""


def read_state_dict(path: Path) -> dict[str, Array]:
    """Read the tensors of a legacy ``.pth`` file.

    Returns:
        Name to array, in the file's order. A tensor's strides are honoured; the arrays are
        C-contiguous copies.

    Raises:
        UnsafePickle: the file asks for anything but plain tensors.
        ModelCorrupt: it is truncated, or its sizes and offsets contradict one another.
        UnsupportedModel: it is a newer, zipped file.
    """
    with storage_errors(path, "reading the weights"):
        data = path.read_bytes()
    if data[:4] == b"PK\x03\x04":
        raise UnsupportedModel(
            f"{path.name} is a zipped PyTorch file; save it with "
            "torch.save(state, path, _use_new_zipfile_serialization=False)"
        )
    ends = _scan(data, path.name)
    pickles = [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    magic, protocol, system, state, keys = (_load(p, path.name) for p in pickles)
    if magic != _MAGIC or protocol != _PROTOCOL:
        raise ModelCorrupt(f"{path.name} is not a legacy PyTorch file: its magic number is wrong")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise UnsupportedModel(f"{path.name} was not written on a little-endian machine")
    tensors = _tensors(state, path.name)
    storages = _storages(data, ends[-1], keys, tensors, path.name)
    return {name: _array(name, tensor, storages) for name, tensor in tensors.items()}


def _scan(data: bytes, name: str) -> list[int]:
    """Check the opcodes of all pickles without running them; return where each ends."""
    if data[:1] != pickle.PROTO:
        raise ModelCorrupt(f"{name} is not a PyTorch file")
    stream = io.BytesIO(data)
    ends = []
    for _ in range(_PICKLES):
        try:
            with warnings.catch_warnings():
                # Python warns of odd escapes in the texts of opcodes that are refused anyway.
                warnings.simplefilter("ignore", DeprecationWarning)
                for opcode, argument, _position in pickletools.genops(stream):
                    _check_opcode(opcode.name, argument, name)
        except (ValueError, struct.error, IndexError, OverflowError) as error:
            raise ModelCorrupt(f"{name} is truncated or not a PyTorch file: {error}") from error
        ends.append(stream.tell())
    return ends


def _check_opcode(opcode: str, argument: object, name: str) -> None:
    if opcode not in _OPCODES:
        raise UnsafePickle(
            f"{name}: the pickle uses {opcode}, which tensors do not need; it was not loaded"
        )
    if opcode == "GLOBAL":
        _resolve(*str(argument).split(" ", 1))
    if opcode == "LONG_BINPUT" and isinstance(argument, int) and argument > _MOST_MEMO:
        raise UnsafePickle(f"{name}: the pickle asks for a memo of {argument} items")


def _resolve(module: str, name: str) -> Any:
    """Return what stands for a global."""
    if (module, name) == ("collections", "OrderedDict"):
        return _Dict
    if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
        return _rebuild_tensor
    if module == "torch" and name in _STORAGES:
        return _StorageType(_STORAGES[name])
    raise UnsafePickle(
        f"the pickle asks for {module}.{name}, which is not a plain tensor; it was not loaded"
    )


class _Unpickler(pickle._Unpickler):
    """The one written in Python, whose opcodes can be changed: ``{}`` makes a `_Dict` too."""

    def _load_empty_dictionary(self) -> None:
        self.append(_Dict())  # type: ignore[attr-defined]

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.EMPTY_DICT[0]: _load_empty_dictionary,
    }

    def find_class(self, module: str, name: str) -> Any:
        return _resolve(module, name)

    def persistent_load(self, pid: Any) -> _Storage:
        if (
            not isinstance(pid, tuple)
            or len(pid) not in (5, 6)
            or pid[0] != "storage"
            or not isinstance(pid[1], _StorageType)
            or not isinstance(pid[2], str)
            or not _is_count(pid[4])
            or (len(pid) == 6 and pid[5] is not None)
        ):
            raise UnsafePickle("the pickle refers to something other than a storage")
        return _Storage(pid[2], pid[1].dtype, pid[4])


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 40


def _rebuild_tensor(*arguments: Any) -> _Tensor:
    if len(arguments) not in (6, 7):
        raise UnsafePickle(f"the pickle builds a tensor from {len(arguments)} arguments")
    storage, offset, shape, strides = arguments[:4]
    if not isinstance(storage, _Storage) or not _is_count(offset):
        raise UnsafePickle("the pickle builds a tensor from something other than a storage")
    for sizes in (shape, strides):
        if not isinstance(sizes, tuple) or len(sizes) > 8 or not all(map(_is_count, sizes)):
            raise UnsafePickle("the pickle builds a tensor of an impossible shape")
    if len(shape) != len(strides):
        raise UnsafePickle("the pickle builds a tensor whose shape and strides differ in length")
    return _Tensor(storage, offset, shape, strides)


def _load(data: bytes, name: str) -> Any:
    try:
        return _Unpickler(io.BytesIO(data), encoding="utf-8").load()
    except UnsafePickle as error:
        raise UnsafePickle(f"{name}: {error.message}") from None
    except (pickle.UnpicklingError, EOFError, ValueError, OverflowError, MemoryError) as error:
        raise ModelCorrupt(f"{name}: its pickle is damaged: {error}") from error
    except (TypeError, AttributeError, KeyError, IndexError) as error:
        # What is left once the globals are harmless: calling a number, changing a tensor, ...
        raise UnsafePickle(f"{name}: the pickle is not a plain state dict: {error}") from error


def _tensors(state: object, name: str) -> dict[str, _Tensor]:
    if not isinstance(state, dict) or not state:
        raise UnsafePickle(f"{name} does not hold a state dict")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, _Tensor):
            raise UnsafePickle(f"{name}: {key!r} is not a plain tensor; it was not loaded")
    return dict(state)


def _storages(
    data: bytes, start: int, keys: object, tensors: dict[str, _Tensor], name: str
) -> dict[str, Array]:
    declared: dict[str, _Storage] = {}
    for tensor in tensors.values():
        storage = tensor.storage
        if declared.setdefault(storage.key, storage) != storage:
            raise ModelCorrupt(f"{name}: the storage {storage.key!r} is declared in two ways")
    if not isinstance(keys, list) or {k for k in keys if isinstance(k, str)} != set(declared):
        raise ModelCorrupt(f"{name}: its list of storages is not that of its tensors")
    if len(keys) != len(declared):
        raise ModelCorrupt(f"{name}: its list of storages names one twice")
    found: dict[str, Array] = {}
    at = start
    for key in keys:
        storage = declared[key]
        size = storage.length * np.dtype(storage.dtype).itemsize
        if at + 8 + size > len(data):
            raise ModelCorrupt(
                f"{name} is truncated: the storage {key!r} ends at byte {at + 8 + size} of "
                f"{len(data)}; fetch the file again"
            )
        (count,) = struct.unpack_from("<q", data, at)
        if count != storage.length:
            raise ModelCorrupt(
                f"{name}: the storage {key!r} has {count} elements where {storage.length} are due"
            )
        found[key] = np.frombuffer(data, storage.dtype, count, at + 8)
        at += 8 + size
    if at != len(data):
        raise ModelCorrupt(f"{name} has {len(data) - at} bytes after its last storage")
    return found


def _array(name: str, tensor: _Tensor, storages: dict[str, Array]) -> Array:
    flat = storages[tensor.storage.key]
    count = prod(tensor.shape)
    if count == 0:
        return np.zeros(tensor.shape, flat.dtype)
    last = tensor.offset + sum(
        (size - 1) * stride for size, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if last >= len(flat) or count > len(flat):
        raise ModelCorrupt(
            f"the tensor {name!r} reaches element {last} of a storage of {len(flat)}"
        )
    bytes_strides = [stride * flat.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(
        flat[tensor.offset :], tensor.shape, bytes_strides, writeable=False
    )
    return np.ascontiguousarray(view).reshape(tensor.shape)
