"""``retinue search``: index, query, eval, bench, tune, list, duplicates, failures, delete."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from retinue.apps.search.api import Collection
    from retinue.core.settings import Settings

search_cli = typer.Typer(
    no_args_is_help=True, help="Find similar pictures: index a folder or a bucket, and ask."
)

Name = Annotated[str, typer.Option("--collection", "-c", help="Name of the collection.")]
ModelName = Annotated[
    str, typer.Option("--model", help="Embedding model; the collection's first if left out.")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="Settings file.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]
Where = Annotated[str, typer.Option(help='Condition on metadata, as JSON: \'{"price":{"lt":5}}\'.')]


def _open(name: str, model: str, config: Path | None, *, make: bool = False) -> Collection:
    from retinue.apps.search.api import Collection
    from retinue.core.settings import load_settings

    settings: Settings = load_settings(config)
    return Collection.open(name, model=model, settings=settings, make=make)


def _print(row: dict[str, Any]) -> None:
    import orjson

    sys.stdout.buffer.write(orjson.dumps(row) + b"\n")
    sys.stdout.buffer.flush()


@search_cli.command("index")
def index(
    source: Annotated[
        str,
        typer.Argument(
            help="A folder, a pattern in quotes, a zip or tar, a CSV, JSONL or Parquet table of "
            "paths or URLs, a URL, s3://BUCKET/PREFIX."
        ),
    ],
    collection: Name,
    model: ModelName = "",
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove items that vanished from the source.")
    ] = False,
    id_column: Annotated[str, typer.Option(help="A table's column of ids.")] = "",
    path_column: Annotated[str, typer.Option(help="A table's column of paths or URLs.")] = "",
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Let URLs lead to private addresses.")
    ] = False,
    threads: Annotated[int, typer.Option(min=0, max=256, help="0: one a core.")] = 0,
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Embed all pictures of a source and index them; run it again to follow what changed."""
    from retinue.apps.search.indexing import run

    with _open(collection, model, config, make=True) as opened:
        report = run(
            opened,
            source,
            remove=remove,
            id_column=id_column,
            path_column=path_column,
            allow_private=allow_private,
            threads=threads,
            quiet=as_json,
        )
    if as_json:
        _print(report)


@search_cli.command("query")
def query(
    what: Annotated[str, typer.Argument(help="A picture's file, or a text; with --id, an id.")],
    collection: Name,
    k: Annotated[int, typer.Option("-k", help="Results.")] = 20,
    offset: Annotated[int, typer.Option(help="Results before them.")] = 0,
    by_id: Annotated[bool, typer.Option("--id", help="WHAT is an item's id.")] = False,
    by_text: Annotated[
        bool, typer.Option("--text", help="WHAT is a text, even if a file.")
    ] = False,
    box: Annotated[str, typer.Option(help="Region of the picture: x1,y1,x2,y2 in pixels.")] = "",
    like: Annotated[list[str] | None, typer.Option("--and", help="A text to be like too.")] = None,
    unlike: Annotated[list[str] | None, typer.Option("--not", help="A text to be unlike.")] = None,
    where: Where = "",
    rerank: Annotated[bool, typer.Option(help="Run the stages after the index.")] = True,
    dedupe: Annotated[bool, typer.Option(help="Show the best of duplicates only.")] = True,
    deadline_ms: Annotated[
        float, typer.Option(help="Leave out stages that would end later.")
    ] = 10_000.0,
    model: ModelName = "",
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Find the items that are most like a picture, a text or another item."""
    from retinue.apps.search.api import read_picture
    from retinue.apps.search.ask import parse_asked
    from retinue.apps.search.show import print_hits, result

    fields: dict[str, Any] = {
        "k": k,
        "offset": offset,
        "box": box,
        "where": where,
        "rerank": rerank,
        "dedupe": dedupe,
        "deadline_ms": deadline_ms,
    }
    terms = [{"text": text, "weight": 1.0} for text in like or ()]
    terms += [{"text": text, "weight": -1.0} for text in unlike or ()]
    image = b""
    if by_id:
        fields["id"] = what
    elif by_text or not _is_file(what):
        fields["text"] = what
    else:
        image = read_picture(Path(what))
    asked = parse_asked({**fields, "terms": terms}, image)
    with _open(collection, model, config) as opened:
        answer = opened.ask(asked)
    if as_json:
        for hit in answer.hits:
            _print(result(hit, collection))
    else:
        print_hits(answer, collection)


def _is_file(what: str) -> bool:
    try:
        return Path(what).is_file()
    except (OSError, ValueError):
        return False  # a text that is too long, or has what no path may have


@search_cli.command("eval")
def evaluate(
    ground_truth: Annotated[
        Path,
        typer.Option(help="JSONL or CSV: a query (image, text or id) and the ids it should find."),
    ],
    collection: Name,
    k: Annotated[int, typer.Option("-k", help="Results that count.")] = 10,
    rerank: Annotated[bool, typer.Option(help="Run the stages after the index.")] = True,
    model: ModelName = "",
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Measure recall@k, mAP@k and latency against known answers."""
    from retinue.apps.search.evaluate import evaluate as measure
    from retinue.apps.search.evaluate import read_truth

    queries = read_truth(ground_truth)
    with _open(collection, model, config) as opened:
        report = measure(opened, queries, k=k, rerank=rerank)
    _report(report, as_json)


@search_cli.command("bench")
def bench(
    collection: Name,
    queries: Annotated[int, typer.Option(min=10, max=10_000, help="Items to search by.")] = 200,
    k: Annotated[int, typer.Option("-k", help="Results.")] = 10,
    model: ModelName = "",
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Measure the collection's index against an exact search: recall and latency."""
    from retinue.apps.search.evaluate import bench as measure

    with _open(collection, model, config) as opened:
        report = measure(opened, queries=queries, k=k)
    _report(report, as_json)


@search_cli.command("tune")
def tune(
    collection: Name,
    recall: Annotated[
        float,
        typer.Option(
            min=0.0, max=1.0, help="Recall@10 to reach; 0: .98 for pictures and .95 for texts."
        ),
    ] = 0.0,
    latency_ms: Annotated[float, typer.Option(min=0.01, help="p95 that may not be passed.")] = 10.0,
    model: ModelName = "",
    as_json: AsJson = False,
    config: ConfigFile = None,
) -> None:
    """Choose the index's parameters for a recall and a latency, for pictures and for texts."""
    from retinue.apps.search.evaluate import tune as choose

    with _open(collection, model, config) as opened:
        report = choose(opened, recall=recall, latency_ms=latency_ms)
    _report(report, as_json)


@search_cli.command("list")
def list_collections(as_json: AsJson = False, config: ConfigFile = None) -> None:
    """List the collections."""
    from retinue.apps.search.api import open_library
    from retinue.apps.search.show import print_table
    from retinue.core.settings import load_settings

    library = open_library(load_settings(config))
    try:
        rows = [
            {
                "name": one.name,
                "items": one.count,
                "models": [f"{s.model}@{s.version}" for s in library.store.spaces(one)],
                "failures": library.store.count_failures(one),
            }
            for one in library.store.all("")
        ]
    finally:
        library.close()
    if as_json:
        for row in rows:
            _print(row)
    else:
        print_table("Collections", rows)


@search_cli.command("failures")
def failures(collection: Name, config: ConfigFile = None) -> None:
    """List the pictures that could not be indexed, one JSON object a line."""
    with _open(collection, "", config) as opened:
        for one in opened.failures():
            _print({"path": one.path, "error": {"code": one.code, "message": one.message}})


@search_cli.command("delete")
def delete(
    collection: Name,
    ids: Annotated[list[str] | None, typer.Argument(help="Items; none for the whole.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete the whole collection.")] = False,
    config: ConfigFile = None,
) -> None:
    """Delete items, or with --yes the whole collection."""
    from retinue.core.errors import InvalidRequest

    if not ids and not yes:
        raise InvalidRequest("name the ids to delete, or give --yes to delete the collection")
    with _open(collection, "", config) as opened:
        count = opened.delete(*ids) if ids else opened.drop()
    typer.echo(f"{count:,} items deleted")


def _report(report: dict[str, Any], as_json: bool) -> None:
    from retinue.apps.search.show import print_report

    if as_json:
        _print(report)
    else:
        print_report(report)
