"""Imports WordLlama's word vectors and tokenizer as a text model.

A text's vector is the mean of its tokens' vectors, of unit length; that is all there is to the
network (https://github.com/dleemiller/WordLlama). The table stays float16, as it was published,
and is computed with in float32. No special tokens are added.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.models._text_file import IDS, MASK
from retinue.models.importers._build.finish import write
from retinue.models.importers._build.graph import IR_VERSION, OPSETS
from retinue.models.importers._towers import (
    EMBEDDING,
    one_file,
    read_tokenizer,
    store_text,
)

TABLE: Final = "embedding.weight"
DTYPES: Final[dict[str, np.dtype[Any]]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}


def read_table(path: Path) -> NDArray[Any]:
    """Return the (tokens, D) table of a safetensors file, float16 or float32.

    The format is a length, a JSON header and raw numbers
    (https://github.com/huggingface/safetensors).

    Raises:
        ModelCorrupt: the file is damaged.
        UnsupportedModel: it holds no such table.
    """
    data = path.read_bytes()
    try:
        (length,) = struct.unpack_from("<Q", data)
        info = json.loads(data[8 : 8 + length])[TABLE]
        kind, (rows, columns), (start, end) = info["dtype"], info["shape"], info["data_offsets"]
        raw = data[8 + length + start : 8 + length + end]
        dtype = DTYPES.get(kind)
        whole = dtype is None or len(raw) == end - start == rows * columns * dtype.itemsize
    except KeyError as error:
        raise UnsupportedModel(f"{path.name} is not WordLlama's: it has no {TABLE}") from error
    except (struct.error, ValueError, TypeError, RecursionError) as error:
        raise ModelCorrupt(f"{path.name} is not a safetensors file: {error}") from error
    if dtype is None:
        raise UnsupportedModel(f"{TABLE} is {kind}, and F16 or F32 is expected")
    if not whole or not len(raw):
        raise ModelCorrupt(f"{path.name} is cut short, or its header is wrong")
    table: NDArray[Any] = np.frombuffer(raw, dtype).reshape(rows, columns)
    if not np.isfinite(table).all():
        raise ModelCorrupt(f"{path.name} holds NaN or infinity")
    return table


def build(table: NDArray[Any]) -> onnx.ModelProto:
    """Return the network: token ids and mask, both (N, L) int64, to (N, D) float32 unit vectors.

    Args:
        table: (tokens, D), float16 or float32.
    """
    weights = {
        "table": table,
        "first": np.array([1], np.int64),
        "second": np.array([2], np.int64),
        "one": np.array(1, np.float32),
        "tiny": np.array(1e-12, np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", IDS], ["rows"]),
        helper.make_node("Cast", ["rows"], ["vectors"], to=TensorProto.FLOAT),
        helper.make_node("Cast", [MASK], ["mask"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["mask", "second"], ["weights"]),
        helper.make_node("Mul", ["vectors", "weights"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "first"], ["sum"], keepdims=0),
        helper.make_node("ReduceSum", ["mask", "first"], ["count"], keepdims=1),
        helper.make_node("Max", ["count", "one"], ["divisor"]),
        helper.make_node("Div", ["sum", "divisor"], ["mean"]),
        helper.make_node("ReduceL2", ["mean"], ["norm"], axes=[1], keepdims=1),
        helper.make_node("Max", ["norm", "tiny"], ["length"]),
        helper.make_node("Div", ["mean", "length"], [EMBEDDING]),
    ]
    batch = ("batch", "length")
    graph = helper.make_graph(
        nodes,
        "wordllama",
        [helper.make_tensor_value_info(name, TensorProto.INT64, batch) for name in (IDS, MASK)],
        [helper.make_tensor_value_info(EMBEDDING, TensorProto.FLOAT, ("batch", table.shape[1]))],
        [numpy_helper.from_array(np.ascontiguousarray(w), name) for name, w in weights.items()],
    )
    model = helper.make_model(
        graph, opset_imports=OPSETS, ir_version=IR_VERSION, producer_name="retinue"
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _import(files: Mapping[str, Path], output: Path) -> None:
    table = read_table(one_file(files, ".safetensors"))
    tokenizer = read_tokenizer(one_file(files, ".json"))
    size = tokenizer.get_vocab_size(with_added_tokens=True)
    if size > len(table):
        raise UnsupportedModel(f"the tokenizer has {size} tokens, and {len(table)} have vectors")
    model = build(table)
    store_text(model, tokenizer, length=0, pad_id=0, special=False)
    write(model, output)


IMPORTER = _import
"""Called with (name inside the package to local file, path of the ONNX file to write)."""
