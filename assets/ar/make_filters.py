"""Make the assets of the built-in filters: ``python assets/ar/make_filters.py [FOLDER]``.

Everything is drawn from formulas, so that each file can be made again and changed by its numbers.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import animals
import paints
import props

BUILTIN = Path(__file__).resolve().parents[2] / "src" / "retinue" / "apps" / "ar" / "builtin"
SIMPLE = 0.5
MAKERS: dict[str, Callable[[], bytes]] = {
    "butterfly/butterfly.png": paints.butterfly,
    "cat-eyes/cat.glb": animals.cat,
    "cat-eyes/cat-simple.glb": lambda: animals.cat(SIMPLE),
    "crown/crown.glb": props.crown,
    "crown/crown-simple.glb": lambda: props.crown(SIMPLE),
    "dog/dog.glb": animals.dog,
    "dog/dog-simple.glb": lambda: animals.dog(SIMPLE),
    "dog/dog.png": paints.dog,
    "dog/tongue.glb": animals.dog_tongue,
    "dog/tongue-simple.glb": lambda: animals.dog_tongue(SIMPLE),
    "glasses/glasses.glb": props.glasses,
    "glasses/glasses-simple.glb": lambda: props.glasses(SIMPLE),
    "hearts/heart.png": paints.heart,
    "moustache/moustache.glb": props.moustache,
    "moustache/moustache-simple.glb": lambda: props.moustache(SIMPLE),
    "party-hat/party-hat.glb": props.party_hat,
    "party-hat/party-hat-simple.glb": lambda: props.party_hat(SIMPLE),
    "tiger/tiger.png": paints.tiger,
}
"""By file below the built-in filters' folder, what makes its bytes."""


def files() -> Iterator[tuple[str, bytes]]:
    """Make every asset: its path below the built-in filters' folder, and its bytes."""
    for name, make in MAKERS.items():
        yield name, make()


def main(folder: Path = BUILTIN) -> None:
    """Write them all."""
    for name, data in files():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        print(f"{len(data):7d} {name}")


if __name__ == "__main__":
    main(*(Path(given) for given in sys.argv[1:2]))
