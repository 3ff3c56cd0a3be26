"""KServe's YAML: a ServingRuntime that runs Retinue, and an InferenceService on it.

Sources: https://kserve.github.io/website/docs/concepts/resources/servingruntime and
https://kserve.github.io/website/docs/reference/crd-api
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from retinue.core.errors import InvalidRequest

# A name in Kubernetes (RFC 1123), short enough for the names that KServe makes of it.
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_CPU: Final = re.compile(r"[0-9]+(\.[0-9]+)?|[0-9]+m")
_QUANTITY: Final = re.compile(r"[0-9]+(\.[0-9]+)?(m|[kKMGT]i?)?")


@dataclass(frozen=True, slots=True)
class Service:
    """What is to be served, and how.

    Attributes:
        name: Of both resources.
        models: Names of the models that are loaded.
        image: The container image, with Retinue as its entry point.
        storage_uri: A copy of the cache folder that KServe mounts; "" where the image holds it.
        keys_secret: A Kubernetes secret whose ``api_keys`` is the setting of that name; "" serves
            everybody whom the cluster lets through.
        cpu: CPUs, as Kubernetes writes them.
        memory: Memory, likewise.
        max_batch: Most items of one run.
        window_ms: Longest wait for a fuller batch, in milliseconds.
    """

    name: str
    models: tuple[str, ...]
    image: str
    storage_uri: str = ""
    keys_secret: str = ""
    cpu: str = "2"
    memory: str = "2Gi"
    max_batch: int = 1
    window_ms: float = 0.0

    @property
    def instances(self) -> int:
        """Sessions of each model: one a CPU. Inside, the pod sees all CPUs of its node."""
        cpus = float(self.cpu.removesuffix("m")) / (1000 if self.cpu.endswith("m") else 1)
        return min(max(1, int(cpus)), 256)


def render(service: Service) -> str:
    """Return the two resources as YAML.

    Raises:
        InvalidRequest: a name or quantity is none that Kubernetes takes.
    """
    for what, value, pattern in (
        ("name", service.name, _NAME),
        ("cpu", service.cpu, _CPU),
        ("memory", service.memory, _QUANTITY),
    ):
        if not pattern.fullmatch(value):
            raise InvalidRequest(f"--{what} {value!r} is none that Kubernetes takes")
    environment = Environment(
        loader=PackageLoader("retinue.host", "export"),
        autoescape=False,  # noqa: S701 - YAML, in which each value is quoted as JSON
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["quoted"] = json.dumps
    return environment.get_template("kserve.yaml.j2").render(service=service) + "\n"
