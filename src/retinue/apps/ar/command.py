"""``retinue ar``: apply, list, new, check."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

ar_cli = typer.Typer(
    no_args_is_help=True, help="Put filters on faces: photos, video, a camera; make your own."
)


@ar_cli.command("apply")
def apply(
    source: Annotated[
        Path | None, typer.Argument(help="A photo or a video; left out with --camera.")
    ] = None,
    worn: Annotated[
        str, typer.Option("--filter", help="A filter's name, or its folder; none only tracks.")
    ] = "",
    camera: Annotated[int | None, typer.Option(min=0, help="Number of a camera.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write.")] = None,
    show: Annotated[bool, typer.Option("--show", help="Show it in a window.")] = False,
    record: Annotated[
        bool, typer.Option("--record", help="Record a camera, to --out or a file named by time.")
    ] = False,
    virtual_camera: Annotated[
        bool, typer.Option("--virtual-camera", help="Be a camera for other programs.")
    ] = False,
    device: Annotated[
        str, typer.Option(help="Device of the virtual camera, /dev/videoN; else the first.")
    ] = "",
    show_debug: Annotated[
        bool, typer.Option("--debug", help="Draw landmarks, axes, measures and times.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a frame.")] = False,
    max_faces: Annotated[int | None, typer.Option(min=1, max=20)] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="File of the camera's matrix; else a field of view.")
    ] = None,
    fov: Annotated[float | None, typer.Option(help="Vertical field of view in degrees.")] = None,
    renderer: Annotated[str, typer.Option(help="auto, gl or cpu.")] = "",
    config: Annotated[Path | None, typer.Option("--config", help="Settings file.")] = None,
) -> None:
    """Put a filter on the faces of a photo, a video or a camera."""
    from retinue.apps.ar.job import Job, run_job

    run_job(
        Job(
            source=source,
            camera=camera,
            worn=worn,
            out=out,
            show=show,
            record=record,
            virtual_camera=virtual_camera,
            device=device,
            show_debug=show_debug,
            as_json=as_json,
            calibration=calibration,
            config=config,
            overrides={"max_faces": max_faces, "fov": fov, "renderer": renderer or None},
        )
    )


@ar_cli.command("list")
def list_filters(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """List the filters that come with Retinue."""
    from retinue.apps.ar import filters

    for name in filters.names():
        spec = filters.load(name).spec
        if as_json:
            fields = ("name", "title", "summary", "author", "license")
            _print({field: getattr(spec, field) for field in fields})
        else:
            typer.echo(f"{name:18} {spec.summary or spec.title}")


@ar_cli.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and hyphens.")],
    folder: Annotated[Path, typer.Option(help="Where its folder is made.")] = Path(),
) -> None:
    """Make the folder of a new filter: a working template to start from."""
    from retinue.apps.ar import filters

    made = filters.new(name, folder)
    typer.echo(f"made {made}; see it with: retinue ar apply --filter {made} PHOTO --out OUT.jpg")


@ar_cli.command("check")
def check(
    folder: Annotated[Path, typer.Argument(help="A filter's folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Say what is wrong with a filter; nothing is, where this ends with 0."""
    from dataclasses import asdict

    from retinue.apps.ar import filters

    problems = filters.check(folder)
    for problem in problems:
        if as_json:
            _print(asdict(problem))
        else:
            typer.echo(str(problem))
    if any(problem.severity == "error" for problem in problems):
        raise typer.Exit(65)
    if not as_json:
        typer.echo(f"{folder}: a filter that can be used")


def _print(row: dict[str, Any]) -> None:
    import orjson

    sys.stdout.buffer.write(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
    sys.stdout.buffer.flush()
