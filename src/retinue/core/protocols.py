"""The six abstractions: Runtime, Model, Index, Pipeline, Observer; App is in `retinue.core.apps`.

There is no seventh without an architecture decision record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, runtime_checkable

# The command line reads the manifests before it knows its command: NumPy would make help slow.
if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from retinue.core.record import Record
    from retinue.core.statistics import Statistics
    from retinue.core.types import Array, Image, Outcome, Prepared, Signal, Tensors, TensorSpec

Precision = Literal["f32", "bf16", "f16"]


@runtime_checkable
class Runtime(Protocol):
    """Executes weights on a device; knows no images. One instance is one session.

    An instance is used by one thread at a time.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` needs, in the model file's order."""
        ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The tensors that `run` returns, in the model file's order."""
        ...

    def run(self, tensors: Tensors) -> dict[str, Array]:
        """Run one batch.

        Raises:
            InvalidTensor: a tensor is missing, unknown, or of the wrong dtype or shape.
            ModelRunFailed: the engine failed.
        """
        ...

    def close(self) -> None:
        """Give back the device's memory. May be called twice."""
        ...


class RuntimeFactory(Protocol):
    """What a runtime plug-in exposes as ``RUNTIME``."""

    def __call__(
        self,
        path: Path,
        *,
        threads: int = 1,
        precision: Precision = "f32",
        device: str = "",
        name: str = "",
    ) -> Runtime:
        """Load a model file.

        Args:
            path: The weights' file, ONNX unless the runtime says otherwise.
            threads: Threads inside one run.
            precision: Arithmetic that is asked for; never less than asked.
            device: Where it is executed: "" for the runtime's default, else what the runtime
                documents, for example "cuda:1", or the URL of a remote server.
            name: The model's name in the registry; a remote server knows it by that.

        Raises:
            ModelCorrupt: the file cannot be parsed.
            ConfigError: the runtime does not offer this precision or device.
            MissingExtra: the engine is not installed.
        """
        ...


@runtime_checkable
class Model(Protocol):
    """Owns pre- and postprocessing; same length and order; each item fails alone."""

    @property
    def name(self) -> str:
        """Name in the registry."""
        ...

    @property
    def version(self) -> str:
        """Version in the registry: the start of its digest."""
        ...

    @property
    def card(self) -> Any:
        """The `retinue.models.card.Card` that it was built by."""
        ...

    @property
    def runtime(self) -> Runtime:
        """What executes the weights."""
        ...

    @property
    def decode_size(self) -> tuple[int, int]:
        """(height, width) in pixels that a decoded image need not exceed by more than 2x."""
        ...

    def preprocess(self, image: Image) -> Prepared:
        """Turn one image into the model's input rows. Raises an `InputError` for a bad one."""
        ...

    def run(self, batch: Sequence[Tensors]) -> list[dict[str, Array]]:
        """Run rows together (each without the batch dimension); same length and order."""
        ...

    def postprocess(self, prepared: Prepared, outputs: Tensors) -> Outcome:
        """Turn one item's output rows into its outcome."""
        ...

    def predict(self, inputs: Sequence[Image]) -> list[Outcome]:
        """Preprocess, run and postprocess; an item's failure is its own outcome's error."""
        ...

    def close(self) -> None:
        """Close the runtime."""
        ...


@runtime_checkable
class TextEncoder(Protocol):
    """Turns texts into unit vectors that an embedding model's vectors are compared with.

    May be used by several threads at once.
    """

    @property
    def name(self) -> str:
        """Name in the registry."""
        ...

    @property
    def version(self) -> str:
        """Version in the registry."""
        ...

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit vector a text, (N, D) float32, in their order.

        Raises:
            InvalidRequest: a text is empty, or nothing of it is known to the vocabulary.
        """
        ...

    def close(self) -> None:
        """Give back its memory. May be called twice."""
        ...


class Index(Protocol):
    """Nearest neighbours over unit vectors, by cosine distance; checked against a brute-force twin.

    Distances are ``1 - cosine``, in [0, 2]. An instance is used by one thread at a time: its owner
    locks.
    """

    @property
    def dim(self) -> int:
        """Length of a vector."""
        ...

    def __len__(self) -> int:
        """Vectors that can be found."""
        ...

    def add(self, ids: NDArray[np.int64], vectors: NDArray[np.float32]) -> None:
        """Add unit vectors (N, D) float32 under ids (N,) >= 0; an id that exists is replaced.

        Raises:
            InvalidTensor: of another shape, not finite, or an id is negative or given twice.
        """
        ...

    def remove(self, ids: NDArray[np.int64]) -> int:
        """Remove ids; return how many existed."""
        ...

    def query(
        self,
        vectors: NDArray[np.float32],
        k: int,
        *,
        among: NDArray[np.int64] | None = None,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Find the nearest neighbours of unit vectors (Q, D) float32.

        Args:
            vectors: What is looked for.
            k: Neighbours of each, at least 1.
            among: The only ids that may be found; None for all.

        Returns:
            Ids (Q, k) and distances (Q, k), nearest first; -1 and inf where fewer exist.

        Raises:
            InvalidTensor: of another shape, not finite, or ``k`` is less than 1.
        """
        ...

    def save(self, path: Path) -> None:
        """Write the index to one file so that a crash leaves the old one or the new one, whole.

        Raises:
            DiskFull, NotWritable, StorageError: it could not be written; the old one is as it was.
        """
        ...


VectorSource: TypeAlias = "Callable[[NDArray[np.int64]], NDArray[np.float32]]"
"""Gives the exact vectors (N, D) of ids (N,), for an index that keeps only codes of them."""


class IndexFactory(Protocol):
    """What an index plug-in exposes as ``INDEX``."""

    def __call__(self, dim: int, *, exact: VectorSource | None = None) -> Index:
        """Make an empty index of vectors of length ``dim``; ``exact`` must know all that is in it.

        Raises:
            ConfigError: the index cannot hold vectors of this length.
            MissingExtra: its library is not installed.
        """
        ...

    def load(self, path: Path, *, exact: VectorSource | None = None) -> Index:
        """Read what `Index.save` wrote.

        Raises:
            IndexCorrupt: it is damaged, or another version wrote it: build it anew.
            NotFound: there is no such file.
        """
        ...


class Pipeline(Protocol):
    """Ordered stages; the only owner of queues, batching, deadlines and drop policy."""

    @property
    def model(self) -> Model:
        """The model that it serves."""
        ...

    @property
    def max_batch(self) -> int:
        """Most items of one run."""
        ...

    @property
    def queue_depth(self) -> int:
        """Items that were accepted and are not being run yet; may be read from any thread."""
        ...

    @property
    def ready(self) -> bool:
        """Whether it takes work: started, warmed up, with a live instance, not draining."""
        ...

    def statistics(self) -> Statistics:
        """Return what it has done since it was started; on the event loop."""
        ...

    async def submit(
        self,
        item: bytes | Image,
        *,
        deadline: float | None = None,
        priority: int = 0,
        app: str = "",
        source: str = "",
        tags: Mapping[str, str] | None = None,
        client: str = "",
        stream: str = "",
    ) -> Record:
        """Carry one item through all stages; a failure is the record's outcome, never raised.

        Args:
            item: An encoded image file, or a decoded image.
            deadline: Seconds on ``time.monotonic()``'s clock; None for the pipeline's default.
            priority: Larger goes first; of the same priority, clients take turns, and of one
                client the earlier deadline goes first.
            app: Name of the app that asks.
            source: Where the input came from.
            tags: Free labels kept on the record.
            client: Who asks; clients share the model fairly.
            stream: Name of the client's stream that the item is a frame of: the latest frame
                wins, a waiting older one of the same stream ends as `Superseded`. "" for none.
        """
        ...

    async def infer(
        self,
        tensors: Tensors,
        *,
        deadline: float | None = None,
        priority: int = 0,
        client: str = "",
    ) -> dict[str, Array]:
        """Run raw tensors, with their batch dimension, through the same queue.

        Raises:
            RetinueError: `InvalidTensor` and whatever stopped it.
        """
        ...


@runtime_checkable
class Observer(Protocol):
    """Reads finished Records; never blocks, slows or breaks a request."""

    def observe(self, record: Record) -> Iterable[Signal]:
        """Take one record in; yield what follows from it, mostly nothing."""
        ...
