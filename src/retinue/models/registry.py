"""The registry: the models that are installed on this machine, ready to be loaded.

On disk, below the cache::

    models/NAME/VERSION/model.onnx     the weights
    models/NAME/VERSION/card.json      the card
    models/NAME/VERSION/entry.json     digest and size of the weights, lineage, when installed
    models/NAME/ledger.jsonl           what the aliases name, and ever named

A version is made in a temporary folder beside it and renamed into place, under a lock for each
model: a crash at any point leaves nothing or a whole version, and of several processes that pull
a model at once, one works and the others take its result. The ledger has a lock of its own, so
that no rollback waits for a transfer.

A version never changes. A bare name means the version that alias "prod" names. A pull or an import
moves "prod" to its version until someone has chosen one by promotion or rollback; then only people
(and the live guard) move it. A version that was made from another never becomes "prod" by itself.
Without "prod", as in caches from before there were ledgers, a bare name means what the old pointer
``models/NAME/current`` says, else the latest version that was not made from another.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path, PurePath

from retinue.core import plugins
from retinue.core.errors import (
    AccessError,
    InputNotFound,
    InvalidRequest,
    ModelCorrupt,
    UnsupportedModel,
    storage_errors,
)
from retinue.models._disk import locked, staging, tidy, workspace
from retinue.models._life import CURRENT, Installed, to_prod
from retinue.models._refs import not_installed, split_ref
from retinue.models._shelf import OWN_FILES, WEIGHTS, Damage, Entry, Lineage
from retinue.models.card import Card, Source
from retinue.models.fetch import Policy, Progress, Quiet, fetch, sha256_of
from retinue.models.ledger import PROD, Event, Ledger, Standing, Target

__all__ = [
    "Damage",
    "Entry",
    "Event",
    "Ledger",
    "Lineage",
    "Policy",
    "Progress",
    "Registry",
    "Target",
    "split_ref",
]

IMPORTERS = plugins.Kind("importers", "retinue.models.importers", "IMPORTER")

Importer = Callable[[Mapping[str, Path], Path], None]


class Registry(Installed):
    """The installed models below one cache folder. Holds no state; safe for threads."""

    def __init__(self, cache: Path, *, policy: Policy | None = None) -> None:
        """Name the cache folder; nothing is read or made yet.

        Args:
            cache: The folder; made by the first pull.
            policy: Bounds of fetches; None for the usual ones.
        """
        super().__init__(cache)
        self._policy = policy or Policy()

    def pull(
        self,
        card: Card,
        *,
        progress: Progress | None = None,
        accept_license: bool = False,
        force: bool = False,
    ) -> Entry:
        """Install a card's model; it goes into production unless someone chose what is there.

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
        if found is not None and found.card == card and not self._would_move(found):
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
            if found is not None and found.card.serving_key() == card.serving_key():
                return self._arrived(self._shelf.adopt(found, card), new=False)
            with staging(self._shelf.root / card.name) as temporary:
                made = (
                    self._build(card, temporary, heard)
                    if found is None
                    else _copy(found.path, found.sha256, temporary)
                )
                return self._arrived(*self._shelf.install(card, made))

    def import_onnx(
        self,
        path: Path,
        *,
        name: str | None = None,
        task: str | None = None,
        card: Card | Path | None = None,
    ) -> Entry:
        """Install a copy of the user's own ONNX file; as `pull`, it goes into production.

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
            made = _copy(path, digest, temporary)
            return self._arrived(*self._shelf.install(whole, made))

    def workspace(self, name: str) -> AbstractContextManager[Path]:
        """Make a folder to work in, on the disk of the models; it is gone afterwards.

        Raises:
            StorageError: it cannot be made.
        """
        return workspace(self._shelf.root / f".work-{name}")

    def derive(
        self,
        parent: Entry,
        made: Path,
        card: Card,
        lineage: Lineage,
        reports: Mapping[str, bytes] | None = None,
    ) -> Entry:
        """Install a version that was made from another; no alias names it.

        Args:
            parent: What it was made from.
            made: Its ONNX file, which is moved; best in a `workspace`.
            card: Its card, of the parent's name.
            lineage: How it relates to the parent.
            reports: Name of a file to its content; they are put beside the weights.

        Raises:
            InvalidRequest: name, lineage or a report's name is not as it must be, or it is the
                parent itself.
            ModelNotFound: the parent is not installed.
            ModelCorrupt, UnsupportedModel: ``made`` is not a valid ONNX file in one piece.
            StorageError: the cache cannot be written.
        """
        from retinue.models._onnxfile import inspect

        name, reports = parent.card.name, reports or {}
        if card.name != name or lineage.parent != parent.version:
            raise InvalidRequest(f"a version made from {name} {parent.version} must say so")
        for file in reports:
            if not file or PurePath(file).name != file or file[0] == "." or file in OWN_FILES:
                raise InvalidRequest(f"a report cannot be called {file[:64]!r}")
        self.get(name, parent.version)
        inspect(made)
        if sha256_of(made) == parent.sha256 and card.serving_key() == parent.card.serving_key():
            raise InvalidRequest(f"it is {name} {parent.version} itself, not another version")
        with self._lock(name, Quiet()), staging(self._shelf.root / name) as temporary:
            with self.ledger(name).changing() as writer:
                self._pin(name, writer)
            staged = _entry_folder(temporary) / WEIGHTS
            with storage_errors(staged, "moving the model"):
                shutil.move(made, staged)
            return self._arrived(*self._shelf.install(card, staged, lineage, reports))

    def remove(
        self, name: str, ref: str | None = None, *, force: bool = False, actor: str = ""
    ) -> str:
        """Remove one version of a model, or all; the ledger stays.

        Args:
            name: The model.
            ref: The version, as in `get`; None for all, with all aliases.
            force: Remove a version that an alias names too, and the alias.
            actor: By whom; "" for the system's user.

        Returns:
            The version that was removed; "" for all.

        Raises:
            ModelNotFound: it is not installed.
            InvalidRequest: an alias names it, or names a version that was made from it and is
                watched by it.
            StorageError: its files cannot be removed.
        """
        if not self._shelf.versions(name):
            raise not_installed(name)
        folder = self._shelf.root / name
        with (
            self._lock(name, Quiet()),
            staging(folder) as temporary,
            self.ledger(name).changing() as writer,
        ):
            aliases = writer.standing.aliases
            every = self._shelf.versions(name)
            gone = every if ref is None else [self._version(name, ref, aliases)]
            if ref is not None and not force:
                self._check_unused(name, gone[0], writer.standing)
            dropped = {a: None for a, t in aliases.items() if ref is None or t.version in gone}
            # First the aliases: none may name, at any moment, what is not here.
            version = "" if ref is None else gone[0]
            writer.write("remove", dropped, actor=actor, version=version)
            with storage_errors(folder, "removing the model"):
                if ref is None:
                    (folder / CURRENT).unlink(missing_ok=True)
                for one in gone:
                    (folder / one).rename(temporary / one)
        return version

    def _check_unused(self, name: str, version: str, standing: Standing) -> None:
        """Check that no alias names a version or what was made from it."""
        children = {
            entry.version
            for entry in self.versions(name)
            if entry.lineage is not None and entry.lineage.parent == version
        }
        # While no line of the ledger says so, the bare name means one all the same.
        meant = {PROD: Target(bare)} if (bare := self._bare(name)) else {}
        for alias, target in sorted((meant | dict(standing.aliases)).items()):
            if target.version == version or target.version in children:
                how = "is" if target.version == version else f"watches {target.version}, which is"
                raise InvalidRequest(
                    f"{version} {how} {alias!r} of model {name}; move that first, or remove it "
                    "all the same with --force"
                )

    def _reusable(self, card: Card) -> Entry | None:
        """Return a whole installed version from the card's source, best one that serves alike."""
        found = [
            entry
            for version in self._shelf.versions(card.name)
            if (entry := self._shelf.whole(card.name, version)) is not None
            and entry.lineage is None
            and entry.card.source == card.source
        ]
        key = card.serving_key()
        return min(found, key=lambda entry: entry.card.serving_key() != key, default=None)

    def _would_move(self, entry: Entry) -> bool:
        """Tell whether the arrival of this version moves what the bare name means."""
        name, standing = entry.card.name, self.ledger(entry.card.name).standing()
        if entry.lineage is not None or standing.held:
            return False
        prod = standing.aliases.get(PROD)
        return entry.version != (prod.version if prod else self._bare(name))

    def _arrived(self, entry: Entry, new: bool) -> Entry:
        """Write down that a version was installed. The model's lock is held."""
        name = entry.card.name
        with self.ledger(name).changing() as writer:
            changes: dict[str, Target | None] = {}
            if entry.lineage is None and not writer.standing.held:
                self._pin(name, writer, entry.version)
                prod = writer.standing.aliases.get(PROD)
                if prod is None or prod.version != entry.version:
                    changes = to_prod(writer.standing, entry.version)
            if new or changes:
                writer.write("install", changes, version=entry.version)
        return entry

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


def _copy(path: Path, digest: str, temporary: Path) -> Path:
    """Copy weights to a staged folder; the digest is that of the bytes expected."""
    made = _entry_folder(temporary) / WEIGHTS
    with storage_errors(made, "copying the model"):
        shutil.copyfile(path, made)
        if sha256_of(made) != digest:
            raise ModelCorrupt(f"{path} changed while it was read; try again")
    return made


def _entry_folder(temporary: Path) -> Path:
    folder = temporary / "entry"
    with storage_errors(folder, "making the model's folder"):
        folder.mkdir()
    return folder
