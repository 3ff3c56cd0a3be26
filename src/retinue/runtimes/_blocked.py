"""Says a graph in words that ONNX Runtime's CPU provider is fast at.

That provider keeps convolutions in blocks of channels (NCHWc) as long as only convolutions, their
sums and plain activations follow each other. A PRelu, or a Pad of channels, breaks the chain, is
slow by itself, and makes it reorder memory before and after. Both can be said by convolutions of
one channel or one pixel, exactly but for rounding. The face mesh takes a third of its time so.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Final

_MOST_BYTES: Final = 64 << 20
"""Larger files are not looked through: their time is in other operators."""
_MARKS: Final = (b'"\x05PRelu', b'"\x03Pad')
"""The operators' names as a node spells them."""


def rewritten(path: Path) -> bytes | None:
    """Return the model in other words, or None where the file is as good as it is.

    What cannot be read as a model is left to the engine, which says what is wrong.
    """
    if not path.is_file() or not 0 < path.stat().st_size <= _MOST_BYTES:
        return None
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if all(content.find(mark) < 0 for mark in _MARKS):
            return None
    # Here, since most models need it not, and importing ONNX takes longer than loading them.
    from retinue.runtimes._rewrite import rewrite

    return rewrite(path)
