"""``retinue detect``: detections on files, folders and video."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retinue.core.apps import Services
from retinue.core.errors import RetinueError
from retinue.core.protocols import Pipeline

if TYPE_CHECKING:
    from retinue.apps.detect.inputs import Item
    from retinue.core.record import Record

# Items in flight at once: enough to keep every core busy while results are taken in order.
IN_FLIGHT = 16


def detect(
    ctx: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="Photos, folders or video files.")],
    model: Annotated[str, typer.Option(help="Detector; the app's default if left out.")] = "",
    conf: Annotated[
        float | None, typer.Option(min=0, max=1, help="Leave out detections below this score.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the pictures, with boxes drawn, to this folder.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Keep records, as the server does.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="Settings file.")] = None,
) -> None:
    """Find and name the objects in photos and video."""
    from retinue.apps.detect.inputs import expand

    files = expand(paths)
    models = (model,) if model else ()
    opened = ctx.obj("detect", config=config, models=models, record=record)
    code = asyncio.run(_run(opened, files, model, conf, out, as_json))
    if code:
        raise typer.Exit(code)


async def _run(
    opened: AbstractAsyncContextManager[Services],
    files: list[Path],
    model: str,
    conf: float | None,
    out: Path | None,
    as_json: bool,
) -> int:
    """Return the exit code: 0 when all worked, the first failure's own code otherwise."""
    from retinue.apps.detect.answer import answer, choose, failure
    from retinue.apps.detect.inputs import read
    from retinue.apps.detect.output import Printer, drawer

    code = 0
    async with opened as services:
        pipeline, card = choose(services, model)
        bound = services.app_settings("detect").conf if conf is None else conf
        items = read(files, services.limits)
        with Printer(as_json, len(files)) as printer, drawer(out, files, services.limits) as draw:
            async for item, task in _submit_all(services, pipeline, items, bound):
                try:
                    record = await task
                    shown = answer(record, card)
                    await asyncio.to_thread(draw, item, record, card)
                except RetinueError as error:
                    code = code or error.exit_code
                    shown = failure(item.name, error)
                printer.show(item, shown)
    return code


async def _submit_all(
    services: Services, pipeline: Pipeline, items: Iterator[Item], conf: float
) -> AsyncIterator[tuple[Item, asyncio.Task[Record]]]:
    """Yield items in order with the tasks of their records, a bounded number ahead."""
    ahead: deque[tuple[Item, asyncio.Task[Record]]] = deque()
    try:
        while True:
            item = await asyncio.to_thread(next, items, None)
            if item is not None:
                ahead.append((item, asyncio.create_task(_detect(services, pipeline, item, conf))))
            if item is None or len(ahead) >= IN_FLIGHT:
                if not ahead:
                    return
                yield ahead.popleft()
    finally:
        for _, task in ahead:
            task.cancel()


async def _detect(services: Services, pipeline: Pipeline, item: Item, conf: float) -> Record:
    from retinue.apps.detect.answer import decide

    if isinstance(item.content, RetinueError):
        raise item.content
    # A file on the command line waits as long as it takes.
    deadline = float("inf")
    record = await pipeline.submit(item.content, deadline=deadline, app="detect", source=item.name)
    record = decide(record, conf)
    await services.finish(record, item.content if isinstance(item.content, bytes) else None)
    return record
