"""The networks of the app: each is pulled and loaded when it is first needed."""

from __future__ import annotations

from typing import TypeVar

from retinue.apps.ar.settings import ArSettings
from retinue.core.errors import ConfigError
from retinue.core.protocols import Model
from retinue.core.settings import Settings
from retinue.models.blazeface import BlazeFace
from retinue.models.face_mesh import FaceMesh
from retinue.models.loading import load_model
from retinue.models.obtain import obtain
from retinue.models.registry import Registry
from retinue.models.segmentation import Segmenter
from retinue.models.sources.base import Progress

Kind = TypeVar("Kind", BlazeFace, FaceMesh, Segmenter)


class Networks:
    """Loads the models that the app's settings name. For one thread at a time.

    Args:
        settings: Cache, runtime, precision and threads.
        ar: Names of the models.
        progress: Hears of transfers.
    """

    def __init__(
        self, settings: Settings, ar: ArSettings, progress: Progress | None = None
    ) -> None:
        self._settings, self._ar, self._progress = settings, ar, progress
        self._registry = Registry(settings.cache)
        self._loaded: dict[tuple[str, int], Model] = {}

    @property
    def detector(self) -> BlazeFace:
        """Finds faces near the camera."""
        return self._get(self._ar.detector, BlazeFace)

    @property
    def far_detector(self) -> BlazeFace | None:
        """Finds small faces too; None where the settings name none."""
        return self._get(self._ar.far_detector, BlazeFace) if self._ar.far_detector else None

    @property
    def mesh(self) -> FaceMesh:
        """Finds 468 landmarks."""
        return self._get(self._ar.mesh, FaceMesh)

    @property
    def iris_mesh(self) -> FaceMesh:
        """Finds 478 landmarks."""
        return self._get(self._ar.iris_mesh, FaceMesh)

    def twin(self, mesh: FaceMesh) -> FaceMesh | None:
        """Return another instance of a mesh, for a second thread; None if one face is followed."""
        return self._get(mesh.name, FaceMesh, 1) if self._ar.max_faces > 1 else None

    @property
    def segmenter(self) -> Segmenter:
        """Tells people from the background."""
        return self._get(self._ar.segmenter, Segmenter)

    def _get(self, name: str, kind: type[Kind], copy: int = 0) -> Kind:
        if (name, copy) not in self._loaded:
            entry = obtain(self._registry, name, self._progress)
            self._loaded[name, copy] = load_model(entry, self._settings.execution)
        model = self._loaded[name, copy]
        if not isinstance(model, kind):
            wanted = kind.__name__
            raise ConfigError(f"model {name!r} is a {type(model).__name__}, not a {wanted}")
        return model

    def close(self) -> None:
        """Close all models. May be called twice."""
        loaded, self._loaded = list(self._loaded.values()), {}
        for model in loaded:
            model.close()
