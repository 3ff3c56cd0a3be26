"""The restricted reader of legacy PyTorch files: honest, hostile and damaged ones."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.core.errors import ModelCorrupt, UnsafePickle, UnsupportedModel
from retinue.models.importers._legacy_pth import read_state_dict
from retinue.models.importers.efficientnet_lite import IMPORTER
from retinue.testing.legacy_pth import (
    MAGIC,
    SYSTEM,
    Call,
    Changed,
    Global,
    Storage,
    dumps,
    file_of,
    save,
    tensor,
)

NUMBERS = np.arange(12, dtype=np.float32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "weights.pth"


def read(path: Path, data: bytes) -> dict[str, np.ndarray]:
    path.write_bytes(data)
    return read_state_dict(path)


@pytest.mark.parametrize("reversed_strides", [False, True])
def test_tensors_of_every_type_and_order(path: Path, reversed_strides: bool) -> None:
    rng = np.random.default_rng(0)
    tensors = {
        "a": rng.normal(size=(2, 3, 4)).astype(np.float32),
        "b": rng.normal(size=(5,)).astype(np.float64),
        "c": rng.normal(size=(2, 2)).astype(np.float16),
        "count": np.array(7, np.int64),
        "d": np.arange(6, dtype=np.int32).reshape(3, 2),
        "e": np.array([1, 255], np.uint8),
        "f": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
    }
    found = read(path, save(tensors, reversed_strides=reversed_strides))
    assert list(found) == list(tensors)
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_views_share_a_storage(path: Path) -> None:
    storage = Storage("0", "float32", 12)
    state = OrderedDict(
        whole=tensor(storage, 0, (3, 4), (4, 1)),
        column=tensor(storage, 1, (3,), (4,)),
        one=tensor(storage, 11, (), ()),
    )
    found = read(path, file_of(state, {"0": NUMBERS}))
    np.testing.assert_array_equal(found["whole"], NUMBERS.reshape(3, 4))
    np.testing.assert_array_equal(found["column"], [1, 5, 9])
    np.testing.assert_array_equal(found["one"], 11)


def touch(path: Path) -> str:
    return f"touch {path}"


HOSTILE: dict[str, Any] = {
    "os.system": lambda mark: Call(Global("os", "system"), touch(mark)),
    "posix.system": lambda mark: Call(Global("posix", "system"), touch(mark)),
    "subprocess": lambda mark: Call(Global("subprocess", "getoutput"), touch(mark)),
    "eval": lambda mark: Call(Global("builtins", "eval"), f"open({str(mark)!r}, 'w')"),
    "exec of Python 2": lambda mark: Call(Global("__builtin__", "eval"), f"open({str(mark)!r})"),
    "getattr": lambda mark: Call(
        Call(Global("builtins", "getattr"), Global("os", "system"), "__call__"), touch(mark)
    ),
    "dotted name": lambda mark: Call(
        Global("collections", "OrderedDict.__init__.__globals__"), touch(mark)
    ),
    "dotted torch": lambda mark: Global("torch", "FloatStorage.__class__"),
    "torch.load": lambda mark: Call(Global("torch", "load"), str(mark)),
    "torch.hub": lambda mark: Call(Global("torch.hub", "load"), "x"),
    "tensor v1": lambda mark: Call(Global("torch._utils", "_rebuild_tensor"), 1),
    "parameter": lambda mark: Call(Global("torch._utils", "_rebuild_parameter"), 1),
    "copyreg": lambda mark: Call(Global("copyreg", "_reconstructor"), 1),
    "module pickle": lambda mark: Call(Global("pickle", "loads"), "x"),
    "calls a storage type": lambda mark: Call(Global("torch", "FloatStorage"), 4),
    "calls a number": lambda mark: Call(3, 4),  # type: ignore[arg-type]
    "rebuild without arguments": lambda mark: Call(Global("torch._utils", "_rebuild_tensor_v2")),
    "rebuild from a number": lambda mark: tensor(3, 0, (1,), (1,)),  # type: ignore[arg-type]
    "a list": lambda mark: [1, 2],
    "a value that is no tensor": lambda mark: OrderedDict(a=3),
    "a key that is no text": lambda mark: {3: tensor(Storage("0", "float32", 12), 0, (1,), (1,))},
    "nothing": lambda mark: OrderedDict(),
}


@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_pickle_is_refused_and_never_runs(path: Path, attack: str) -> None:
    mark = path.with_name("pwned")
    with pytest.raises(UnsafePickle):
        read(path, file_of(HOSTILE[attack](mark), {"0": NUMBERS}))
    assert not mark.exists()


@pytest.mark.parametrize("attack", ["os.system", "eval", "getattr"])
@pytest.mark.parametrize("place", range(5))
def test_an_attack_in_any_of_the_five_pickles(path: Path, attack: str, place: int) -> None:
    mark = path.with_name("pwned")
    good = tensor(Storage("0", "float32", 12), 0, (3,), (1,))
    parts = [dumps(part) for part in (MAGIC, 1001, SYSTEM, OrderedDict(a=good), ["0"])]
    parts[place] = dumps(HOSTILE[attack](mark))
    with pytest.raises(UnsafePickle):
        read(path, b"".join(parts))
    assert not mark.exists()


def test_what_was_checked_cannot_be_changed_afterwards(path: Path) -> None:
    """A BUILD that moves a tensor out of its storage would read the process's memory."""
    storage = Storage("0", "float32", 12)
    good = tensor(storage, 0, (3,), (1,))
    changes: dict[str, Any] = {
        "strides": Changed(good, [storage, 0, (3,), (-(10**12),)]),
        "strides by name": Changed(good, (None, {"strides": (-(10**12),)})),
        "type": tensor(Changed(storage, ["0", "O", 12]), 0, (3,), (1,)),  # type: ignore[arg-type]
        "type by name": tensor(Changed(storage, {"dtype": "O"}), 0, (3,), (1,)),  # type: ignore[arg-type]
    }
    for change in changes.values():
        with pytest.raises(UnsafePickle):
            read(path, file_of(OrderedDict(a=change), {"0": NUMBERS}))


def test_the_notes_of_a_state_dict_are_dropped(path: Path) -> None:
    ordered = Call(Global("collections", "OrderedDict"))
    notes = {"_metadata": OrderedDict(), "items": Global("collections", "OrderedDict")}
    with pytest.raises(UnsafePickle, match="does not hold a state dict"):
        read(path, file_of(Changed(ordered, notes), {"0": NUMBERS}))
    state = OrderedDict(a=tensor(Storage("0", "float32", 12), 0, (3,), (1,)))
    found = read(path, file_of(Changed(state, notes), {"0": NUMBERS}))
    np.testing.assert_array_equal(found["a"], NUMBERS[:3])


@pytest.mark.parametrize(
    "key",
    [b")" + b"\x85" * 400_000, b")" + b"q\x00h\x00\x86" * 64],
    ids=["nested deeper than a stack", "of 2 ** 64 parts"],
)
def test_a_key_that_cannot_be_hashed_in_time(path: Path, key: bytes) -> None:
    with pytest.raises(UnsafePickle, match="key that is a tuple"):
        read(path, dumps(MAGIC) + dumps(1001) + b"\x80\x02}" + key + b"K\x01s." + dumps([]) * 2)


def test_an_attack_inside_an_honest_state_dict(path: Path) -> None:
    mark = path.with_name("pwned")
    state = OrderedDict(a=tensor(Storage("0", "float32", 12), 0, (3,), (1,)))
    state["b"] = HOSTILE["os.system"](mark)
    with pytest.raises(UnsafePickle, match=r"os\.system"):
        read(path, file_of(state, {"0": NUMBERS}))
    assert not mark.exists()


class _Reduce:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (touch(self.mark),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_pickle_protocol(path: Path, protocol: int) -> None:
    mark = path.with_name("pwned")
    attack = pickle.dumps(_Reduce(mark), protocol)
    start = dumps(MAGIC) + dumps(1001) + dumps(SYSTEM)
    with pytest.raises(UnsafePickle):
        read(path, start + attack + dumps([]))
    for data in (attack, attack * 5):
        with pytest.raises(UnsafePickle if protocol >= 2 else ModelCorrupt):
            read(path, data)
    assert not mark.exists()


PIDS: dict[str, Any] = {
    "a number": 7,
    "a path": "/etc/passwd",
    "too short": ("storage", Global("torch", "FloatStorage"), "0"),
    "another kind": ("module", Global("torch", "FloatStorage"), "0", "cpu", 12, None),
    "no type": ("storage", "FloatStorage", "0", "cpu", 12, None),
    "a class for a type": ("storage", Global("collections", "OrderedDict"), "0", "cpu", 12, None),
    "a number for a key": ("storage", Global("torch", "FloatStorage"), 0, "cpu", 12, None),
    "a negative size": ("storage", Global("torch", "FloatStorage"), "0", "cpu", -1, None),
    "a huge size": ("storage", Global("torch", "FloatStorage"), "0", "cpu", 1 << 62, None),
    "a true size": ("storage", Global("torch", "FloatStorage"), "0", "cpu", True, None),
    "a view": ("storage", Global("torch", "FloatStorage"), "0", "cpu", 12, ("1", 0, 4)),
}


@pytest.mark.parametrize("pid", PIDS)
def test_a_persistent_id_of_a_wrong_shape(path: Path, pid: str) -> None:
    storage = Storage("0", "float32", 12)
    storage.pid = PIDS[pid]
    state = OrderedDict(a=tensor(storage, 0, (3,), (1,)))
    with pytest.raises(UnsafePickle, match="storage"):
        read(path, file_of(state, {"0": NUMBERS}))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (-1, (3,), (1,)),
        (0, (-3,), (1,)),
        (0, (3,), (-1,)),
        (0, [3], (1,)),
        (0, (3,), (1, 1)),
        (0, (1,) * 9, (1,) * 9),
        (0, ("3",), (1,)),
        ("0", (3,), (1,)),
    ],
)
def test_impossible_shapes(path: Path, offset: Any, shape: Any, strides: Any) -> None:
    state = OrderedDict(a=tensor(Storage("0", "float32", 12), offset, shape, strides))
    with pytest.raises(UnsafePickle):
        read(path, file_of(state, {"0": NUMBERS}))


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (13,), (1,)),
        (12, (1,), (1,)),
        (0, (3, 4), (8, 1)),
        (10, (3,), (1,)),
        (0, (1 << 39, 1 << 39), (0, 0)),
    ],
)
def test_a_tensor_beyond_its_storage(
    path: Path, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    state = OrderedDict(a=tensor(Storage("0", "float32", 12), offset, shape, strides))
    with pytest.raises(ModelCorrupt, match="reaches element"):
        read(path, file_of(state, {"0": NUMBERS}))


def test_storages_that_contradict_the_tensors(path: Path) -> None:
    state = OrderedDict(a=tensor(Storage("0", "float32", 12), 0, (3,), (1,)))
    for storages, keys, message in (
        ({"0": NUMBERS[:4]}, None, "4 elements where 12"),
        ({"1": NUMBERS}, None, "list of storages"),
        ({"0": NUMBERS}, ["0", "0"], "names one twice"),
        ({"0": NUMBERS}, 7, "list of storages"),
        ({"0": NUMBERS}, [["0"]], "list of storages"),
    ):
        # Zeros make up for what a shorter storage lacks.
        data = file_of(state, storages, keys=keys) + bytes(64)
        with pytest.raises(ModelCorrupt, match=message):
            read(path, data)
    two = OrderedDict(state, b=tensor(Storage("0", "int32", 12), 0, (3,), (1,)))
    with pytest.raises(ModelCorrupt, match="two ways"):
        read(path, file_of(two, {"0": NUMBERS}))


def test_bytes_after_the_end(path: Path) -> None:
    with pytest.raises(ModelCorrupt, match="3 bytes after"):
        read(path, save({"a": NUMBERS}) + b"abc")


def test_truncation_anywhere(path: Path) -> None:
    data = save({"a": NUMBERS, "b": NUMBERS[:3]})
    for end in range(0, len(data), 3):
        with pytest.raises(ModelCorrupt):
            read(path, data[:end])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_changed_byte_never_escapes_the_error_tree(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    whole = bytearray(save({"a": NUMBERS, "b": NUMBERS[:3]}))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "changed.pth"
    path.write_bytes(whole)
    with suppress(ModelCorrupt, UnsafePickle, UnsupportedModel):
        read_state_dict(path)


def test_other_files(path: Path) -> None:
    with pytest.raises(UnsupportedModel, match="zipped"):
        read(path, b"PK\x03\x04rest")
    with pytest.raises(ModelCorrupt, match="not a PyTorch file"):
        read(path, b"hello")
    with pytest.raises(ModelCorrupt, match="magic"):
        read(path, dumps(1) * 5)
    big = dict(SYSTEM, little_endian=False)
    parts = [dumps(part) for part in (MAGIC, 1001, big, OrderedDict(), [])]
    with pytest.raises(UnsupportedModel, match="little-endian"):
        read(path, b"".join(parts))


def test_a_memo_bomb_is_refused(path: Path) -> None:
    """LONG_BINPUT with a huge index would make the memo allocate gigabytes."""
    bomb = b"\x80\x02}r\xff\xff\xff\x7f."
    with pytest.raises(UnsafePickle, match="memo"):
        read(path, bomb)


def test_the_importer_needs_one_file(path: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match=r"one \.pth"):
        IMPORTER({"readme.txt": path}, tmp_path / "model.onnx")
