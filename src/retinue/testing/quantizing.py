"""A model, pictures and a registry to quantise in, where a search takes a second."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from retinue.calibrate import quantize as quantize_module
from retinue.calibrate import quantize_bench
from retinue.calibrate.quantize import Quantized, Wish, quantize
from retinue.calibrate.quantize_findings import NOW
from retinue.calibrate.samples import Samples, open_samples
from retinue.calibrate.speed import Speed
from retinue.calibrate.variants import Recipe
from retinue.core.settings import Settings, load_settings
from retinue.models.registry import Entry, Registry
from retinue.testing.datasets import squares, write_folder, yolo_files
from retinue.testing.versions import install

STATIC = Recipe("onnxruntime", "minmax", True, "s7")


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a search needs.

    Attributes:
        settings: Of a cache of its own.
        registry: The cache's.
        entry: The detector of coloured squares, called "sees".
        data: A folder of 72 labelled pictures and a damaged one.
        samples: The same, opened.
    """

    settings: Settings
    registry: Registry
    entry: Entry
    data: Path
    samples: Samples

    def run(self, **wish: Any) -> Quantized:
        """Search, unless wished otherwise with ONNX Runtime alone."""
        whole = Wish(**{"max_drop": 0.5, "runtimes": ("onnxruntime",), **wish})
        return quantize(
            self.entry, self.samples, whole, settings=self.settings, registry=self.registry
        )

    def left_behind(self) -> list[str]:
        """Return the names of temporary files and folders in the cache."""
        names = (path.name for path in self.settings.cache.rglob("*"))
        return [name for name in names if ".tmp-" in name or ".work" in name]


def workshop(folder: Path, patch: pytest.MonkeyPatch) -> Workshop:
    """Make a workshop in a folder; one recipe is tried, and each variant takes half the time."""
    patch.setenv("RETINUE_CACHE", str(folder / "cache"))
    patch.setenv("RETINUE_HOME", str(folder / "home"))
    patch.setattr(quantize_bench, "race", _twice_as_fast)
    patch.setattr(quantize_module, "race", _twice_as_fast)
    patch.setattr(quantize_module, "recipes", lambda saturates: (STATIC,))
    settings = load_settings()
    registry = Registry(settings.cache)
    entry = install(registry, folder, name="sees")
    files = yolo_files(squares(72)) | {"images/bad.png": b"no picture"}
    data = write_folder(folder / "data", files)
    samples = open_samples(data, entry.card, settings=settings)
    return Workshop(settings, registry, entry, data, samples)


def _twice_as_fast(models: Mapping[str, Any], rows: object, **_: object) -> Speed:
    """Stand in for a race: what is not the model as it is takes half its time."""
    times = {name: (2.0 if name == NOW else 1.0,) * 3 for name in models}
    return Speed(times, "not timed")
