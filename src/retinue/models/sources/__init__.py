"""Sources: where weights are fetched from. One file is one URL scheme."""

from __future__ import annotations

from retinue.core.plugins import Kind

SOURCES = Kind(
    "sources",
    "retinue.models.sources",
    "SOURCE",
    ("archives", "base", "npmrc", "transfer"),
)
