"""The sixth abstraction: an app's manifest, what the host asks of an app, and what it gives."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

# The command line reads the manifests before it knows its command: NumPy would make help slow.
if TYPE_CHECKING:
    from retinue.core.protocols import Pipeline, TextEncoder
    from retinue.core.record import Record
    from retinue.core.settings import Limits


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class AppRequest:
    """One request to an app's route, after the host has checked size, type and access.

    Attributes:
        body: The uploaded file's bytes; empty where none was sent.
        filename: The name that the client gave it, "" if none.
        query: The query's parameters.
        request_id: Unique; also in the answer's header.
        client: Who asks, as the host knows it: by API key, else by address.
        path: The path's parameters.
        fields: The form's fields that are no files.
        json: The object that was sent as JSON; None where none was.
    """

    body: bytes
    filename: str
    query: Mapping[str, str]
    request_id: str
    client: str = ""
    path: Mapping[str, str] = field(default_factory=_nothing)
    fields: Mapping[str, str] = field(default_factory=_nothing)
    json: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """An answer that is no JSON.

    Attributes:
        body: Its bytes.
        media_type: For example "image/jpeg".
        headers: More headers.
    """

    body: bytes
    media_type: str
    headers: Mapping[str, str] = field(default_factory=_nothing)


class Services(Protocol):
    """What the host gives to apps."""

    @property
    def limits(self) -> Limits:
        """What a decoder may be given."""
        ...

    @property
    def home(self) -> Path:
        """The folder of state; an app keeps its files in one of its own name below it."""
        ...

    @property
    def records_url(self) -> str:
        """The database that records are in: an app may have tables of its own there."""
        ...

    @property
    def blobs_url(self) -> str:
        """Where blobs are kept: an app puts its own below a folder of its own."""
        ...

    def pipeline(self, model: str, *, key: bytes | str = b"") -> Pipeline:
        """Return the pipeline that serves one request, of one version of a model.

        It answers as long as it is referred to, whatever is promoted meanwhile: ask for one at each
        request, and take all that concerns the answer (``model.card``, for example) from it.

        Args:
            model: "NAME" for the version that the aliases give this request, "NAME@VERSION" or
                "NAME@ALIAS" for a loaded version of the caller's choice.
            key: What decides whether a canary answers: the same key gives the same version. By
                custom what the caller gave as ``key``, else its stream, else the input itself.

        Raises:
            ModelNotFound: no such model or version is loaded.
        """
        ...

    def app_settings(self, app: str) -> Any:
        """Return the app's settings: an instance of its manifest's ``settings``."""
        ...

    async def text_encoder(self, model: str) -> TextEncoder:
        """Return a text model, loaded when it is first asked for.

        Raises:
            ModelNotFound: it is neither installed nor in the catalogue.
            RetinueError: it cannot be loaded.
        """
        ...

    def state(self, app: str) -> Any:
        """Return what the app's ``state`` gave when the host started."""
        ...

    async def finish(self, record: Record, body: bytes | None = None) -> bool:
        """Show a record, as the app decided it, to the observers, and keep it.

        Returns:
            Whether the record is durable now; False where sampling, a full queue or a failing
            disk left it out. Never raises for those: a request does not fail for its record.
        """
        ...


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """A pipeline that an app needs.

    Attributes:
        task: What its model must be for, for example "detect".
        setting: The app's setting that names the model served when a request chooses none.
    """

    task: str
    setting: str = "model"


@dataclass(frozen=True, slots=True)
class Route:
    """A route of an app.

    Attributes:
        path: For example "/v1/detect"; "{name}" is a parameter, "{name:path}" one with slashes.
        handler: "module:attribute" of a `RouteHandler`. Of the object that it answers, "_headers"
            are more headers and "_status" is the status, if it is not 200; neither is sent.
        summary: One line for the API's documentation.
        parameters: Query parameters: name to (JSON schema, description).
        response: JSON schema of the answer.
        method: How it is called. Routes may share a path.
        body: "file": a file, as the body or in a form. "json": an object. "any": either, or a form
            of fields (UTF-8, of at most 64 KiB each) with at most one file. "none": nothing.
        schema: JSON schema of the object, or of the form's fields.
        binary: Media type of an answer that is `Content`; "" for JSON.
    """

    path: str
    handler: str
    summary: str
    parameters: Mapping[str, tuple[Mapping[str, Any], str]] = field(default_factory=dict)
    response: Mapping[str, Any] = field(default_factory=dict)
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = "POST"
    body: Literal["file", "json", "any", "none"] = "file"
    schema: Mapping[str, Any] = field(default_factory=dict)
    binary: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """A command of the CLI: "module:attribute" of a function that `typer` can read, or of a
    `typer.Typer` with commands of its own.

    The function takes a `typer.Context` whose ``obj`` is an `OpenServices`.
    """

    name: str
    handler: str


class OpenServices(Protocol):
    """What the host gives to an app's command: services, opened for as long as it needs them."""

    def __call__(
        self, app: str, *, config: Path | None, models: tuple[str, ...], record: bool
    ) -> AbstractAsyncContextManager[Services]:
        """Open services.

        Args:
            app: The app that asks.
            config: A settings file, or None for the default one.
            models: Models to load; empty for the app's own default.
            record: Whether `Services.finish` keeps records.
        """
        ...


@dataclass(frozen=True, slots=True)
class Page:
    """A page of the console: a template and a script in the app's own ``console`` folder.

    Attributes:
        path: Where it is.
        title: In the navigation.
        template: Its HTML.
        script: Its module.
        wasm: Whether it may run WebAssembly of the server's own.
        camera: Whether it may ask for the camera, and play what the person gives it.
    """

    path: str
    title: str
    template: str
    script: str
    wasm: bool = False
    camera: bool = False


@dataclass(frozen=True, slots=True)
class Fact:
    """Something about this machine that a part depends on.

    Attributes:
        name: What it is, for example "OpenGL".
        words: What was found.
        ok: Whether it works; False is no failure where there is another way.
        advice: What to do where it does not.
    """

    name: str
    words: str
    ok: bool = True
    advice: str = ""


@dataclass(frozen=True, slots=True)
class App:
    """A frozen manifest: all that an app adds to the system, named.

    Attributes:
        name: Its key.
        title: As people read it.
        summary: One line.
        settings: "module:attribute" of a pydantic model, the app's table of the settings file.
        doctor: "module:attribute" of a function that returns `Fact`s about this machine, for
            ``retinue doctor``. "": none.
        state: "module:attribute" of a callable that takes `Services` and returns an asynchronous
            context manager: what it gives is `Services.state` as long as the host runs. "": none.
    """

    name: str
    title: str
    summary: str
    settings: str
    pipelines: tuple[PipelineSpec, ...]
    routes: tuple[Route, ...] = ()
    commands: tuple[Command, ...] = ()
    observers: tuple[str, ...] = ()
    pages: tuple[Page, ...] = ()
    state: str = ""
    doctor: str = ""


RouteHandler: TypeAlias = "Callable[[Services, AppRequest], Awaitable[Mapping[str, Any] | Content]]"
