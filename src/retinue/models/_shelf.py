"""The installed versions on disk: reading them, and putting a finished one in its place."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from retinue import __version__
from retinue.core.errors import ModelCorrupt, StorageError, storage_errors
from retinue.models._disk import clean, move_in, write_whole
from retinue.models.card import NAME, Card
from retinue.models.fetch import sha256_of

VERSION = re.compile(r"[0-9a-f]{12}")
WEIGHTS, CARD, ENTRY, CURRENT = "model.onnx", "card.json", "entry.json", "current"


@dataclass(frozen=True, slots=True)
class Entry:
    """An installed version of a model.

    Attributes:
        card: Its card.
        version: First 12 hex digits of ``sha256``.
        path: The ONNX file.
        sha256: Hex digest of the ONNX file.
        size: Bytes of the ONNX file.
    """

    card: Card
    version: str
    path: Path
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Damage:
    """An installed version whose files are not whole.

    Attributes:
        name: The model.
        version: The version, as its folder is called.
        reason: What is wrong, and what to do.
    """

    name: str
    version: str
    reason: str


class _Stored(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size: int = Field(gt=0)
    installed_at: datetime
    retinue: str = __version__


class Shelf:
    """The folder ``models`` of a cache. Holds no state."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Return the names of the models' folders, sorted."""
        with storage_errors(self.root, "listing the models"):
            found = [path.name for path in self.root.iterdir()] if self.root.is_dir() else []
        return sorted(name for name in found if NAME.fullmatch(name))

    def versions(self, name: str) -> list[str]:
        """Return a model's versions: the current one first, then the latest first."""
        folder = self.root / name
        if not NAME.fullmatch(name) or not folder.is_dir():
            return []
        try:
            with storage_errors(folder, "listing the versions"):
                paths = list(folder.iterdir())
        except StorageError:
            # Another process may have removed the model in this moment.
            if not folder.exists():
                return []
            raise
        found = [p.name for p in paths if VERSION.fullmatch(p.name) and p.is_dir()]
        current = self.current(name)
        ages = {version: self._installed_at(name, version) for version in found}
        return sorted(found, key=lambda v: (v != current, -ages[v], v))

    def all_versions(self) -> Iterator[tuple[str, str]]:
        """Yield the (name, version) of everything installed, in order."""
        for name in self.names():
            for version in self.versions(name):
                yield name, version

    def current(self, name: str) -> str:
        """Return what the pointer to the current version says, "" without one."""
        try:
            return (self.root / name / CURRENT).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""

    def read(self, name: str, version: str) -> Entry:
        """Return an entry without looking at its weights.

        Raises:
            ModelCorrupt: the card or the digest cannot be read.
        """
        folder = self.root / name / version
        stored = self._stored(name, version)
        try:
            card = Card.model_validate_json((folder / CARD).read_bytes())
        except (OSError, ValidationError) as error:
            raise corrupt(name, version, f"{CARD} cannot be read") from error
        return Entry(card, version, folder / WEIGHTS, stored.sha256, stored.size)

    def whole(self, name: str, version: str) -> Entry | None:
        """Return an entry if its weights match their digest."""
        try:
            entry = self.read(name, version)
            verify(entry)
        except ModelCorrupt:
            return None
        return entry

    def adopt(self, entry: Entry, card: Card) -> Entry:
        """Make an installed version current, with the card as it is now. The lock is held."""
        folder = entry.path.parent
        with storage_errors(folder, "updating the model"):
            if entry.card != card:
                write_whole(folder / CARD, _json(card))
            if self.current(card.name) != entry.version:
                write_whole(folder.parent / CURRENT, entry.version + "\n")
            clean(folder)
            clean(folder.parent)
        return Entry(card, entry.version, entry.path, entry.sha256, entry.size)

    def install(self, card: Card, made: Path) -> Entry:
        """Move a finished ONNX file, alone in a staged folder, to its place. The lock is held."""
        parent = self.root / card.name
        with storage_errors(parent, "installing the model"):
            digest, size = sha256_of(made), made.stat().st_size
            version = digest[:12]
            present = self.whole(card.name, version)
            if present is not None:
                return self.adopt(present, card)
            stored = _Stored(sha256=digest, size=size, installed_at=datetime.now(UTC))
            (made.parent / CARD).write_text(_json(card), "utf-8")
            (made.parent / ENTRY).write_text(_json(stored), "utf-8")
            final = parent / version
            move_in(made.parent, final)
            write_whole(parent / CURRENT, version + "\n")
        return Entry(card, version, final / WEIGHTS, digest, size)

    def _installed_at(self, name: str, version: str) -> float:
        try:
            return self._stored(name, version).installed_at.timestamp()
        except ModelCorrupt:
            return 0.0

    def _stored(self, name: str, version: str) -> _Stored:
        file = self.root / name / version / ENTRY
        try:
            stored = _Stored.model_validate_json(file.read_bytes())
        except (OSError, ValidationError) as error:
            raise corrupt(name, version, f"{ENTRY} cannot be read") from error
        if stored.sha256[:12] != version:
            raise corrupt(name, version, f"{ENTRY} is of another version")
        return stored


def corrupt(name: str, version: str, reason: str) -> ModelCorrupt:
    """Return the error for a damaged version."""
    return ModelCorrupt(
        f"model {name} version {version} is damaged: {reason}; "
        f"fetch it again with: retinue models pull {name} (or import it again, if it is your own)"
    )


def check_size(entry: Entry) -> Entry:
    """Return the entry if its weights have the right length.

    Raises:
        ModelCorrupt: they have not, or cannot be read.
    """
    try:
        size = entry.path.stat().st_size
    except OSError as error:
        reason = f"{entry.path.name} cannot be read ({error.strerror})"
        raise corrupt(entry.card.name, entry.version, reason) from error
    if size != entry.size:
        reason = f"{entry.path.name} has {size} bytes, not {entry.size}"
        raise corrupt(entry.card.name, entry.version, reason)
    return entry


def verify(entry: Entry) -> None:
    """Check an entry's weights against their digest, reading them whole.

    Raises:
        ModelCorrupt: they differ, or cannot be read.
    """
    check_size(entry)
    try:
        found = sha256_of(entry.path)
    except OSError as error:
        raise corrupt(entry.card.name, entry.version, str(error)) from error
    if found != entry.sha256:
        reason = f"its weights have sha256 {found}, not {entry.sha256}"
        raise corrupt(entry.card.name, entry.version, reason)


def _json(value: BaseModel) -> str:
    return value.model_dump_json(indent=1) + "\n"
