"""Section "prepare": exports the networks as the programs that all other sections load."""

from __future__ import annotations

import time

import networks
from section import arguments


def main() -> None:
    """Export each network."""
    section = arguments()
    for network in networks.chosen(section.networks, tiny=section.quick):
        began = time.perf_counter()
        path = section.program(network.name)
        networks.export(network, "cpu", path)
        section.add(
            network=network.title,
            export_s=time.perf_counter() - began,
            megabytes=path.stat().st_size / 1e6,
        )


if __name__ == "__main__":
    main()
