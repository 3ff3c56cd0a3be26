"""The registry: the models that are installed on this machine, ready to be loaded.

On disk, below the cache::

    models/NAME/VERSION/model.onnx     the weights
    models/NAME/VERSION/card.json      the card
    models/NAME/VERSION/entry.json     digest and size of the weights, when it was installed
    models/NAME/current                the version that a bare name means

A version is made in a temporary folder beside it and renamed into place, under a lock for each
model: a crash at any point leaves nothing or a whole version, and of several processes that pull
a model at once, one works and the others take its result.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from retinue.core import plugins
from retinue.core.errors import (
    AccessError,
    InputNotFound,
    ModelCorrupt,
    ModelNotFound,
    UnsupportedModel,
    storage_errors,
)
from retinue.models._disk import locked, staging, tidy
from retinue.models._shelf import CURRENT, WEIGHTS, Damage, Entry, Shelf, check_size, verify
from retinue.models.card import Card, Source
from retinue.models.fetch import Policy, Progress, Quiet, fetch, sha256_of

__all__ = ["Damage", "Entry", "Policy", "Progress", "Registry"]

IMPORTERS = plugins.Kind("importers", "retinue.models.importers", "IMPORTER")

Importer = Callable[[Mapping[str, Path], Path], None]


class Registry:
    """The installed models below one cache folder. Holds no state; safe for threads."""

    def __init__(self, cache: Path, *, policy: Policy | None = None) -> None:
        """Name the cache folder; nothing is read or made yet.

        Args:
            cache: The folder; made by the first pull.
            policy: Bounds of fetches; None for the usual ones.
        """
        self._shelf = Shelf(cache / "models")
        self._policy = policy or Policy()

    def installed(self) -> list[Entry]:
        """Return every installed version, sorted by name, each model's current version first.

        Versions whose weights are damaged are among them; those whose card cannot be read are
        only in `damaged`. No weights are read.
        """
        found: list[Entry] = []
        for name, version in self._shelf.all_versions():
            try:
                found.append(self._shelf.read(name, version))
            except ModelCorrupt:
                continue
        return found

    def damaged(self) -> list[Damage]:
        """Return the versions whose files are missing, cut short or unreadable.

        Changed bytes of the right length are found by `verify` alone.
        """
        found: list[Damage] = []
        for name, version in self._shelf.all_versions():
            try:
                check_size(self._shelf.read(name, version))
            except ModelCorrupt as error:
                found.append(Damage(name, version, error.message))
        return found

    def get(self, name: str, version: str | None = None) -> Entry:
        """Return an installed model: a version, or the current one.

        Raises:
            ModelNotFound: it is not installed.
            ModelCorrupt: its files are missing, cut short or unreadable.
        """
        versions = self._shelf.versions(name)
        if not versions:
            raise ModelNotFound(
                f"model {name!r} is not installed; fetch it with: retinue models pull {name}"
            )
        if version is not None and version not in versions:
            raise ModelNotFound(
                f"model {name!r} has no version {version!r}; installed: {', '.join(versions)}"
            )
        return check_size(self._shelf.read(name, version or versions[0]))

    def verify(self, entry: Entry) -> None:
        """Check an entry's weights against their digest, reading them whole.

        Raises:
            ModelCorrupt: they differ, or cannot be read.
        """
        verify(entry)

    def pull(
        self,
        card: Card,
        *,
        progress: Progress | None = None,
        accept_license: bool = False,
        force: bool = False,
    ) -> Entry:
        """Install a card's model and make it the current version.

        What is installed already, whole and from the same source, is used without any transfer.

        Args:
            card: What to install.
            progress: Hears of the transfer.
            accept_license: Whether the user accepts a licence that binds them.
            force: Fetch and convert again in any case.

        Raises:
            AccessError: the licence binds the user and was not accepted.
            FetchError: the files cannot be fetched, or are not those that the card names.
            ModelError: they cannot be converted, or the result is not valid.
            StorageError: the cache cannot be written.
            ConfigError: the card names no known importer.
        """
        heard = progress or Quiet()
        found = None if force else self._reusable(card)
        if found is not None and found.card == card and self._is_current(found):
            tidy(self._shelf.root / card.name, self._lock_file(card.name))
            return found
        if found is None and card.binding_license and not accept_license:
            at = f" (see {card.homepage})" if card.homepage else ""
            raise AccessError(
                f"model {card.name} is licensed under {card.license}, which binds those who use "
                f"it{at}; if you accept that, pull it with --accept-license"
            )
        with self._lock(card.name, heard):
            # Asked again: another process may have installed it while this one waited.
            found = None if force else self._reusable(card)
            if found is not None:
                return self._shelf.adopt(found, card)
            with staging(self._shelf.root / card.name) as temporary:
                return self._shelf.install(card, self._build(card, temporary, heard))

    def import_onnx(
        self,
        path: Path,
        *,
        name: str | None = None,
        task: str | None = None,
        card: Card | Path | None = None,
    ) -> Entry:
        """Install a copy of the user's own ONNX file and make it the current version.

        Args:
            path: The file.
            name: The model's name; may be left out when the card has it.
            task: "detect", "classify" or "embed"; may be left out when the card has it.
            card: The card, or its TOML file, in which ``name``, ``task`` and ``source`` may be
                left out. None derives it from the file, where the file leaves no doubt.

        Raises:
            InputNotFound: no such file.
            ModelCorrupt: it is not a valid ONNX file.
            UnsupportedModel: its weights are in other files.
            ConfigError: the card is wrong for it, or none can be derived; then the message shows
                a card to fill in.
            ChecksumMismatch: the card names another file.
            StorageError: the cache cannot be written.
        """
        from retinue.models._onnxfile import inspect
        from retinue.models._owncard import own_card

        if not path.is_file():
            raise InputNotFound(f"no model file at {path}")
        facts = inspect(path)
        with storage_errors(path, "reading the model"):
            digest = sha256_of(path)
        # A name that is not text, as some file systems allow, cannot be kept in a card.
        file = path.name.encode("utf-8", "replace").decode("utf-8")
        source = Source(url=path.absolute().as_uri(), files={file: digest})
        whole = own_card(facts, source, name=name, task=task, card=card)
        folder = self._shelf.root / whole.name
        with self._lock(whole.name, Quiet()), staging(folder) as temporary:
            made = _entry_folder(temporary) / WEIGHTS
            with storage_errors(made, "copying the model"):
                shutil.copyfile(path, made)
                if sha256_of(made) != digest:
                    raise ModelCorrupt(f"{path} changed while it was read; import it again")
            return self._shelf.install(whole, made)

    def remove(self, name: str) -> None:
        """Remove all versions of a model.

        Raises:
            ModelNotFound: it is not installed.
            StorageError: its files cannot be removed.
        """
        if not self._shelf.versions(name):
            raise ModelNotFound(f"model {name!r} is not installed; there is nothing to remove")
        folder = self._shelf.root / name
        with (
            self._lock(name, Quiet()),
            staging(folder) as temporary,
            storage_errors(folder, "removing the model"),
        ):
            (folder / CURRENT).unlink(missing_ok=True)
            for version in self._shelf.versions(name):
                (folder / version).rename(temporary / version)

    def _reusable(self, card: Card) -> Entry | None:
        """Return a whole installed version that was made from the card's source."""
        for version in self._shelf.versions(card.name):
            entry = self._shelf.whole(card.name, version)
            if entry is not None and entry.card.source == card.source:
                return entry
        return None

    def _is_current(self, entry: Entry) -> bool:
        return self._shelf.current(entry.card.name) == entry.version

    def _build(self, card: Card, temporary: Path, progress: Progress) -> Path:
        """Fetch and convert; return the ONNX file, checked, alone in its folder."""
        from retinue.models._onnxfile import inspect

        # Looked up before the transfer, so that a wrong name costs none.
        key = card.source.importer
        convert: Importer = plugins.load(IMPORTERS, key) if key else _as_is
        made = _entry_folder(temporary) / WEIGHTS
        fetched = temporary / "fetched"
        with storage_errors(temporary, "making the model's folder"):
            fetched.mkdir()
        files = fetch(card.source, fetched, progress=progress, policy=self._policy)
        progress.start(f"{'converting' if key else 'checking'} {card.name}")
        with storage_errors(made, "writing the model"):
            convert(files, made)
        inspect(made)
        progress.finish()
        return made

    def _lock(self, name: str, progress: Progress) -> AbstractContextManager[None]:
        return locked(self._lock_file(name), f"model {name}", progress)

    def _lock_file(self, name: str) -> Path:
        return self._shelf.root / ".locks" / f"{name}.lock"


def _as_is(files: Mapping[str, Path], out: Path) -> None:
    if len(files) != 1:
        raise UnsupportedModel("a card without an importer must name exactly one ONNX file")
    (file,) = files.values()
    file.replace(out)


def _entry_folder(temporary: Path) -> Path:
    folder = temporary / "entry"
    with storage_errors(folder, "making the model's folder"):
        folder.mkdir()
    return folder
