"""What tests of filters' folders share: a small filter that is right."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

HEAD = 'format = 1\nname = "mine"\ntitle = "Mine"\nauthor = "Me"\nlicense = "CC0-1.0"\n'
PAINT = '[[parts]]\nkind = "paint"\nfile = "paint.png"\n'


def png(path: Path, side: int = 8, mode: str = "RGBA") -> None:
    Image.new(mode, (side, side), "red").save(path)


def make(tmp_path: Path, parts: str = PAINT, head: str = HEAD) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir(exist_ok=True)
    (folder / "filter.toml").write_text(head + parts)
    png(folder / "paint.png")
    return folder
