"""Tiny text towers and tokenizers of the shapes that the originals are published in.

They stand in for real weights in the tests of importers and text models; each is known so well that
its answer can be computed by hand.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from retinue.models.importers.clip_text import END, START

D = 6
"""Length of every vector."""
WORDS = ("a", "cat", "two", "dogs", "dog", "end")
"""What `word_tokenizer` knows."""

ONE = TensorProto.FLOAT


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    """Return normally distributed float32 numbers, the same for the same seed."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def write_safetensors(path: Path, table: NDArray[Any], name: str = "embedding.weight") -> None:
    """Write one (rows, D) table as a safetensors file."""
    kind = {"f2": "F16", "f4": "F32", "i8": "I64"}[table.dtype.str[1:]]
    info = {"dtype": kind, "shape": list(table.shape), "data_offsets": [0, table.nbytes]}
    header = json.dumps({name: info, "__metadata__": {"a": "b"}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + table.tobytes())


def word_tokenizer(special: dict[str, int], end: str = "") -> Tokenizer:
    """Words split at spaces; what is none of them is "<unk>"."""
    vocabulary = special | {word: len(special) + i for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if end:
        pair = [(end, special[end])]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {end}", special_tokens=pair
        )
    return tokenizer


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Letters and their ends, a few merges, and the two special tokens last, as in CLIP."""
    letters = sorted(set("".join(WORDS)) | set("ws'-!"))
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g</w>")]
    tokens = [*letters, *(f"{x}</w>" for x in letters), *("".join(pair) for pair in merges)]
    return {token: i for i, token in enumerate([*tokens, START, END])}, merges


def clip_tower(
    path: Path,
    size: int,
    *,
    ids: str = "input_ids",
    kind: int = TensorProto.INT64,
    shape: tuple[int | str, int | str] = ("N", "L"),
    output: str = "text_embeds",
    mask: bool = False,
) -> None:
    """Two layers over each token; the features at the first largest id are projected."""
    weights: dict[str, NDArray[Any]] = {
        "table": random(size, D, seed=1),
        "w1": random(D, D, seed=2),
        "w2": random(D, D, seed=3),
        "projection": random(D, D, seed=4),
        "last": np.array([-1], np.int64),
        "middle": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["table", ids], ["x0"]),
        helper.make_node("MatMul", ["x0", "w1"], ["x1"]),
        helper.make_node("Tanh", ["x1"], ["x2"]),
        helper.make_node("MatMul", ["x2", "w2"], ["x3"]),
        helper.make_node("Add", ["x2", "x3"], ["last_hidden_state"]),
        helper.make_node("CumSum", ["last_hidden_state", "middle"], ["causal"]),
        helper.make_node("Cast", [ids], ["ids64"], to=TensorProto.INT64),
        helper.make_node("ArgMax", ["ids64"], ["end"], axis=1, keepdims=1),
        helper.make_node("Unsqueeze", ["end", "last"], ["at"]),
        helper.make_node("Shape", ["causal"], ["whole"]),
        helper.make_node("Constant", [], ["ends"], value_ints=[0, 2]),
        helper.make_node("Constant", [], ["middles"], value_ints=[1]),
        helper.make_node("Gather", ["whole", "ends"], ["nd"]),
        helper.make_node("Split", ["nd"], ["n", "d"], axis=0, num_outputs=2),
        helper.make_node("Concat", ["n", "middles", "d"], ["one_each"], axis=0),
        helper.make_node("Expand", ["at", "one_each"], ["index"]),
        helper.make_node("GatherElements", ["causal", "index"], ["picked"], axis=1),
        helper.make_node("Squeeze", ["picked", "middles"], ["pooled"]),
        helper.make_node("MatMul", ["pooled", "projection"], [output]),
    ]
    inputs = [helper.make_tensor_value_info(ids, kind, shape)]
    if mask:
        inputs.append(helper.make_tensor_value_info("attention_mask", kind, shape))
        nodes.append(helper.make_node("Cast", ["attention_mask"], ["unused"], to=ONE))
    save(path, nodes, inputs, {output: ("N", D), "last_hidden_state": ("N", "L", D)}, weights)


def siglip_tower(path: Path, size: int) -> None:
    """All 64 places count, padding too."""
    weights = {"table": random(size, D, seed=1), "places": random(64, D, seed=5)}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x0"]),
        helper.make_node("Add", ["x0", "places"], ["x1"]),
        helper.make_node("Tanh", ["x1"], ["last_hidden_state"]),
        helper.make_node("ReduceMean", ["last_hidden_state"], ["pooler_output"], axes=[1],
                         keepdims=0),
    ]  # fmt: skip
    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ("N", "L"))]
    outputs = {"last_hidden_state": ("N", "L", D), "pooler_output": ("N", "D")}
    save(path, nodes, inputs, outputs, weights, opset=17)


def save(
    path: Path,
    nodes: Sequence[Any],
    inputs: Sequence[Any],
    outputs: Mapping[str, Sequence[int | str]],
    weights: Mapping[str, NDArray[Any]],
    opset: int = 18,
) -> None:
    """Write a graph of float32 outputs as an ONNX file."""
    infos = [helper.make_tensor_value_info(name, ONE, shape) for name, shape in outputs.items()]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "tower", inputs, infos, constants)
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, str(path))
