"""``retinue ar apply``: from the command's options to a stream that runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

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
from retinue.apps.ar.settings import MOST_FACES, ArSettings
from retinue.core.errors import InvalidRequest
from retinue.core.settings import Settings, explain, load_settings


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
        KeyboardInterrupt: a file's job was ended; what was written so far is kept.
    """
    _check(job)
    settings = load_settings(job.config)
    watched = filters.Watched(job.worn) if job.worn else None
    worn = watched.filter if watched else None
    with ExitStack() as opened:
        source = opened.enter_context(_source(job, settings))
        ar = _settings(settings, job.overrides, source)
        # Before the models are loaded: what is wrong with them is said at once.
        takers = [opened.enter_context(taker) for taker in _takers(job, source)]
        camera = (
            Camera.read(job.calibration, source.width, source.height) if job.calibration else None
        )
        session = opened.enter_context(
            Session(worn, settings=settings, ar=ar, camera=camera, live=source.is_live)
        )
        try:
            _run(job, source, session, takers, watched)
        except KeyboardInterrupt:
            if not source.is_live:
                raise
        if source.is_image:
            for taker in takers:
                if isinstance(taker, Window):
                    taker.wait()


def _run(
    job: Job,
    source: Source,
    session: Session,
    takers: Sequence[Taker],
    watched: filters.Watched | None,
) -> None:
    # Without a file to write, a video is shown as a player does.
    paced = bool(job.show or job.virtual_camera) and not (job.out or source.is_live)
    frames = stream(source, session, takers, show_debug=job.show_debug, paced=paced)
    faces = 0
    try:
        with _progress(job, source) as progress:
            for frame, done in frames:
                faces = max(faces, len(done.faces))
                progress(frame, done)
                if watched is not None and source.is_live:
                    _reload(session, watched)
    finally:
        # Also of what was done before it was stopped, or failed.
        session.timings.dropped = source.dropped
        _tell(job, {**session.summary(), "faces": faces, "damaged": source.damaged})


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
    if job.out and job.source and _same(job.out, job.source):
        raise InvalidRequest(f"--out is the input itself, {job.out}; name another file")
    if job.device and not job.virtual_camera:
        raise InvalidRequest("--device is the virtual camera's; give --virtual-camera too")


def _same(one: Path, other: Path) -> bool:
    """Tell whether two names are one file, also by a link of either kind."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def _settings(settings: Settings, overrides: Mapping[str, Any], source: Source) -> ArSettings:
    given = {key: value for key, value in overrides.items() if value is not None}
    ar = settings.app("ar", ArSettings)
    most = {"max_faces": MOST_FACES} if source.is_image else {}
    try:
        return ArSettings.model_validate({**most, **ar.model_dump(exclude_unset=True), **given})
    except ValidationError as error:
        raise InvalidRequest(f"option --{explain(error)}") from error


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
        if source.is_image:
            raise InvalidRequest(
                "--virtual-camera is for a video or a camera; a photo is no stream"
            )
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


def _tell(job: Job, found: Mapping[str, Any]) -> None:
    """Say on standard error what came of it: in words, or with ``--json`` as one object."""
    if job.as_json:
        import orjson

        print(orjson.dumps({"summary": found}).decode(), file=sys.stderr)
    elif found["frames"]:
        print("\n".join(_words(found)), file=sys.stderr)


def _words(found: Mapping[str, Any]) -> Iterator[str]:
    stages = dict(found["stages"])
    total = stages.pop("total")
    words = [_count(found["frames"], "frame"), _count(found["faces"], "face")]
    if found["renderer"]:
        words.append(f"drawn by {found['renderer']}")
    if found["damaged"]:
        words.append(f"{found['damaged']} damaged, the one before was shown")
    yield ", ".join(words)
    if found["frames"] == 1:
        yield f"{total['p50']:.1f} ms"
        return
    share = f"{found['in_budget']:.1%} of frames within {found['budget_ms']:g} ms"
    yield (
        f"p50 {total['p50']:.1f} ms, p95 {total['p95']:.1f} ms a frame without decoding and "
        f"encoding; {share}, {found['dropped']} dropped"
    )
    parts = (f"{name} {part['p50']:.1f}/{part['p95']:.1f}" for name, part in stages.items())
    yield f"p50/p95 in ms: {', '.join(parts)}"


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


__all__ = ["Job", "run_job"]
