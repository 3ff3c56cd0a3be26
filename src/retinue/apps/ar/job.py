"""``retinue ar apply``: from the command's options to a stream that runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from retinue.apps.ar import filters
from retinue.apps.ar.face.camera import Camera
from retinue.apps.ar.media.camera import CameraSource
from retinue.apps.ar.media.frames import Frame, Source
from retinue.apps.ar.media.sink import open_sink
from retinue.apps.ar.media.sources import open_source
from retinue.apps.ar.media.virtual import VirtualCamera
from retinue.apps.ar.media.window import Window
from retinue.apps.ar.run import Taker, as_json, stream
from retinue.apps.ar.session import Applied, Session
from retinue.apps.ar.settings import ArSettings
from retinue.core.errors import InvalidRequest
from retinue.core.settings import Settings, load_settings


@dataclass(frozen=True, slots=True)
class Job:
    """What ``retinue ar apply`` was asked for; see its options."""

    source: Path | None = None
    camera: int | None = None
    worn: str = ""
    out: Path | None = None
    show: bool = False
    record: bool = False
    virtual_camera: bool = False
    device: str = ""
    show_debug: bool = False
    as_json: bool = False
    calibration: Path | None = None
    config: Path | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)


def run_job(job: Job) -> None:
    """Run a job to its end; a key press or Ctrl+C ends a camera's, and keeps what was recorded.

    Raises:
        RetinueError: an option is wrong, or a part of it failed.
    """
    _check(job)
    settings = load_settings(job.config)
    ar = _settings(settings, job.overrides)
    watched = filters.Watched(job.worn) if job.worn else None
    worn = watched.filter if watched else None
    with ExitStack() as opened:
        source = opened.enter_context(_source(job, settings))
        camera = (
            Camera.read(job.calibration, source.width, source.height) if job.calibration else None
        )
        session = opened.enter_context(
            Session(worn, settings=settings, ar=ar, camera=camera, live=source.is_live)
        )
        takers = [opened.enter_context(taker) for taker in _takers(job, source)]
        progress = opened.enter_context(_progress(job, source))
        try:
            for frame, done in stream(source, session, takers, show_debug=job.show_debug):
                progress(frame, done)
                if watched is not None and source.is_live:
                    _reload(session, watched)
        except KeyboardInterrupt:
            if not source.is_live:
                raise
        session.timings.dropped = source.dropped
        _tell(job, session, source)
        for taker in takers:
            if isinstance(taker, Window) and source.is_image:
                taker.wait()


def _reload(session: Session, watched: filters.Watched) -> None:
    """Follow a filter that is being edited; where it is wrong that is said, and the last stays."""
    if not watched.poll():
        return
    if watched.problem:
        print(f"{watched.folder}: {watched.problem}", file=sys.stderr)
    elif watched.filter is not session.worn:
        session.wear(watched.filter)


def _check(job: Job) -> None:
    if (job.source is None) == (job.camera is None):
        raise InvalidRequest("give a photo or a video, or --camera N: one of them")
    if job.record and job.camera is None:
        raise InvalidRequest("--record is for a camera; a file's result goes to --out")
    if not (job.out or job.show or job.record or job.virtual_camera or job.as_json):
        raise InvalidRequest("nothing to do with the result: --out FILE, --show or --json")
    if job.out and job.source and job.out.resolve() == job.source.resolve():
        raise InvalidRequest(f"--out is the input itself, {job.out}; name another file")


def _settings(settings: Settings, overrides: Mapping[str, Any]) -> ArSettings:
    given = {key: value for key, value in overrides.items() if value is not None}
    ar = settings.app("ar", ArSettings)
    return ArSettings.model_validate({**ar.model_dump(), **given})


def _source(job: Job, settings: Settings) -> Source:
    if job.camera is not None:
        return CameraSource(job.camera)
    assert job.source is not None
    return open_source(job.source, settings.limits)


def _takers(job: Job, source: Source) -> Iterator[Any]:
    out = job.out
    if out is None and job.record:
        out = Path(time.strftime("ar-%Y%m%d-%H%M%S.mp4"))
    if out is not None:
        yield open_sink(out, source)
    if job.virtual_camera:
        yield VirtualCamera(source.width, source.height, job.device)
    if job.show:
        yield Window(f"Retinue: {job.worn or 'no filter'}", source.width, source.height)


@contextmanager
def _progress(job: Job, source: Source) -> Iterator[Any]:
    if job.as_json:
        import orjson

        def line(frame: Frame, done: Applied) -> None:
            sys.stdout.buffer.write(orjson.dumps(as_json(frame, done)) + b"\n")
            sys.stdout.buffer.flush()

        yield line
        return
    if source.is_image or not sys.stderr.isatty():
        yield lambda frame, done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(job.worn or "tracking", total=source.frames or None)
        yield lambda frame, done: bar.update(task, completed=frame.index + 1)


def _tell(job: Job, session: Session, source: Source) -> None:
    """Say on standard error what came of it."""
    found = session.summary()
    total = found["stages"].get("total", {"p50": 0.0, "p95": 0.0})
    words = f"{found['frames']} frames, p50 {total['p50']:.1f} ms, p95 {total['p95']:.1f} ms"
    if source.is_live:
        words += (
            f", {found['in_budget']:.1%} in {found['budget_ms']} ms, {found['dropped']} dropped"
        )
    if session.renderer:
        words += f", drawn by {session.renderer}"
    print(words, file=sys.stderr)


__all__ = ["Job", "Taker", "run_job"]
