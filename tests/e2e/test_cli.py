"""The command line as a user runs it: real photos, a real network, a real process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data  # type: ignore[import-untyped]

from retinue.core.settings import Limits
from retinue.media.video import VideoWriter, frames
from retinue.testing.onnx_models import color_detector

from .. import forked

PHOTOS = Path(skimage.data.data_dir)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_cache_dir: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETINUE_CACHE", str(model_cache_dir))
    return tmp_path


def retinue(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = forked.run(*words)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_detects_a_person_and_a_cat(here: Path) -> None:
    shown = lines(
        retinue("detect", PHOTOS / "astronaut.png", PHOTOS / "chelsea.png", "--json").stdout
    )
    assert [Path(s["path"]).name for s in shown] == ["astronaut.png", "chelsea.png"]
    person, cat = shown
    assert set(person) == {
        "path", "width", "height", "model", "model_version", "detections", "timings_ms",
    }  # fmt: skip
    assert (person["width"], person["height"], person["model"]) == (512, 512, "nanodet-g-416")
    best = person["detections"][0]
    assert (best["class"], best["class_id"]) == ("person", 0)
    x1, y1, x2, y2 = best["box"]
    assert 0 <= x1 < 100 and 0 <= y1 < 60 and 300 < x2 <= 512 and 480 < y2 <= 512
    assert cat["detections"][0]["class"] == "cat"
    scores = [d["score"] for s in shown for d in s["detections"]]
    assert all(0.25 <= score <= 1 for score in scores)
    assert {"decode", "preprocess", "queue", "run", "postprocess", "total"} == set(
        cat["timings_ms"]
    )


def test_one_bad_file_fails_alone_and_gives_its_own_exit_code(here: Path) -> None:
    (here / "notes.jpg").write_text("not a photo")
    (here / "empty.jpg").touch()
    paths = [PHOTOS / "chelsea.png", here / "notes.jpg", here / "empty.jpg", here / "nope.jpg"]
    shown = lines(retinue("detect", *paths, "--json", code=65).stdout)
    assert "detections" in shown[0]
    codes = [s["error"]["code"] for s in shown[1:]]
    assert codes == ["unsupported_media", "empty_input", "input_not_found"]
    assert [s["path"] for s in shown] == [str(p) for p in paths]
    retinue("detect", here / "nope.jpg", "--json", code=66)


def test_folders_are_searched_and_pictures_drawn_beside_the_originals(here: Path) -> None:
    (here / "photos" / "cats").mkdir(parents=True)
    shutil.copy(PHOTOS / "chelsea.png", here / "photos" / "cats" / "a.png")
    shutil.copy(PHOTOS / "rocket.jpg", here / "photos" / "b.jpg")
    (here / "photos" / "readme.txt").write_text("not looked at")
    out = retinue("detect", here / "photos", "--out", here / "found").stdout
    assert "cat" in out and "readme" not in out
    found = sorted(p.relative_to(here / "found") for p in (here / "found").rglob("*.jpg"))
    assert found == [Path("b.jpg"), Path("cats/a.png.jpg")]
    (here / "nothing").mkdir()
    assert "no photo or video" in retinue("detect", here / "nothing", code=66).stdout


def test_an_original_is_never_replaced(here: Path) -> None:
    shutil.copy(PHOTOS / "rocket.jpg", here / "b.jpg")
    before = (here / "b.jpg").read_bytes()
    shown = lines(retinue("detect", here / "b.jpg", "--out", here, "--json", code=73).stdout)
    assert shown[0]["error"]["code"] == "not_writable"
    assert (here / "b.jpg").read_bytes() == before


def test_paths_that_go_up_stay_inside_the_output_folder(here: Path) -> None:
    originals = [here / "x" / "a.jpg", here / "w" / "b.jpg", here / "w" / "c.jpg.jpg"]
    for path in originals:
        path.parent.mkdir(exist_ok=True)
        shutil.copy(PHOTOS / "rocket.jpg", path)
    before = originals[0].read_bytes()
    os.chdir(here / "w")
    retinue("detect", "../x/a.jpg", "b.jpg", "--out", "../found")
    found = sorted(str(p.relative_to(here / "found")) for p in (here / "found").rglob("*.jpg"))
    assert found == ["w/b.jpg", "x/a.jpg"]
    # The picture drawn for one photo must not replace another one either.
    shutil.copy(PHOTOS / "chelsea.png", here / "w" / "c.jpg")
    shown = lines(retinue("detect", "c.jpg", "c.jpg.jpg", "--out", ".", "--json", code=73).stdout)
    assert [s["error"]["code"] for s in shown] == ["not_writable"] * 2
    assert all(path.read_bytes() == before for path in originals)


def test_odd_files_are_answered(here: Path) -> None:
    bad = os.fsdecode(b"bad\xff.jpg")
    shutil.copy(PHOTOS / "rocket.jpg", bad)
    shutil.copy(PHOTOS / "rocket.jpg", "two\nlines\x1b[31m.jpg")
    os.mkfifo("pipe.jpg")
    Path("loop").symlink_to(".")
    paths = [bad, bad + ".gone", "pipe.jpg", "/dev/zero", "a" * 5000]
    shown = lines(retinue("detect", *paths, "--record", "--json", code=66).stdout)
    assert shown[0]["path"] == "bad\ufffd.jpg" and "detections" in shown[0]
    assert [s["error"]["code"] for s in shown[1:]] == [
        "input_not_found", "unsupported_media", "unsupported_media", "storage_error",
    ]  # fmt: skip
    text = retinue("detect", ".").stdout
    assert len(text.splitlines()) == 2 and "two\\nlines\\x1b[31m.jpg" in text


@pytest.mark.parametrize("words", [["detect", "rocket.jpg", "--json"], ["models", "list"]])
def test_output_that_cannot_be_written(here: Path, words: list[str]) -> None:
    shutil.copy(PHOTOS / "rocket.jpg", here)
    program = f"{sys.executable} -m retinue {' '.join(words)}"

    def run(redirect: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", program + redirect],
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        return done.returncode, done.stderr

    code, errors = run(" > /dev/full")
    assert (code, errors.count("\n")) == (74, 1) and "No space left" in errors
    assert run(" >&-") == (0, "")
    assert run(" <&- >&- 2>&-") == (0, "")
    assert run(" | true")[1] == ""


def test_an_output_folder_that_cannot_be_made_is_named(here: Path) -> None:
    (here / "file").touch()
    done = retinue("detect", PHOTOS / "rocket.jpg", "--out", here / "file" / "x", code=73)
    assert "making the output folder" in done.stderr and "[not_writable]" in done.stderr


def test_video_frames_in_order_and_drawn(here: Path) -> None:
    with VideoWriter(here / "clip.mp4", 160, 120, 10) as video:
        for level in range(5):
            video.write(np.full((120, 160, 3), 40 * level, np.uint8))
    out = retinue("detect", here / "clip.mp4", "--json", "--out", here / "found").stdout
    shown = lines(out)
    assert [s["frame"] for s in shown] == [0, 1, 2, 3, 4]
    assert all((s["width"], s["height"]) == (160, 120) for s in shown)
    drawn = list(frames(here / "found" / "clip.mp4", Limits()))
    assert len(drawn) == 5
    (here / "clip.mp4").rename(here / "clip.mov")
    retinue("detect", here / "clip.mov", "--out", here / "found")
    assert (here / "found" / "clip.mov.mp4").is_file()


def test_records_are_kept_when_asked_for(here: Path) -> None:
    retinue("detect", PHOTOS / "rocket.jpg")
    home = Path(os.environ["RETINUE_HOME"])
    assert not (home / "records.sqlite3").exists()
    retinue("detect", PHOTOS / "rocket.jpg", "--record")
    assert (home / "records.sqlite3").exists()


def test_own_model_from_import_to_removal(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINUE_CACHE", str(here / "cache"))
    color_detector(here / "colours.onnx")
    (here / "card.toml").write_text(
        'name = "colours"\ntask = "detect"\nfamily = "yolo"\nlicense = "LicenseRef-own"\n'
        'summary = "no [/b] markup"\n'
        'classes = ["red", "green", "blue"]\n[input]\nheight = 64\nwidth = 64\n'
        '[output]\nlayout = "yolov8"\n'
    )
    retinue("models", "import", here / "colours.onnx", "--card", here / "card.toml")
    assert "colours" in retinue("models", "list").stdout
    assert "no [/b] markup" in retinue("models", "show", "colours").stdout
    card = json.loads(retinue("models", "show", "colours", "--json").stdout)
    assert card["installed"] and len(card["sha256"]) == 64
    with VideoWriter(here / "blue.mp4", 64, 64, 5) as video:
        video.write(np.full((64, 64, 3), (0, 0, 255), np.uint8))
    shown = lines(retinue("detect", here / "blue.mp4", "--model", "colours", "--json").stdout)
    assert {d["class"] for d in shown[0]["detections"]} == {"blue"}
    model = Path(card["path"])
    model.write_bytes(model.read_bytes()[:-100])
    broken = retinue("detect", here / "blue.mp4", "--model", "colours", code=70)
    assert "[model_corrupt]" in broken.stderr
    retinue("models", "remove", "colours")
    assert "[model_not_found]" in retinue("models", "remove", "colours", code=66).stderr


def test_wrong_words_are_told_apart(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photo = PHOTOS / "rocket.jpg"
    missing = retinue("detect", photo, "--model", "nanodet-g-417", code=66)
    assert "nanodet-g-416" in missing.stderr
    wrong = retinue("detect", photo, "--model", "efficientnet-lite0", code=64)
    assert "is for classify" in wrong.stderr
    (here / "retinue.toml").write_text("[server]\nprot = 1\n")
    assert "server.prot" in retinue("detect", photo, code=78).stderr
    (here / "retinue.toml").write_text("[apps.detekt]\nconf = 0.3\n")
    assert "[apps.detekt]" in retinue("detect", photo, code=78).stderr
    (here / "retinue.toml").unlink()
    monkeypatch.setenv("RETINUE_MODELS", "not a list")
    assert "must be JSON" in retinue("detect", photo, code=78).stderr


def test_a_cache_that_is_not_writable_is_named(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "file").touch()
    monkeypatch.setenv("RETINUE_CACHE", str(here / "file" / "cache"))
    done = retinue("models", "pull", "nanodet-g-416", code=73)
    assert str(here / "file") in done.stderr


def test_interrupt_stops_at_once(here: Path) -> None:
    (here / "photos").mkdir()
    for i in range(200):
        shutil.copy(PHOTOS / "rocket.jpg", here / "photos" / f"{i:03d}.jpg")
    command = [sys.executable, "-m", "retinue", "detect", "photos", "--json"]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs, these tests among them, with the signal ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert "detections" in json.loads(process.stdout.readline())
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert time.monotonic() - started < 20


def test_help_and_imports_are_light() -> None:
    assert "detect" in retinue("--help").stdout
    code = (
        "import sys; import retinue.host.cli\n"
        "heavy = {'numpy', 'cv2', 'onnxruntime', 'onnx', 'sqlalchemy', 'pydantic', 'starlette'}\n"
        "found = heavy & set(sys.modules); assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
