"""Two models side by side: the report as values, JSON, page and command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from retinue.calibrate.compare import compare
from retinue.calibrate.comparison import Comparison
from retinue.calibrate.samples import open_samples
from retinue.core.errors import InputNotFound, InvalidRequest, ModelNotFound
from retinue.core.settings import Settings, load_settings
from retinue.host.compare_cli import compare as command
from retinue.measure.paired import Interval
from retinue.models.registry import Entry, Registry
from retinue.testing.datasets import squares, write_folder, write_tar, yolo_files
from retinue.testing.versions import install

PICTURES = squares(24)


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RETINUE_HOME", str(tmp_path / "home"))
    return load_settings()


@pytest.fixture
def pair(settings: Settings, tmp_path: Path) -> tuple[Entry, Entry]:
    """The detector of colours, and one that does not see green."""
    registry = Registry(settings.cache)
    seeing = install(registry, tmp_path, name="sees")
    return seeing, install(registry, tmp_path, name="blind", blind_to=(1,))


def run(pair: tuple[Entry, Entry], settings: Settings, data: Path, metric: str = "") -> Comparison:
    samples = open_samples(data, pair[0].card, settings=settings)
    return compare(*pair, samples, settings, metric=metric, seconds=0.1)


def test_a_worse_model_is_told(
    pair: tuple[Entry, Entry], settings: Settings, tmp_path: Path
) -> None:
    files = yolo_files(PICTURES) | {"images/bad.png": b"hello"}
    result = run(pair, settings, write_tar(tmp_path / "d.tar", files))
    assert result.metric == "map"
    assert result.accuracy.a.value > 0.99
    assert result.accuracy.b.value < 0.8
    assert result.mood == "bad"
    assert result.says[0].startswith("B is worse than A by ")
    assert "With 24 pictures the intervals" in " ".join(result.says)
    green = {p.name for p in PICTURES if 1 in p.class_ids}
    assert {Path(name).stem for name, _ in result.worst} == green
    assert [value for _, value in result.worst] == sorted(value for _, value in result.worst)
    assert [name for name, _ in result.unreadable] == ["images/bad.png"]
    assert result.speed.ms["A"].median > 0
    assert result.a.runtime == "onnxruntime"


def test_json_and_page(pair: tuple[Entry, Entry], settings: Settings, tmp_path: Path) -> None:
    files = yolo_files(PICTURES) | {"images/<b>.png": b"hello"}
    result = run(pair, settings, write_folder(tmp_path / "d", files))
    told = json.loads(json.dumps(result.to_dict()))
    assert told["schema"] == "retinue.compare/1"
    assert told["a"]["version"] == pair[0].version
    assert told["accuracy"]["difference"]["value"] < 0
    assert told["data"]["unreadable"][0][0] == "images/<b>.png"
    assert told["machine"]["cores"] >= 1
    page = result.to_html()
    assert f"blind@{pair[1].version}" in page
    assert page.count("data:image/jpeg;base64,") == 2 * len(result.shown) > 0
    assert "images/&lt;b&gt;.png" in page
    assert "<b>.png" not in page
    assert "http" not in page.replace("http://www.w3.org", "").partition("<body")[2]


def test_a_model_and_itself(pair: tuple[Entry, Entry], settings: Settings, tmp_path: Path) -> None:
    result = run((pair[0], pair[0]), settings, write_folder(tmp_path / "d", yolo_files(PICTURES)))
    assert (result.mood, result.worst, result.shown) == ("open", (), ())
    assert result.agreement == Interval(1.0, 1.0, 1.0)
    assert "equally right" in result.says[0]
    assert "fewer than 3 in 24" in result.says[1]
    assert "Where they differ" not in result.to_html()


def test_without_labels(pair: tuple[Entry, Entry], settings: Settings, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "d", {f"{p.name}.png": p.png for p in PICTURES})
    result = run(pair, settings, folder)
    assert (result.metric, result.mood) == ("agreement", "open")
    assert "Without labels nothing can be told" in result.says[1]
    assert result.to_html()


def test_pictures_without_anything_to_find_are_told_apart(
    pair: tuple[Entry, Entry], settings: Settings, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "d", {f"{p.name}.png": p.png for p in PICTURES})
    for number in range(3):
        Image.new("RGB", (64, 64), (number, number, number)).save(folder / f"dark{number}.png")
    result = run(pair, settings, folder)
    assert (result.telling, result.pictures) == (len(PICTURES), len(PICTURES) + 3)
    assert f"of the {len(PICTURES)} pictures in which either finds" in " ".join(result.says)
    for picture in PICTURES:
        (folder / f"{picture.name}.png").unlink()
    result = run(pair, settings, folder)
    assert result.telling == 0
    assert "the agreement tells nothing" in " ".join(result.says)


def test_a_difference_that_cannot_be_told(
    pair: tuple[Entry, Entry], settings: Settings, tmp_path: Path
) -> None:
    result = run(pair, settings, write_folder(tmp_path / "d", yolo_files(PICTURES)))
    open_ = replace(result.accuracy, difference=Interval(-0.001, -0.01, 0.008))
    says = replace(result, accuracy=open_).says
    assert says[0] == (
        "These pictures do not tell whether A or B is better: B is below A by 0.10 points of "
        "mAP@[.50:.95] (95 % interval \N{MINUS SIGN}1.00 to +0.80)."
    )
    assert "less than some 0.90 points" in says[1]


def test_few_pictures_give_no_verdict(
    pair: tuple[Entry, Entry], settings: Settings, tmp_path: Path
) -> None:
    green = next(p for p in PICTURES if 1 in p.class_ids)
    folder = write_folder(tmp_path / "d", yolo_files([green]))
    result = run(pair, settings, folder)
    assert result.accuracy.difference.high < 0
    assert result.mood == "open"
    assert result.says[0].startswith("1 picture cannot tell whether A or B is better: B is below")
    assert "B is worse" not in result.to_html()


def test_models_that_answer_differently(
    pair: tuple[Entry, Entry], settings: Settings, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "d", yolo_files(PICTURES))
    a, b = pair
    task = b.card.model_copy(update={"task": "classify"})
    classes = b.card.model_copy(update={"classes": ("x", "y", "z")})
    for card, words in ((task, "different tasks: detect and classify"), (classes, "classes")):
        with pytest.raises(InvalidRequest, match=words):
            run((a, replace(b, card=card)), settings, folder)


@pytest.fixture
def cli() -> typer.Typer:
    app = typer.Typer()
    app.command()(command)
    return app


def test_the_command(pair: tuple[Entry, Entry], tmp_path: Path, cli: typer.Typer) -> None:
    data = str(write_tar(tmp_path / "d.tar.gz", yolo_files(PICTURES)))
    out = tmp_path / "report"
    refs = ["sees", f"blind@{pair[1].version[:6]}", "--data", data, "--out", str(out)]
    done = CliRunner().invoke(cli, [*refs, "--limit", "10"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "mAP@[.50:.95] 100.00" in " ".join(done.stdout.split())
    assert json.loads((out / "report.json").read_text())["data"]["pictures"] == 10
    assert (out / "report.html").read_text().startswith("<!doctype html>")
    done = CliRunner().invoke(cli, [*refs, "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["data"]["pictures"] == 24


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["sees", "no-such", "--data", "x"], ModelNotFound),
        (["sees", "sees@0000", "--data", "x"], ModelNotFound),
        (["sees", "sees", "--data", "no-such"], InputNotFound),
        (["sees", "sees", "--data", "{data}", "--metric", "top1"], InvalidRequest),
    ],
)
def test_a_wrong_command(
    pair: tuple[Entry, Entry],
    tmp_path: Path,
    cli: typer.Typer,
    arguments: list[str],
    error: type[Exception],
) -> None:
    data = str(write_folder(tmp_path / "d", yolo_files(PICTURES)))
    with pytest.raises(error):
        CliRunner().invoke(cli, [a.format(data=data) for a in arguments], catch_exceptions=False)
