"""A Triton model repository of installed models.

Source: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/model_repository.md
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from google.protobuf import text_format  # type: ignore[import-untyped]

from retinue.core.errors import ModelCorrupt
from retinue.core.types import TensorSpec
from retinue.host.export.folder import whole_folder
from retinue.host.oip import messages
from retinue.host.oip.config import LABELS_FILE, model_config
from retinue.models.card import Card
from retinue.models.fetch import sha256_of
from retinue.models.registry import Entry
from retinue.runtimes.onnxruntime import OnnxRuntime

CONFIG: Final = "config.pbtxt"
WEIGHTS: Final = "1/model.onnx"

_MARK: Final = b"# Made by retinue export triton.\n"


@dataclass(frozen=True, slots=True)
class Serving:
    """How Triton is to serve the models.

    Attributes:
        kind: Where: "auto" (a GPU if there is one), "cpu" or "gpu".
        instances: Sessions a model, on each device.
        max_batch: Most items of one run.
        delay_us: Longest wait for a fuller batch, in microseconds.
    """

    kind: str = "auto"
    instances: int = 4
    max_batch: int = 32
    delay_us: int = 5000


def write_repository(
    folder: Path, entries: Sequence[Entry], serving: Serving, *, force: bool = False
) -> None:
    """Write a model repository, whole or not at all.

    Args:
        folder: Where to; must not exist or be empty, unless forced.
        entries: The models.
        serving: How they are to be served.
        force: Replace an earlier export.

    Raises:
        ConfigError: the folder is not empty, or cannot be replaced.
        ModelCorrupt: a model's weights are not what was installed.
        StorageError: the folder cannot be written.
    """
    with whole_folder(folder, replaces=_is_model if force else None) as made:
        for entry in entries:
            _write_model(made / entry.card.name, entry, serving)


def _is_model(path: Path) -> bool:
    """Return whether a folder holds a model as an export made it, and nothing else."""
    config = path / CONFIG
    if not config.is_file():
        return False
    with config.open("rb") as file:
        marked = file.read(len(_MARK)) == _MARK
    ours = {config, path / LABELS_FILE, path / WEIGHTS}
    return marked and all(found.is_dir() or found in ours for found in path.rglob("*"))


def _write_model(folder: Path, entry: Entry, serving: Serving) -> None:
    copied = folder / WEIGHTS
    copied.parent.mkdir(parents=True)
    shutil.copyfile(entry.path, copied)
    digest = sha256_of(copied)
    if digest != entry.sha256:
        raise ModelCorrupt(
            f"{entry.path} is not what was installed: sha256 {digest}, not {entry.sha256}; "
            f"fetch it again: retinue models remove {entry.card.name}, then pull or import it"
        )
    with closing(OnnxRuntime(copied)) as runtime:
        config = triton_config(entry.card, runtime.inputs, runtime.outputs, serving)
    text = text_format.MessageToString(messages.model_config(config).config)
    (folder / CONFIG).write_bytes(_MARK + text.encode())
    if any(output.get("label_filename") for output in config["output"]):
        (folder / LABELS_FILE).write_text("\n".join(entry.card.classes) + "\n", "utf-8")


def triton_config(
    card: Card, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], serving: Serving
) -> dict[str, Any]:
    """Return a model's configuration for Triton, as the fields of its ``ModelConfig``.

    A network with a fixed batch has no batching there: its shapes are given whole.
    """
    batched = all(spec.shape[:1] == (-1,) for spec in (*inputs, *outputs))
    labelled = [
        spec.name
        for spec in outputs
        if card.task == "classify" and spec.shape[1:] == (len(card.classes),)
    ]
    config = model_config(
        card.name,
        runtime="onnxruntime",
        inputs=inputs if batched else _whole(inputs),
        outputs=outputs if batched else _whole(outputs),
        labelled=labelled,
        max_batch=serving.max_batch if batched else 0,
        queue_delay_us=serving.delay_us,
        instances=serving.instances,
        kind=f"KIND_{serving.kind.upper()}",
        warm_up=True,
    )
    if not batched:
        del config["dynamic_batching"]
    return config


def _whole(specs: Sequence[TensorSpec]) -> list[TensorSpec]:
    return [replace(spec, shape=(-1, *spec.shape)) for spec in specs]
