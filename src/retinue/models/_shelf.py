"""The installed versions on disk: reading them, and putting a finished one in its place."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from retinue import __version__
from retinue.core.errors import ModelCorrupt, StorageError, storage_errors
from retinue.models._disk import clean, move_in, write_whole
from retinue.models.card import NAME, Card
from retinue.models.fetch import sha256_of

VERSION = re.compile(r"[0-9a-f]{12}")
WEIGHTS, CARD, ENTRY = "model.onnx", "card.json", "entry.json"
OWN_FILES = frozenset({WEIGHTS, CARD, ENTRY})

Share = Annotated[float, Field(ge=0, le=1)]


class Lineage(BaseModel):
    """What a version was made from, and how well the two agreed when it was made.

    Attributes:
        parent: The version that it was made from, in full precision.
        agreement: Mean agreement with the parent on images held out, in [0, 1].
        agreement_low: Lower end of its bootstrap interval.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    parent: str = Field(pattern="^[0-9a-f]{12}$")
    agreement: Share
    agreement_low: Share


@dataclass(frozen=True, slots=True)
class Entry:
    """An installed version of a model.

    Attributes:
        card: Its card.
        version: First 12 hex digits of the sha256 of the weights and of what answers depend on in
            the card; of the weights alone where it was installed before there were ledgers.
        path: The ONNX file.
        sha256: Hex digest of the ONNX file.
        size: Bytes of the ONNX file.
        lineage: What it was made from; None when it was pulled or imported.
        installed_at: When, in UTC; not part of what makes two entries equal.
    """

    card: Card
    version: str
    path: Path
    sha256: str
    size: int
    lineage: Lineage | None = None
    installed_at: datetime | None = field(default=None, compare=False)


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
    serving: str = Field("", pattern="^([0-9a-f]{64})?$")
    lineage: Lineage | None = None
    installed_at: AwareDatetime
    retinue: str = __version__

    @property
    def version(self) -> str:
        whole = _sha256(f"{self.sha256}\n{self.serving}") if self.serving else self.sha256
        return whole[:12]


class Shelf:
    """The folder ``models`` of a cache. Holds no state."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Return the names of the models' folders, sorted."""
        with storage_errors(self.root, "listing the models"):
            paths = list(self.root.iterdir()) if self.root.is_dir() else []
        return sorted(p.name for p in paths if NAME.fullmatch(p.name) and p.is_dir())

    def versions(self, name: str) -> list[str]:
        """Return a model's versions, the latest first."""
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
        ages = {version: self._installed_at(name, version) for version in found}
        return sorted(found, key=lambda v: (-ages[v], v))

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
        if card.name != name:
            raise corrupt(name, version, f"{CARD} is of model {card.name}")
        if stored.serving and stored.serving != _sha256(card.serving_key()):
            raise corrupt(name, version, f"{CARD} was changed; import it with the card you want")
        return _entry(card, folder, stored)

    def whole(self, name: str, version: str) -> Entry | None:
        """Return an entry if its weights match their digest."""
        try:
            entry = self.read(name, version)
            verify(entry)
        except ModelCorrupt:
            return None
        return entry

    def adopt(self, entry: Entry, card: Card) -> Entry:
        """Give an installed version the words of a card that serves alike. The lock is held."""
        folder = entry.path.parent
        with storage_errors(folder, "updating the model"):
            if entry.card != card:
                write_whole(folder / CARD, _json(card))
            clean(folder)
            clean(folder.parent)
        return replace(entry, card=card)

    def install(
        self,
        card: Card,
        made: Path,
        lineage: Lineage | None = None,
        reports: Mapping[str, bytes] | None = None,
    ) -> tuple[Entry, bool]:
        """Move a finished ONNX file, alone in a staged folder, to its place. The lock is held.

        Returns:
            The entry, and whether it was not there, or not whole, before.
        """
        parent, reports = self.root / card.name, reports or {}
        with storage_errors(parent, "installing the model"):
            stored = _stored_of(card, made, lineage)
            if lineage is None and self._has_legacy(card, stored):
                stored = stored.model_copy(update={"serving": ""})
            final = parent / stored.version
            present = self.whole(card.name, stored.version)
            if present is None:
                files = {CARD: _json(card).encode(), ENTRY: _json(stored).encode(), **reports}
                for name, content in files.items():
                    (made.parent / name).write_bytes(content)
                move_in(made.parent, final)
                return _entry(card, final, stored), True
            for name, content in reports.items():
                write_whole(final / name, content)
            if lineage not in (None, present.lineage):
                write_whole(final / ENTRY, _json(stored))
                present = replace(present, lineage=lineage)
        return self.adopt(present, card), False

    def _has_legacy(self, card: Card, stored: _Stored) -> bool:
        """Tell whether this version is here, perhaps damaged, under the name of old layouts."""
        version = stored.sha256[:12]
        if not (self.root / card.name / version).is_dir():
            return False
        try:
            return self.read(card.name, version).card.serving_key() == card.serving_key()
        except ModelCorrupt:
            return True

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
        if stored.version != version:
            raise corrupt(name, version, f"{ENTRY} is of another version")
        return stored


def _stored_of(card: Card, made: Path, lineage: Lineage | None) -> _Stored:
    sha256 = sha256_of(made)
    return _Stored(
        sha256=sha256,
        size=made.stat().st_size,
        serving=_sha256(card.serving_key()),
        lineage=lineage,
        installed_at=datetime.now(UTC),
    )


def _entry(card: Card, folder: Path, stored: _Stored) -> Entry:
    return Entry(
        card=card,
        version=folder.name,
        path=folder / WEIGHTS,
        sha256=stored.sha256,
        size=stored.size,
        lineage=stored.lineage,
        installed_at=stored.installed_at.astimezone(UTC),
    )


def corrupt(name: str, version: str, reason: str) -> ModelCorrupt:
    """Return the error for a damaged version."""
    return ModelCorrupt(
        f"model {name} version {version} is damaged: {reason}; "
        f"fetch it again with: retinue models pull {name} (or import or quantize it again, if it "
        "is your own)"
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


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _json(value: BaseModel) -> str:
    return value.model_dump_json(indent=1) + "\n"
