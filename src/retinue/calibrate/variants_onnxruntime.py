"""Variants by ONNX Runtime's static quantisation, as Q/DQ files.

The ranges of a method are found once and serve every file that is made with it, so that leaving
layers out costs a second, not another calibration. Activations are collected a few pictures at a
time: the tool's own way keeps those of all pictures in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from retinue.calibrate.variants import Feeds, Method, Network, Recipe, foreign
from retinue.core.errors import UnsupportedModel
from retinue.core.types import Array
from retinue.models.fetch import Progress

NAME: Final = "ONNX Runtime's static quantisation"
PERCENTILE: Final = 99.99
MAX_HISTOGRAM_PICTURES: Final = 200
"""Histograms cost a hundred times what extremes cost, and settle long before."""

_TOGETHER: Final = 2
_METHODS: Final = {"minmax": "MinMax", "percentile": "Percentile", "entropy": "Entropy"}


class StaticQuantizer:
    """Makes variants of one network; keeps the ranges of each method."""

    def __init__(self, network: Network, pictures: int, progress: Progress) -> None:
        """Take a network, how many pictures to calibrate with, and who hears of it."""
        self.network = network
        self._pictures = pictures
        self._progress = progress
        self._ranges: dict[Method, Any] = {}

    def make(
        self,
        recipe: Recipe,
        out: Path,
        *,
        excluded: Sequence[str] = (),
        only: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
        operators: Sequence[str] = (),
    ) -> Path:
        """Write a variant.

        Args:
            recipe: How.
            out: Where to.
            excluded: Nodes that stay in floating point.
            only: Nodes that alone are quantised; empty for all.
            options: Further options of `QDQQuantizer`.
            operators: Types of operators that are quantised; empty for all that the tool can.

        Raises:
            UnsupportedModel: the tool cannot.
            OSError: it cannot be written.
        """
        ranges = self.ranges(recipe.method)
        with foreign(NAME, self.network.folder):
            from onnxruntime.quantization import QDQQuantizer  # type: ignore[import-untyped]
            from onnxruntime.quantization.quant_utils import (  # type: ignore[import-untyped]
                QuantType,
                load_model_with_shape_infer,
            )

            signed = bool((options or {}).get("ActivationSymmetric"))
            quantizer = QDQQuantizer(
                load_model_with_shape_infer(self.network.path),
                recipe.per_channel,
                recipe.weights == "s7",
                QuantType.QUInt8 if recipe.weights == "u8" else QuantType.QInt8,
                QuantType.QInt8 if signed else QuantType.QUInt8,
                ranges,
                list(only),
                list(excluded),
                list(operators) or _operators(),
                dict(options or {}),
            )
            quantizer.quantize_model()
            quantizer.model.save_model_to_file(str(out))
        return out

    def ranges(self, method: Method) -> Any:
        """Return the ranges of all activations, found on the first call for a method."""
        if method not in _METHODS:
            raise UnsupportedModel(f"{NAME} has no method {method!r}")
        if method not in self._ranges:
            with foreign(NAME, self.network.folder):
                self._ranges[method] = self._calibrate(method)
        return self._ranges[method]

    def _calibrate(self, method: Method) -> Any:
        from onnxruntime.quantization import CalibrationMethod
        from onnxruntime.quantization.calibrate import create_calibrator  # type: ignore[import-untyped]

        augmented = self.network.folder / "augmented.onnx"
        pictures = self._pictures
        if method != "minmax":
            pictures = min(pictures, MAX_HISTOGRAM_PICTURES)
        calibrator = create_calibrator(
            self.network.path,
            _operators(),
            augmented_model_path=str(augmented),
            calibrate_method=CalibrationMethod[_METHODS[method]],
            extra_options={"percentile": PERCENTILE} if method == "percentile" else {},
        )
        self._progress.start(f"calibrating ({method})", pictures)
        for reader in _readers(self.network.feeds, pictures):
            calibrator.collect_data(reader)
            self._progress.advance(len(reader))
        self._progress.finish()
        augmented.unlink(missing_ok=True)
        return calibrator.compute_data()


class _Reader:
    """Some inputs, as the tool reads them."""

    def __init__(self, feeds: list[dict[str, Array]]) -> None:
        self._feeds = feeds
        self._left = iter(feeds)

    def __len__(self) -> int:
        return len(self._feeds)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._left, None)


def _readers(feeds: Feeds, pictures: int) -> Iterator[_Reader]:
    given = feeds(pictures)
    while part := list(islice(given, _TOGETHER)):
        yield _Reader(part)


def _operators() -> list[str]:
    from onnxruntime.quantization.registry import (  # type: ignore[import-untyped]
        QDQRegistry,
        QLinearOpsRegistry,
    )

    return sorted(set(QDQRegistry) | set(QLinearOpsRegistry))
