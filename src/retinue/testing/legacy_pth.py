"""Writes legacy PyTorch files without PyTorch, to test their reader: honest ones and others."""

from __future__ import annotations

import io
import pickle
import struct
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np

from retinue.core.types import Array

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
_TYPES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


class Global:
    """Pickles as a bare global, whatever its name."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Storage:
    """Pickles as a persistent id.

    Attributes:
        pid: The id.
    """

    def __init__(self, key: str, dtype: str, count: int) -> None:
        self.pid: Any = ("storage", Global("torch", _TYPES[dtype]), key, "cpu", count, None)


class Call:
    """Pickles as a call of a global."""

    def __init__(self, function: Global, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments


class Changed:
    """Pickles as a value whose state is set once more, as BUILD does."""

    def __init__(self, value: Any, state: Any) -> None:
        self.value, self.state = value, state


class _Pickler(pickle._Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return obj.pid if isinstance(obj, Storage) else None

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Global):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())  # type: ignore[attr-defined]
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(tuple(obj.arguments))
            self.write(pickle.REDUCE)  # type: ignore[attr-defined]
        elif isinstance(obj, Changed):
            self.save(obj.value)
            self.save(obj.state)
            self.write(pickle.BUILD)  # type: ignore[attr-defined]
        else:
            super().save(obj, save_persistent_id)  # type: ignore[misc]


def dumps(value: Any, protocol: int = 2) -> bytes:
    """Pickle a value in which this module's classes stand for what they name."""
    stream = io.BytesIO()
    _Pickler(stream, protocol).dump(value)
    return stream.getvalue()


def tensor(storage: Storage, offset: int, shape: Any, strides: Any) -> Call:
    """Return what pickles as a tensor."""
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(rebuild, storage, offset, shape, strides, False, OrderedDict())


def file_of(state: Any, storages: Mapping[str, Array], *, keys: Any = None) -> bytes:
    """Return a legacy file: five pickles and the storages."""
    parts = [dumps(MAGIC), dumps(1001), dumps(SYSTEM), dumps(state)]
    parts.append(dumps(list(storages) if keys is None else keys))
    for flat in storages.values():
        parts += [struct.pack("<q", flat.size), flat.tobytes()]
    return b"".join(parts)


def save(tensors: Mapping[str, Array], *, reversed_strides: bool = False) -> bytes:
    """Return the legacy file of a state dict.

    Args:
        tensors: Name to array.
        reversed_strides: Store a tensor's first dimension fastest, as files that were converted
            from TensorFlow's (height, width, in, out) order do.
    """
    state: OrderedDict[str, Any] = OrderedDict()
    storages: dict[str, Array] = {}
    for at, (name, array) in enumerate(tensors.items()):
        key = str(1000 + at)
        stored = np.asarray(array, order="F" if reversed_strides else "C")
        flat = stored.ravel(order="K")
        storages[key] = flat
        strides = tuple(step // stored.itemsize for step in stored.strides)
        state[name] = tensor(Storage(key, array.dtype.name, flat.size), 0, array.shape, strides)
    return file_of(state, storages)
