"""Versions of a model that loads and answers, in a registry of the test's own."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from retinue.models.card import Card, RunWith, Source
from retinue.models.fetch import sha256_of
from retinue.models.registry import Entry, Lineage, Registry
from retinue.testing.onnx_models import color_detector

NAME = "colors"


def card_of(file: Path, **fields: object) -> Card:
    """Return the card of a `color_detector`; fields replace its own."""
    values: dict[str, object] = {
        "name": NAME,
        "task": "detect",
        "family": "yolo",
        "license": "MIT",
        "classes": ("red", "green", "blue"),
        "source": Source(url=file.absolute().as_uri(), files={file.name: sha256_of(file)}),
        "input": {"height": 64, "width": 64},
        "output": {"layout": "yolov8"},
    }
    return Card.model_validate(values | fields)


def install(
    registry: Registry,
    folder: Path,
    cell: int = 16,
    *,
    blind_to: Collection[int] = (),
    **fields: object,
) -> Entry:
    """Install a `color_detector`, whose file is made in a folder; fields are of the card."""
    file = color_detector(folder / f"{cell}.onnx", cell=cell, blind_to=blind_to)
    return registry.import_onnx(file, card=card_of(file, **fields))


def derive(
    registry: Registry,
    parent: Entry,
    *,
    weights: Path | None = None,
    agreement: float = 0.9,
    **fields: object,
) -> Entry:
    """Install a version of a parent, with a fixed runtime; fields are of the card.

    Args:
        registry: Where to.
        parent: What it was made from.
        weights: Its file; the parent's weights if left out.
        agreement: With the parent; the lower bound is 0.05 less.
        fields: Replace the parent card's.
    """
    changes = {"run_with": RunWith(runtime="onnxruntime")} | fields
    with registry.workspace(parent.card.name) as folder:
        made = shutil.copyfile(weights or parent.path, folder / "made.onnx")
        return registry.derive(
            parent,
            made,
            parent.card.model_copy(update=changes),
            Lineage(parent=parent.version, agreement=agreement, agreement_low=agreement - 0.05),
            {"report.json": b"{}"},
        )
