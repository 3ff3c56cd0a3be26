"""Variants by NNCF's post-training quantisation, made for OpenVINO. An extra."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import onnx

from retinue.calibrate.variants import Feeds, Network, Recipe, foreign
from retinue.core.errors import MissingExtra
from retinue.core.types import Array
from retinue.runtimes.openvino import without_telemetry

NAME: Final = "NNCF"
MAX_PICTURES: Final = 300
"""NNCF's own default: its statistics settle before."""


def engine() -> Any:
    """Return the module ``nncf``, which then reports to nobody.

    Raises:
        MissingExtra: it is not installed.
    """
    without_telemetry()
    try:
        return importlib.import_module("nncf")
    except ImportError as error:
        message = "NNCF is not installed; install it with: pip install 'retinue[quantize]'"
        raise MissingExtra(message) from error


def make(
    network: Network, recipe: Recipe, out: Path, *, pictures: int, excluded: Sequence[str] = ()
) -> Path:
    """Write a variant.

    Args:
        network: The network.
        recipe: How: "performance" or "mixed"; of weights "s7" half of the range is used.
        out: Where to.
        pictures: How many pictures to calibrate with, at most.
        excluded: Nodes that stay in floating point.

    Raises:
        MissingExtra: NNCF is not installed.
        UnsupportedModel: it cannot.
        OSError: it cannot be written.
    """
    with foreign(NAME, network.folder):
        nncf = engine()
        advanced = importlib.import_module("nncf.quantization.advanced_parameters")
        reduced = recipe.weights == "s7"
        fix = advanced.OverflowFix.ENABLE if reduced else advanced.OverflowFix.DISABLE
        made = nncf.quantize(
            onnx.load(str(network.path)),
            nncf.Dataset(_Feeds(network.feeds, min(pictures, MAX_PICTURES))),
            preset=nncf.QuantizationPreset(recipe.method),
            subset_size=MAX_PICTURES,
            fast_bias_correction=True,
            ignored_scope=nncf.IgnoredScope(names=list(excluded)) if excluded else None,
            advanced_parameters=advanced.AdvancedQuantizationParameters(overflow_fix=fix),
        )
        onnx.save(made, str(out))
    return out


class _Feeds:
    """Inputs that are read anew each time, rather than kept."""

    def __init__(self, feeds: Feeds, number: int) -> None:
        self._feeds = feeds
        self._number = number

    def __len__(self) -> int:
        return self._number

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return self._feeds(self._number)
