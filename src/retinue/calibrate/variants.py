"""INT8 variants of a network: the recipes that are tried, and the network made ready for them.

What is fast and what is exact depends on the processor. Without VNNI's dot product, x86 adds pairs
of products of unsigned activations and signed weights in 16 bits, which saturate: there, weights
of 7 bits are used ("reduced range"), or unsigned ones. Source: ONNX Runtime, "Quantize ONNX
models" (When to use reduce-range and per-channel quantization), and the docstring of its
`quantize_static`.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Final, Literal

import onnx

from retinue.core.errors import RetinueError, UnsupportedModel
from retinue.core.types import Array

Tool = Literal["onnxruntime", "nncf"]
Method = Literal["minmax", "percentile", "entropy", "performance", "mixed"]
Weights = Literal["s8", "s7", "u8"]
Feeds = Callable[[int], Iterator[dict[str, Array]]]
"""Given how many, yields inputs of a network with their batch dimension."""

WEIGHTED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that INT8 makes fast."""

_QUANTIZED: Final = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"}
)
_LEAST_OPSET: Final = 13
"""The first one with scales by channel."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is brought to 8 bits.

    Attributes:
        tool: Who does it: ONNX Runtime's static quantisation, or NNCF's post-training one.
        method: How the ranges of activations are found: from the extremes, from a percentile
            (99.99), by least loss of entropy; NNCF's presets "performance" (symmetric) and "mixed".
        per_channel: Whether each output channel of a layer has a scale of its own.
        weights: Signed 8 bits, signed with the range of 7, or unsigned 8 bits.
    """

    tool: Tool
    method: Method
    per_channel: bool = True
    weights: Weights = "s8"

    @property
    def label(self) -> str:
        """As reports call it."""
        channels = "per-channel" if self.per_channel else "per-tensor"
        return f"{self.tool} {self.method} {channels} {self.weights}"


def recipes(*, saturates: bool) -> tuple[Recipe, ...]:
    """Return what is tried.

    Args:
        saturates: Whether the processor's 8-bit products may saturate; see `saturates`.
    """
    weights: Weights = "s7" if saturates else "s8"
    methods: tuple[Method, ...] = ("percentile", "entropy", "minmax")
    tried = [Recipe("onnxruntime", m, c, weights) for c in (True, False) for m in methods]
    if saturates:
        tried.append(Recipe("onnxruntime", "percentile", True, "u8"))
    presets: tuple[Method, ...] = ("performance", "mixed")
    return (*tried, *(Recipe("nncf", preset, True, weights) for preset in presets))


def saturates(machine: str, flags: Sequence[str]) -> bool:
    """Tell whether products of 8 bits may saturate on a processor.

    Args:
        machine: As `platform.machine` has it.
        flags: Instruction sets, as /proc/cpuinfo calls them.
    """
    x86 = machine.lower() in ("x86_64", "amd64", "i386", "i686")
    return x86 and not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(flags)


@dataclass(frozen=True, slots=True, eq=False)
class Network:
    """A network made ready for the quantisers.

    Attributes:
        path: The ONNX file: optimised, shapes inferred, every node named.
        folder: Where its variants and temporary files are put.
        layers: Names of its nodes of `WEIGHTED`, from input to output.
        feeds: Inputs to calibrate with.
    """

    path: Path
    folder: Path
    layers: tuple[str, ...]
    feeds: Feeds


def prepare(source: Path, folder: Path, feeds: Feeds) -> Network:
    """Make a network ready: constants folded, batch normalisation fused, shapes inferred.

    Args:
        source: The ONNX file.
        folder: An empty folder to work in.
        feeds: Inputs to calibrate with.

    Raises:
        UnsupportedModel: it is quantised already, has nothing to quantise, or cannot be prepared.
    """
    model = onnx.load(str(source))
    used = {node.op_type for node in model.graph.node}
    if used & _QUANTIZED or any(op.startswith("QLinear") for op in used):
        found = ", ".join(sorted(op for op in used if op in _QUANTIZED or op.startswith("QLinear")))
        raise UnsupportedModel(
            f"{source} is quantised already (it has {found}); quantise the model it was made from"
        )
    del model
    with foreign("ONNX Runtime's preprocessing", folder):
        ready = _preprocessed(source, folder / "ready.onnx")
    layers = tuple(node.name for node in ready.graph.node if node.op_type in WEIGHTED)
    if not layers:
        raise UnsupportedModel(f"{source} has no convolution or matrix product to quantise")
    return Network(folder / "ready.onnx", folder, layers, feeds)


def _preprocessed(source: Path, out: Path) -> Any:
    from onnxruntime.quantization import quant_pre_process  # type: ignore[import-untyped]

    # Symbolic shape inference wants another package, and adds nothing for networks of pictures.
    quant_pre_process(str(source), str(out), skip_symbolic_shape=True)
    model = onnx.load(str(out))
    opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if opset < _LEAST_OPSET:
        model = onnx.version_converter.convert_version(model, _LEAST_OPSET)
    taken = {node.name for node in model.graph.node}
    for number, node in enumerate(model.graph.node):
        if not node.name:
            node.name = next(n for n in _names(node.op_type, number) if n not in taken)
            taken.add(node.name)
    onnx.save(model, str(out))
    return model


def _names(operator: str, number: int) -> Iterator[str]:
    name = f"{operator}_{number}"
    while True:
        yield name
        name += "_"


@contextmanager
def foreign(what: str, folder: Path) -> Iterator[None]:
    """Run somebody else's tool: without its talk, its temporary files in our folder.

    Raises:
        UnsupportedModel: whatever it raises, but for errors of the disk and of Retinue.
    """
    before, disabled = tempfile.tempdir, logging.root.manager.disable
    tempfile.tempdir = str(folder)
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    except (RetinueError, OSError, MemoryError):
        raise
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UnsupportedModel(f"{what} cannot handle this model: {lines[0][:300]}") from error
    finally:
        tempfile.tempdir = before
        logging.disable(disabled)
