"""Which files of rows a space has, and where they are."""

from __future__ import annotations

from pathlib import Path

from retinue.store.collections import Space


def row_files(space: Space) -> dict[str, tuple[str, int]]:
    """Return the files of rows that a space has: name to element type and width."""
    files = {"image": ("float16", space.image_dim)}
    if space.text_dim:
        files["text"] = ("float16", space.text_dim)
    if space.token_bytes:
        files["tokens"] = ("uint8", space.grid_rows * space.grid_columns * space.token_bytes)
    return files


def rows_path(folder: Path, space: Space, name: str) -> Path:
    """Return where a file of rows is."""
    return folder / f"{space.key}.{name}.rows"
