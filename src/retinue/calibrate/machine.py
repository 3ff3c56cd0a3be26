"""What a measurement was taken on: speed, and the quality of INT8, depend on the processor."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from retinue import __version__
from retinue.core.settings import cores

_TELLING = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm", "bf16"),
)
_PACKAGES = ("numpy", "onnxruntime", "openvino", "nncf")


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine and the packages that matter.

    Attributes:
        processor: Its model name.
        cores: Those that this process may use.
        instructions: The instruction sets that matter to networks, by their names in Linux.
        system: For example "Linux x86_64".
        versions: Installed packages to their versions; Python and Retinue among them.
    """

    processor: str
    cores: int
    instructions: tuple[str, ...]
    system: str
    versions: dict[str, str]

    @property
    def line(self) -> str:
        """All of it on one line."""
        sets = " ".join(self.instructions) or "none of note"
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return f"{self.processor}, {self.cores} cores ({sets}), {self.system}; {versions}"

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON's types."""
        return asdict(self) | {"instructions": list(self.instructions)}


def this_machine() -> Machine:
    """Return what this process runs on."""
    facts = _cpuinfo(Path("/proc/cpuinfo"))
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    processor = facts.get("model name") or platform.processor() or platform.machine()
    versions = {"retinue": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return Machine(
        processor,
        cores(),
        tuple(name for name in _TELLING if name in flags),
        f"{platform.system()} {os.uname().machine}",
        versions,
    )


def _cpuinfo(file: Path) -> dict[str, str]:
    """Return the first processor's facts; nothing where the system has no such file."""
    try:
        text = file.read_text("utf-8", "replace")
    except OSError:
        return {}
    first, _, _ = text.partition("\n\n")
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
