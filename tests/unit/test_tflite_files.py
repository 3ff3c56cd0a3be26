"""The TensorFlow Lite importer on files: damage, what is not supported, sparse weights, parts."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retinue.core.errors import (
    ChecksumMismatch,
    ConfigError,
    ModelCorrupt,
    RetinueError,
    UnsupportedModel,
)
from retinue.models.card import Card, Source
from retinue.models.fetch import fetch
from retinue.models.importers._tflite.source import read
from retinue.models.importers.tflite import IMPORTER, convert
from retinue.models.registry import Registry
from retinue.testing.tflite import TinyModel, TinySparse

RNG = np.random.default_rng(8)
STEP = {"StrideH": 1, "StrideW": 1}


def network() -> bytes:
    """A convolution, a PRelu and a sum."""
    model = TinyModel()
    x = model.input((1, 8, 8, 3), name="input_1")
    weights = model.const(RNG.normal(size=(4, 3, 3, 3)))
    made = model.node("CONV_2D", x, weights, shape=(1, 8, 8, 4), options=STEP)
    active = model.node("PRELU", made, model.const([[[0.1, -0.2, 1.5, 0.0]]]), shape=(1, 8, 8, 4))
    return model.finish(model.node("ADD", active, made, shape=(1, 8, 8, 4)))


NETWORK = network()


def test_the_result_is_named_and_laid_out_as_documented(tmp_path: Path) -> None:
    graph = convert(NETWORK).graph
    (given_in,), (given_out,) = graph.input, graph.output
    shape = [size.dim_value for size in given_in.type.tensor_type.shape.dim]
    assert (given_in.name, shape) == ("images", [1, 3, 8, 8])
    assert [size.dim_value for size in given_out.type.tensor_type.shape.dim] == [1, 8, 8, 4]
    file = tmp_path / "a.tflite"
    file.write_bytes(NETWORK)
    for name in ("one.onnx", "two.onnx"):
        IMPORTER({"a.tflite": file}, tmp_path / name)
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()


def test_something_else_is_no_model() -> None:
    for content in (b"", b"TFL3", b"PK\3\4" + bytes(100), NETWORK[8:]):
        with pytest.raises(ModelCorrupt, match="not a TensorFlow Lite model"):
            convert(content)


@settings(max_examples=60, deadline=None)
@given(st.integers(8, len(NETWORK) - 1))
def test_a_truncated_file_is_an_error_or_whole_enough(end: int) -> None:
    try:
        convert(NETWORK[:end])
    except ModelCorrupt:
        return
    assert end > len(NETWORK) - 16, "only a name's end may be missing"


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_never_ends_in_another_error(data: st.DataObject) -> None:
    damaged = bytearray(NETWORK)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(8, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RetinueError):
        convert(bytes(damaged))


def test_unknown_operators_are_all_named() -> None:
    model = TinyModel()
    x = model.node("HASHTABLE", model.input((1, 4)), shape=(1, 4))
    x = model.node("MyOperator", x, shape=(1, 4))
    with pytest.raises(UnsupportedModel, match="not supported: HASHTABLE, MyOperator"):
        convert(model.finish(model.node("RELU", x, shape=(1, 4))))


def test_quantised_models_and_other_versions_are_refused() -> None:
    model = TinyModel()
    model.input((1, 4), "int8", "quantised")
    with pytest.raises(UnsupportedModel, match=r"'quantised' is INT8.*quantised ones are not"):
        convert(model.finish(0))
    model = TinyModel()
    x = model.node("RELU", model.input((1, 4)), shape=(1, 4))
    with pytest.raises(UnsupportedModel, match="schema version 2"):
        convert(model.finish(x, version=2))


def test_what_does_not_fit_together_is_named() -> None:
    model = TinyModel()
    x = model.node("RELU", model.tensor((1, 4), name="loose"), shape=(1, 4))
    model.input((1, 4))
    with pytest.raises(ModelCorrupt, match="'loose' is used before it is computed"):
        convert(model.finish(x))
    model = TinyModel()
    weights = model.const(np.zeros((4, 3, 3, 5)))
    x = model.node("CONV_2D", model.input((1, 8, 8, 3)), weights, shape=(), options=STEP)
    with pytest.raises(ModelCorrupt, match="3 channels meet 5"):
        convert(model.finish(x))
    model = TinyModel()
    x = model.node("RELU", model.input((1, 4)), model.const([1.0]), shape=(1, 4))
    with pytest.raises(ModelCorrupt, match=r"RELU\) cannot be translated"):
        convert(model.finish(x))
    model = TinyModel()
    short = model.tensor((3, 3), data=bytes(8))
    x = model.node("ADD", model.input((1, 3)), short, shape=(1, 3))
    with pytest.raises(ModelCorrupt, match="takes 36 bytes, but the file has 8"):
        convert(model.finish(x))
    model = TinyModel()
    custom = b"\0\1\2"
    x = model.node("Landmarks2TransformMatrix", model.input((1, 8, 3)), shape=(), custom=custom)
    with pytest.raises(ModelCorrupt, match="options"):
        convert(model.finish(x))


def compressed(dense: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    counts = np.cumsum([0, *np.count_nonzero(dense, axis=1)])
    return counts.astype(kind), np.nonzero(dense)[1].astype(kind)


@pytest.mark.parametrize("kind", ["int32", "uint16", "uint8"])
def test_compressed_rows_become_dense(kind: str) -> None:
    dense = RNG.normal(size=(6, 5)) * (RNG.random((6, 5)) < 0.4)
    dense = dense.astype(np.float16)
    parts = TinySparse((0, 1), (), (6, compressed(dense, kind)), dense[dense != 0])
    model = TinyModel()
    weights = model.node("DENSIFY", model.sparse((6, 5), parts), shape=(6, 5))
    whole = model.node("DEQUANTIZE", weights, shape=(6, 5))
    model.node("ADD", model.input((6, 5)), whole, shape=(6, 5))
    tensors = read(model.finish(len(model._tensors) - 1)).tensors
    np.testing.assert_array_equal(tensors[0].data, dense)


def test_columns_and_blocks_become_dense() -> None:
    dense = np.arange(1, 25, dtype=np.float32).reshape(4, 6)
    model = TinyModel()
    columns = TinySparse((1, 0), (), (6, 4), dense.T.ravel())
    model.sparse((4, 6), columns)
    # Blocks of 2 x 3: of each row of blocks the first is there, then the second.
    blocked = np.zeros((4, 6), np.float32)
    blocked[:2, :3], blocked[2:, 3:] = dense[:2, :3], dense[2:, 3:]
    values = np.concatenate([blocked[:2, :3].ravel(), blocked[2:, 3:].ravel()])
    filled = (np.array([0, 1, 2], np.int32), np.array([0, 1], np.int32))
    model.sparse((4, 6), TinySparse((0, 1, 2, 3), (0, 1), (2, filled, 2, 3), values))
    model.input((1,))
    tensors = read(model.finish(2)).tensors
    np.testing.assert_array_equal(tensors[0].data, dense)
    np.testing.assert_array_equal(tensors[1].data, blocked)


WRONG = {
    "values": TinySparse((0, 1), (), (2, 3), np.ones(5, np.float32)),
    "places": TinySparse(
        (0, 1),
        (),
        (2, (np.array([0, 1, 2], np.int32), np.array([0, 9], np.int32))),
        np.ones(2, np.float32),
    ),
    "segments": TinySparse(
        (0, 1),
        (),
        (2, (np.array([0, 5, 2], np.int32), np.array([0, 1], np.int32))),
        np.ones(2, np.float32),
    ),
    "order": TinySparse((0, 0), (), (2, 3), np.ones(6, np.float32)),
    "size": TinySparse((0, 1), (), (2**30, 2**30), np.ones(6, np.float32)),
    "blocks": TinySparse((0, 1), (7,), (2, 3), np.ones(6, np.float32)),
}


@pytest.mark.parametrize("name", WRONG)
def test_sparse_constants_that_do_not_fit(name: str) -> None:
    model = TinyModel()
    model.sparse((2, 3), WRONG[name])
    model.input((1,))
    with pytest.raises(ModelCorrupt):
        read(model.finish(1))


def packed(tmp_path: Path, part: tuple[int, int], name: str = "tiny") -> Card:
    content = b"header" + NETWORK + b"rest"
    (tmp_path / "packed.data").write_bytes(content)
    return Card.model_validate(
        {
            "name": name,
            "task": "segment",
            "family": "segmentation",
            "license": "MIT",
            "source": {
                "url": (tmp_path / "packed.data").as_uri(),
                "files": {"packed.data": hashlib.sha256(content).hexdigest()},
                "importer": "tflite",
                "parts": {"packed.data": part},
            },
            "input": {"height": 8, "width": 8},
            "output": {"layout": "mask"},
        }
    )


def test_a_part_of_a_file_is_pulled(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "cache")
    card = packed(tmp_path, (6, 6 + len(NETWORK)))
    entry = registry.pull(card)
    assert entry.path.read_bytes() == convert(NETWORK).SerializeToString(deterministic=True)
    assert registry.get("tiny").card.source.parts == card.source.parts


def test_a_wrong_part_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "cache")
    with pytest.raises(ModelCorrupt, match="the range of bytes in it"):
        registry.pull(packed(tmp_path, (0, len(NETWORK))))
    with pytest.raises(ConfigError, match="bytes 6 to 100000000 of packed"):
        registry.pull(packed(tmp_path, (6, 100_000_000)))
    with pytest.raises(ModelCorrupt):
        registry.pull(packed(tmp_path, (6, len(NETWORK) - 40)))
    assert registry.versions("tiny") == []


def test_the_digest_is_of_the_whole_file(tmp_path: Path) -> None:
    source = packed(tmp_path, (6, 6 + len(NETWORK))).source
    (tmp_path / "packed.data").write_bytes(b"HEADER" + NETWORK + b"rest")
    with pytest.raises(ChecksumMismatch):
        fetch(source, tmp_path)


@pytest.mark.parametrize("parts", [{"b": (0, 1)}, {"a": (4, 4)}, {"a": (-1, 4)}])
def test_parts_are_ranges_of_listed_files(parts: dict[str, tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="no range of a listed file"):
        Source(url="file:///a", files={"a": "0" * 64}, parts=parts)


def test_one_file_is_one_model(tmp_path: Path) -> None:
    with pytest.raises(ModelCorrupt, match="one file, not 2"):
        IMPORTER({"a": tmp_path / "a", "b": tmp_path / "b"}, tmp_path / "out.onnx")
