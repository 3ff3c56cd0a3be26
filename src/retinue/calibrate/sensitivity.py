"""Which layers lose most in 8 bits, and in which order to leave them out.

A layer's sensitivity is the noise in the network's outputs when that layer alone is quantised, on
a few pictures: cheap, and additive enough to order layers by. What lies behind the last layers
(the decoding of boxes, the last activation) is measured like a layer: 8 bits are often too few for
what is read as the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import onnx

from retinue.calibrate.variants import WEIGHTED, Network
from retinue.core.types import Tensors
from retinue.models.fetch import Progress

MAX_BLOCKS: Final = 64
"""Layers of longer networks are measured in so many blocks of neighbours."""

FLOOR_DB: Final = -20.0
CEILING_DB: Final = 120.0


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What quantising some layers alone does to the outputs.

    Attributes:
        layers: Names of the nodes: a layer, a block of them, or all behind the last layers.
        snr_db: Signal to noise of the outputs in decibels; None where it was not measured.
        head: Whether an output hangs on one of them with no layer between.
    """

    layers: tuple[str, ...]
    snr_db: float | None
    head: bool


def snr_db(reference: Sequence[Tensors], outputs: Sequence[Tensors]) -> float:
    """Return the signal-to-noise ratio of outputs against a reference.

    Each output tensor counts alike, whatever its scale: its noise is taken relative to its own
    variance, and the mean of these shares is returned in decibels, within `FLOOR_DB` and
    `CEILING_DB`. What is not finite counts as noise alone.

    Args:
        reference: For each picture the outputs in full precision.
        outputs: The same, as they are now.
    """
    shares = []
    for name in reference[0]:
        signal = np.stack([np.asarray(row[name], np.float64) for row in reference])
        found = np.stack([np.asarray(row[name], np.float64) for row in outputs])
        power = float(signal.var()) or 1.0
        error = float(((found - signal) ** 2).mean()) if np.isfinite(found).all() else np.inf
        shares.append(error / power)
    share = max(float(np.mean(shares)), 1e-30)
    return float(np.clip(-10 * np.log10(share), FLOOR_DB, CEILING_DB))


def head(network: Network) -> tuple[frozenset[str], frozenset[str]]:
    """Find the end of a network.

    Returns:
        The layers from which an output is reached through no other layer, and the nodes behind
        all layers, by name.
    """
    graph = onnx.load(str(network.path), load_external_data=False).graph
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for tensor in node.input:
            readers.setdefault(tensor, []).append(node)
    last: set[str] = set()
    behind: set[str] = set()
    # Whether a layer lies ahead of a node, and whether an output does, with none between. Nodes of
    # a valid file come in topological order.
    ahead: dict[str, bool] = {}
    direct: dict[str, bool] = {}
    outputs = {value.name for value in graph.output}
    for node in reversed(graph.node):
        following = [n for tensor in node.output for n in readers.get(tensor, ())]
        ahead[node.name] = any(n.op_type in WEIGHTED or ahead[n.name] for n in following)
        direct[node.name] = bool(outputs & set(node.output)) or any(
            n.op_type not in WEIGHTED and direct[n.name] for n in following
        )
        if node.op_type in WEIGHTED:
            if direct[node.name]:
                last.add(node.name)
        elif not ahead[node.name]:
            behind.add(node.name)
    return frozenset(last), frozenset(behind)


def measure(
    network: Network,
    alone: Callable[[Sequence[str]], float | None],
    *,
    late: Callable[[], bool],
    progress: Progress,
) -> tuple[Sensitivity, ...]:
    """Measure every layer, or block of layers; the most sensitive ones come first.

    Args:
        network: The network.
        alone: Returns `snr_db` with these nodes alone quantised, None where that fails.
        late: Whether time is up: what is left is then not measured, and comes last.
        progress: Hears of each block.
    """
    last, behind = head(network)
    size = -(-len(network.layers) // MAX_BLOCKS)
    blocks = [network.layers[i : i + size] for i in range(0, len(network.layers), size)]
    if behind:
        blocks.append(tuple(sorted(behind)))
    found = []
    progress.start("measuring each layer's sensitivity", len(blocks))
    for block in blocks:
        near = bool((last | behind) & set(block))
        found.append(Sensitivity(block, None if late() else alone(block), near))
        progress.advance(1)
    progress.finish()
    return tuple(sorted(found, key=lambda s: np.inf if s.snr_db is None else s.snr_db))


def steps(sensitivities: Sequence[Sensitivity], number: int) -> list[tuple[str, ...]]:
    """Return nodes to leave out, each time more, the most sensitive ones first.

    Args:
        sensitivities: As `measure` returns them; what was not measured is never left out.
        number: How many such sets, at most; the last one holds half of what there is.
    """
    known = [s.layers for s in sensitivities if s.snr_db is not None]
    counts = sorted({round(c) for c in np.geomspace(1, max(len(known) // 2, 1), number)})
    if len(known) < 2:
        return []
    return [tuple(sorted({name for block in known[:c] for name in block})) for c in counts]
