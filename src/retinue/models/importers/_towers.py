"""Rewrites exported transformer towers so that all of them have the same inputs and outputs.

Exports of the same architecture differ in names and integer types. What is added are nodes in
front of the inputs and behind the outputs; the network itself stays as it was exported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer

from retinue.core.errors import ModelCorrupt, UnsupportedModel
from retinue.models._text_file import (
    IDS,
    MASK,
    OPTIONS_KEY,
    TOKENIZER_KEY,
    TextOptions,
    parse_tokenizer,
)
from retinue.models.importers._build.finish import write

EMBEDDING: Final = "embedding"
_IDS_NAMES: Final = (IDS, "text", "tokens")
_INTEGERS: Final = (TensorProto.INT32, TensorProto.INT64)


def one_file(files: Mapping[str, Path], suffix: str) -> Path:
    """Return the only fetched file whose name ends so.

    Raises:
        ModelCorrupt: there is none, or more than one.
    """
    found = [name for name in sorted(files) if name.endswith(suffix)]
    if len(found) != 1:
        raise ModelCorrupt(f"one {suffix} file is needed, not {found or 'none'}")
    return files[found[0]]


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file.

    Raises:
        ModelCorrupt: it is none.
    """
    try:
        return onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise ModelCorrupt(f"{path.name} is not an ONNX file: {error}") from error


def keep_output(model: onnx.ModelProto, name: str, *, first_token: bool = False) -> None:
    """Make one output, called "embedding", the only one.

    Args:
        model: Is changed.
        name: The output that is kept.
        first_token: Whether it is (N, T, D) and token 0 of each row is meant; else it is (N, D).
    """
    graph = model.graph
    kept = next(value for value in graph.output if value.name == name)
    dims = [d.dim_value or None for d in kept.type.tensor_type.shape.dim]
    kind = kept.type.tensor_type.elem_type
    if first_token:
        index = numpy_helper.from_array(np.array(0, np.int64), "retinue.first")
        graph.initializer.append(index)
        graph.node.append(helper.make_node("Gather", [name, index.name], [EMBEDDING], axis=1))
        dims = [dims[0], dims[2]]
    elif name != EMBEDDING:
        graph.node.append(helper.make_node("Identity", [name], [EMBEDDING]))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info(EMBEDDING, kind, dims))


def find_output(model: onnx.ModelProto, wanted: Sequence[str], rank: int) -> str:
    """Return the first output of a rank that is called as wanted, or else the only one of it.

    Raises:
        UnsupportedModel: there is none, or more than one.
    """
    ranks: dict[str, int] = {v.name: len(v.type.tensor_type.shape.dim) for v in model.graph.output}
    fits = [name for name, found in ranks.items() if found == rank]
    for name in wanted:
        if name in fits:
            return name
    if len(fits) != 1:
        raise UnsupportedModel(
            f"the network has {len(fits)} outputs of {rank} dimensions, and one is needed, or one "
            f"called {' or '.join(wanted)}; its outputs are {', '.join(ranks)}"
        )
    return fits[0]


def import_text(
    onnx_file: Path, tokenizer: Tokenizer, output: Path, wanted: Sequence[str], **options: Any
) -> None:
    """Write a text tower and its tokenizer as one ONNX file for `retinue.models.text`.

    Args:
        onnx_file: An export that takes token ids, and perhaps their mask, and gives (N, D).
        tokenizer: Its tokenizer.
        output: The file to write.
        wanted: Names of the output, the best first.
        **options: Fields of `TextOptions`, but for ``unknown_id``.

    Raises:
        ModelCorrupt: the file is no ONNX file.
        UnsupportedModel: the network has other inputs or outputs.
    """
    model = read_onnx(onnx_file)
    _standard_inputs(model)
    keep_output(model, find_output(model, wanted, 2))
    store_text(model, tokenizer, **options)
    write(model, output)


def store_text(model: onnx.ModelProto, tokenizer: Tokenizer, **options: Any) -> None:
    """Put a tokenizer and how it is used in a model's metadata; what was there is replaced."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    text = tokenizer.to_str()
    chosen = TextOptions(**options, unknown_id=_unknown(json.loads(text)["model"]))
    kept = {pair.key: pair.value for pair in model.metadata_props}
    kept |= {TOKENIZER_KEY: text, OPTIONS_KEY: json.dumps(asdict(chosen), sort_keys=True)}
    del model.metadata_props[:]
    helper.set_model_props(model, kept)


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a ``tokenizer.json``.

    Raises:
        ModelCorrupt: it is none.
    """
    try:
        return parse_tokenizer(path.read_text("utf-8"))
    except (UnicodeDecodeError, ValueError) as error:
        raise ModelCorrupt(f"{path.name} is no tokenizer's JSON: {error}") from error


def _unknown(model: Mapping[str, Any]) -> int:
    """Return the id of the token for what is unknown, from a tokenizer's JSON."""
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    token, vocabulary = model.get("unk_token"), model.get("vocab")
    found = vocabulary.get(token, -1) if isinstance(vocabulary, Mapping) and token else -1
    return int(found)


def _standard_inputs(model: onnx.ModelProto) -> None:
    """Make "input_ids" and, where it has one, "attention_mask" the int64 inputs."""
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in weights}
    ids = next((name for name in _IDS_NAMES if name in inputs), None)
    others = set(inputs) - {ids, MASK}
    if ids is None or others:
        raise UnsupportedModel(
            f"the network takes {', '.join(inputs)}; a text tower takes {IDS}, and {MASK} if it "
            "needs it"
        )
    for old, new in ((ids, IDS), (MASK, MASK)):
        if old in inputs:
            _cast_input(model, inputs[old], new)


def _cast_input(model: onnx.ModelProto, value: onnx.ValueInfoProto, name: str) -> None:
    kind = value.type.tensor_type.elem_type
    if kind not in _INTEGERS:
        raise UnsupportedModel(f"input {value.name!r} takes no integers, and token ids are")
    if value.name == name and kind == TensorProto.INT64:
        return
    old = value.name
    if old == name:
        # The new input takes the name, so that the network's own nodes need another.
        old = f"{name}.cast"
        for node in model.graph.node:
            node.input[:] = [old if i == name else i for i in node.input]
    value.name = name
    value.type.tensor_type.elem_type = TensorProto.INT64
    cast = helper.make_node("Cast", [name], [old], to=kind)
    model.graph.node.insert(0, cast)
