"""A model's configuration in the terms of Triton's ``ModelConfig``, as plain values.

The names are those of the message's fields
(https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto), so the
same dict is the REST answer, fills the gRPC message and is written out as ``config.pbtxt``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retinue.core.types import TensorSpec
from retinue.host.oip.tensors import BYTES, datatype

LABELS_FILE = "labels.txt"

# What Triton calls the platform and the backend of each of our runtimes' engines.
_PLATFORMS: Mapping[str, tuple[str, str]] = {
    "onnxruntime": ("onnxruntime_onnx", "onnxruntime"),
    "openvino": ("", "openvino"),
    "torch": ("pytorch_libtorch", "pytorch"),
}


@dataclass(frozen=True, slots=True)
class QueuePolicy:
    """What happens to requests that wait.

    Attributes:
        timeout_us: Microseconds that a request may take when it says nothing.
        max_queue: Most that wait.
        priorities: Levels, 1 the first; the default is their middle.
    """

    timeout_us: int
    max_queue: int
    priorities: int

    def fields(self) -> dict[str, Any]:
        """Return it as fields of ``ModelDynamicBatching``."""
        return {
            "priority_levels": self.priorities,
            "default_priority_level": (1 + self.priorities) // 2,
            "default_queue_policy": {
                "timeout_action": "REJECT",
                "default_timeout_microseconds": self.timeout_us,
                "allow_timeout_override": True,
                "max_queue_size": self.max_queue,
            },
        }


def platform(runtime: str) -> tuple[str, str]:
    """Return Triton's platform and backend of a runtime plug-in; "" where Triton names none."""
    return _PLATFORMS.get(runtime, ("", runtime))


def model_config(
    name: str,
    *,
    runtime: str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    labelled: Sequence[str] = (),
    max_batch: int,
    queue_delay_us: int = 0,
    instances: int = 1,
    kind: str = "KIND_CPU",
    warm_up: bool = False,
    queue: QueuePolicy | None = None,
) -> dict[str, Any]:
    """Return a model's configuration.

    Args:
        name: The model's name.
        runtime: Key of the runtime plug-in that executes it.
        inputs: What it takes; the first dimension is the batch and is left out of ``dims``.
        outputs: What it gives; likewise.
        labelled: Names of the outputs whose elements have the labels of `LABELS_FILE`.
        max_batch: Most items of one run.
        queue_delay_us: Longest wait for a fuller batch, in microseconds.
        instances: Sessions of the model.
        kind: Where they are: "KIND_CPU", "KIND_GPU" or "KIND_AUTO".
        warm_up: Whether each is run before the model counts as ready; left out where zeros of a
            known shape are not what the model takes.
        queue: What happens to requests that wait; None leaves it out.
    """
    engine, backend = platform(runtime)
    config: dict[str, Any] = {
        "name": name,
        "platform": engine,
        "backend": backend,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": max_batch,
        "input": [_tensor(spec) for spec in inputs],
        "output": [
            {**_tensor(spec), "label_filename": LABELS_FILE if spec.name in labelled else ""}
            for spec in outputs
        ],
        "instance_group": [{"name": name, "kind": kind, "count": instances}],
        "dynamic_batching": {
            "preferred_batch_size": [max_batch],
            "max_queue_delay_microseconds": queue_delay_us,
            "preserve_ordering": False,
            **(queue.fields() if queue else {}),
        },
    }
    if warm_up and all(_takes_zeros(spec) for spec in inputs):
        config["model_warmup"] = [_warm_up(inputs)]
    return config


def _takes_zeros(spec: TensorSpec) -> bool:
    return datatype(spec.dtype) != BYTES and all(n > 0 for n in spec.shape[1:])


def _data_type(spec: TensorSpec) -> str:
    name = datatype(spec.dtype)
    return f"TYPE_{'STRING' if name == BYTES else name}"


def _tensor(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "data_type": _data_type(spec), "dims": list(spec.shape[1:])}


def _warm_up(inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    zeros = {
        spec.name: {
            "data_type": _data_type(spec),
            "dims": list(spec.shape[1:]),
            "zero_data": True,
        }
        for spec in inputs
    }
    return {"name": "zeros", "batch_size": 1, "inputs": zeros, "count": 1}


def written_out(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration as Triton's REST answers have it: fields at their default, too."""
    return {
        **_TOP,
        **config,
        "input": [{**_INPUT, **tensor} for tensor in config["input"]],
        "output": [{**_OUTPUT, **tensor} for tensor in config["output"]],
        "instance_group": [{**_GROUP, **group} for group in config["instance_group"]],
    }


_INPUT: Mapping[str, Any] = {
    "name": "",
    "data_type": "",
    "format": "FORMAT_NONE",
    "dims": [],
    "is_shape_tensor": False,
    "allow_ragged_batch": False,
    "optional": False,
    "is_non_linear_format_io": False,
}
_OUTPUT: Mapping[str, Any] = {
    "name": "",
    "data_type": "",
    "dims": [],
    "label_filename": "",
    "is_shape_tensor": False,
    "is_non_linear_format_io": False,
}
_GROUP: Mapping[str, Any] = {
    "name": "",
    "kind": "",
    "count": 0,
    "gpus": [],
    "secondary_devices": [],
    "profile": [],
    "passive": False,
    "host_policy": "",
}
_TOP: Mapping[str, Any] = {
    "name": "",
    "platform": "",
    "backend": "",
    "runtime": "",
    "version_policy": {},
    "max_batch_size": 0,
    "input": [],
    "output": [],
    "batch_input": [],
    "batch_output": [],
    "dynamic_batching": {},
    "instance_group": [],
    "default_model_filename": "",
    "cc_model_filenames": {},
    "metric_tags": {},
    "parameters": {},
    "model_warmup": [],
}
