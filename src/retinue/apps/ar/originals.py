"""The networks as their makers published them, for the browser, which runs .tflite files."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from filelock import FileLock

from retinue.core.errors import NotFound, storage_errors
from retinue.models.catalogue import cards
from retinue.models.fetch import fetch

FAMILIES: Final = ("blazeface", "face_mesh", "segmentation")
SUFFIX: Final = ".tflite"


def original(folder: Path, name: str) -> Path:
    """Return the file of a catalogue's model, fetched when it is first asked for.

    Args:
        folder: Where files are kept; made if need be.
        name: Of one of the app's models, for example "face-mesh".

    Raises:
        NotFound: the app has no such model.
        FetchError, ChecksumMismatch: it cannot be had.
        StorageError: the folder cannot be written.
    """
    known = {card.name: card for card in cards().values() if card.family in FAMILIES}
    if name not in known:
        raise NotFound(f"there is no model {name!r} here; there are: {', '.join(sorted(known))}")
    source = known[name].source
    (digest,) = source.files.values()
    path = folder / f"{name}-{digest[:12]}{SUFFIX}"
    if path.exists():
        return path
    with storage_errors(folder, f"keeping {name}"):
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{name}.lock"), tempfile.TemporaryDirectory(dir=folder) as made:
            if not path.exists():
                (fetched,) = fetch(source, Path(made)).values()
                fetched.replace(path)
    return path
