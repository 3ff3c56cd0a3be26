"""``retinue ar`` as a user runs it: a real photo, real networks, real files."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import skimage.data  # type: ignore[import-untyped]

from .. import forked

PHOTO = Path(skimage.data.data_dir) / "astronaut.png"
FACE = (222.0, 122.0)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ar_cache_dir: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETINUE_CACHE", str(ar_cache_dir))
    return tmp_path


def retinue(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = forked.run(*words)
    assert done.returncode == code, (done.returncode, done.stdout[-2000:], done.stderr)
    assert "Traceback" not in done.stderr
    return done


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def moving(path: Path, count: int = 20, *, faces: bool = True) -> list[int]:
    """Write a video of variable frame rate; return its frames' time stamps in milliseconds."""
    photo = skimage.data.astronaut()
    stamps = [round(33 * n + 10 * (n % 3)) for n in range(count)]
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 480, 360, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        stream.codec_context.max_b_frames = 0
        for number, stamp in enumerate(stamps):
            turn = cv2.getRotationMatrix2D(FACE, 6 * np.sin(number / 4), 1.3)
            turn[:, 2] += (240 + 3 * number - FACE[0], 180 - FACE[1])
            pixels = cv2.warpAffine(photo, turn, (480, 360), borderMode=cv2.BORDER_REPLICATE)
            frame = av.VideoFrame.from_ndarray(pixels if faces else 0 * pixels, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, 1000)
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return stamps


def test_a_filter_on_a_photo(here: Path) -> None:
    said = retinue("ar", "apply", "--filter", "dog", PHOTO, "--out", "out/dog.png")
    assert "1 frame, 1 face, drawn by" in said.stderr
    before = skimage.data.astronaut().astype(int)
    after = cv2.imread("out/dog.png")[:, :, ::-1].astype(int)
    changed = np.abs(before - after).sum(axis=2) > 30
    assert after.shape == before.shape
    # The nose is black now, the ears are where hair was, and far from the head nothing changed.
    assert changed[110:135, 212:238].mean() > 0.4
    assert changed[0:60, 140:310].mean() > 0.2
    assert not changed[300:].any()


def test_the_line_of_a_frame(here: Path) -> None:
    (line,) = lines(retinue("ar", "apply", PHOTO, "--json").stdout)
    assert line["frame"] == 0 and set(line["timings_ms"]) >= {"detect", "mesh", "pose", "total"}
    (face,) = line["faces"]
    points = np.array(face["landmarks"])
    assert points.shape == (468, 3) and face["score"] > 0.9
    assert np.linalg.norm(points[:, :2].mean(axis=0) - FACE) < 15
    assert abs(face["pose"]["yaw"]) < 20 and abs(face["pose"]["roll"]) < 15
    assert face["triggers"]["smile"] > 0.3 and face["triggers"]["blink_left"] < 0.5


def test_a_video_keeps_frames_and_times(here: Path) -> None:
    stamps = moving(here / "in.mp4")
    retinue("ar", "apply", "--filter", "glasses", "in.mp4", "--out", "out.mp4")
    with av.open("out.mp4") as file:
        found = [frame.pts * frame.time_base * 1000 for frame in file.decode(video=0)]
    assert [round(float(stamp - found[0])) for stamp in found] == stamps
    told = retinue("ar", "apply", "in.mp4", "--json")
    rows = lines(told.stdout)
    assert [row["frame"] for row in rows] == list(range(20))
    assert {face["id"] for row in rows for face in row["faces"]} == {1}
    (summary,) = (row["summary"] for row in lines(told.stderr))
    assert (summary["frames"], summary["faces"], summary["dropped"], summary["damaged"]) == (
        20,
        1,
        0,
        0,
    )
    assert 0 <= summary["in_budget"] <= 1
    assert summary["stages"]["total"]["p95"] >= summary["stages"]["mesh"]["p50"] > 0


def test_a_video_without_faces_passes_through(here: Path) -> None:
    moving(here / "in.mp4", 5, faces=False)
    rows = lines(retinue("ar", "apply", "--filter", "crown", "in.mp4", "--json").stdout)
    assert [row["faces"] for row in rows] == [[]] * 5


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_what_is_recorded_when_it_is_ended_can_be_played(here: Path, sent: signal.Signals) -> None:
    moving(here / "in.mp4", 200)
    command = [sys.executable, "-m", "retinue", "ar", "apply", "--filter", "crown", "in.mp4"]
    with subprocess.Popen(
        [*command, "--out", "out.mp4"], stderr=subprocess.PIPE, text=True
    ) as child:
        until = time.monotonic() + 60
        while time.monotonic() < until and child.poll() is None:
            if Path("out.mp4").exists() and Path("out.mp4").stat().st_size > 100_000:
                break
            time.sleep(0.02)
        child.send_signal(sent)
        said = child.communicate(timeout=60)[1]
    assert child.returncode == (130 if sent == signal.SIGINT else -sent)
    assert "Traceback" not in said
    rows = lines(retinue("ar", "apply", "out.mp4", "--json").stdout)
    assert sum("damaged" not in row for row in rows) >= 25


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--filter", "dgo", PHOTO, "--out", "x.png"), 66, "dog"),
        (("--filter", "dog", "nothing.jpg", "--out", "x.png"), 66, "no such file"),
        (("--filter", "dog", PHOTO), 64, "--out"),
        (("--filter", "dog", "--out", "x.png"), 64, "photo or a video"),
        (("--filter", "dog", PHOTO, "--out", "x.gif"), 64, ".gif"),
        (("--filter", "dog", "--camera", "63", "--out", "x.mp4"), 66, "camera 63"),
        (("--filter", "dog", PHOTO, "--camera", "0", "--out", "x.png"), 64, "one of them"),
        (("--filter", "dog", PHOTO, "--record", "--out", "x.png"), 64, "--record"),
        (("--filter", "dog", PHOTO, "--out", "x.png", "--renderer", "ink"), 64, "--renderer"),
        (("--filter", "dog", PHOTO, "--out", "x.png", "--fov", "500"), 64, "--fov"),
        (("--filter", "dog", PHOTO, "--out", "x.png", "--device", "/dev/null"), 64, "--device"),
        (("--filter", "dog", PHOTO, "--virtual-camera"), 64, "no stream"),
        (("--filter", "dog", PHOTO, "--show"), 75, "--show needs"),
        (("--filter", "dog", "empty.jpg", "--out", "x.png"), 65, "zero bytes"),
        (("--filter", "dog", "text.jpg", "--out", "x.png"), 65, "text.jpg"),
    ],
)
def test_bad_input_is_said(
    here: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, said: str
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    Path("empty.jpg").touch()
    Path("text.jpg").write_text("no picture at all")
    done = retinue("ar", "apply", *words, code=code)
    assert said in done.stderr, done.stderr
    assert not list(here.glob("x.*"))


@pytest.mark.parametrize("out", ["photo.png", "./photo.png", "link.png", "hard.png"])
def test_the_input_is_never_overwritten(here: Path, out: str) -> None:
    Path("photo.png").write_bytes(PHOTO.read_bytes())
    Path("link.png").symlink_to("photo.png")
    Path("hard.png").hardlink_to("photo.png")
    done = retinue("ar", "apply", "--filter", "dog", "photo.png", "-o", out, code=64)
    assert "input itself" in done.stderr
    assert Path("photo.png").read_bytes() == PHOTO.read_bytes()


def test_all_faces_of_a_group_photo_are_found(here: Path) -> None:
    face = skimage.data.astronaut()[30:230, 122:322]
    cv2.imwrite("group.png", np.tile(face, (2, 4, 1))[:, :, ::-1])
    (line,) = lines(retinue("ar", "apply", "group.png", "--json").stdout)
    assert len(line["faces"]) > 5
    (line,) = lines(retinue("ar", "apply", "group.png", "--max-faces", "2", "--json").stdout)
    assert len(line["faces"]) == 2


PICTURES = """
import threading

import numpy as np
import skimage.data

from retinue.apps.ar import filters
from retinue.apps.ar.filters import pictures

frame = skimage.data.astronaut()
before = frame.copy()
dog, glasses = filters.load("dog"), filters.load("glasses")
first = dog.apply(frame)
(kept,) = pictures._local.kept.values()
other = glasses.apply(frame)
again = dog.apply(frame)
assert list(pictures._local.kept.values()) == [kept], "the models were loaded anew"
assert np.array_equal(frame, before) and first.shape == frame.shape
assert np.any(first != frame) and np.any(other != first) and np.array_equal(first, again)
found = []
thread = threading.Thread(target=lambda: found.append(dog.apply(frame)))
thread.start()
thread.join()
assert np.array_equal(found[0], first)
"""


def test_pictures_in_python(here: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", PICTURES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_new_filter_works_at_once_and_can_be_checked(here: Path) -> None:
    retinue("ar", "new", "my-mask")
    assert "can be used" in retinue("ar", "check", "my-mask").stdout
    retinue("ar", "apply", "--filter", "./my-mask", PHOTO, "--out", "mine.png")
    file = Path("my-mask/filter.toml")
    file.write_text(file.read_text() + "\n[[parts]]\nkind = 'modle'\n")
    done = retinue("ar", "check", "my-mask", code=65)
    assert "modle" in done.stdout


def test_the_built_in_filters_are_listed(here: Path) -> None:
    names = [row["name"] for row in lines(retinue("ar", "list", "--json").stdout)]
    assert len(names) >= 8
    assert {
        "dog",
        "glasses",
        "crown",
        "lipstick",
        "cat-eyes",
        "background-blur",
        "big-eyes",
    } <= set(names)
