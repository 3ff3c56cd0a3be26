"""The registry when its process is killed, raced, or out of disk: real processes, real signals."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from retinue.core.errors import DiskFull, StorageError
from retinue.models.card import Card
from retinue.models.fetch import sha256_of
from retinue.models.registry import Registry
from retinue.testing import onnx_models
from retinue.testing.source_suite import wheel
from retinue.testing.web import Answer, serve

PULL = """
import sys
from pathlib import Path
from retinue.core.errors import RetinueError
from retinue.models.card import Card
from retinue.models.registry import Registry
cache, card = Path(sys.argv[1]), Card.model_validate_json(Path(sys.argv[2]).read_text())
try:
    print(Registry(cache).pull(card).version)
except RetinueError as error:
    print(type(error).__name__, error.message)
"""

# A child is killed at its n-th step on the file system, for every n until it is not killed.
KILLED_EVERYWHERE = """
import os, shutil, signal, sys
from pathlib import Path
from retinue.models.card import Card
from retinue.models.registry import Registry

root = Path(sys.argv[1])
old, new = (Card.model_validate_json((root / n).read_text()) for n in ("old.json", "new.json"))
Registry(root / "start").pull(old)
Registry(root / "warm").pull(new)
armed, steps = False, 0

def hook(event, arguments):
    global armed, steps
    if armed and event.split(".")[0] in ("open", "os", "shutil", "tempfile"):
        steps -= 1
        if steps < 0:
            armed = False
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
for number in range(1000):
    cache = root / "cache"
    shutil.copytree(root / "start", cache)
    child = os.fork()
    if child == 0:
        steps, armed = number, True
        Registry(cache).pull(new)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    registry = Registry(cache)
    assert registry.damaged() == [], registry.damaged()
    for entry in registry.installed():
        registry.verify(entry)
    assert registry.get("tiny").card in (old, new)
    assert old in [entry.card for entry in registry.installed()]
    assert registry.pull(new) == registry.get("tiny")
    assert registry.get("tiny").card == new
    left = [p for p in cache.rglob("*") if ".tmp-" in p.name]
    assert not left, (number, left)
    shutil.rmtree(cache)
    if status == 0:
        print(number)
        break
"""

FULL_DISK = """
mkdir -p "$1" && mount -t tmpfs -o size=512k tmpfs "$1" || exit 99
shift
"$@"
"""


def model_file(path: Path, seed: int, floats: int = 4) -> Path:
    weights = np.random.default_rng(seed).normal(size=floats).astype(np.float32)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    tensor = ("float32", (floats,))
    return onnx_models.save(path, [node], {"x": tensor}, {"y": tensor}, {"w": weights})


def write_card(path: Path, file: Path, url: str, name: str = "") -> Card:
    card = Card.model_validate(
        {
            "name": "tiny",
            "task": "detect",
            "family": "yolo",
            "license": "MIT",
            "source": {"url": url, "files": {name or file.name: sha256_of(file)}},
            "input": {"height": 8, "width": 8},
            "output": {"layout": "yolov8"},
        }
    )
    path.write_text(card.model_dump_json())
    return card


def pulling(cache: Path, card: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PULL, str(cache), str(card)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_that_pull_at_once_share_one_transfer(tmp_path: Path) -> None:
    file = model_file(tmp_path / "m.onnx", 1)
    arrived = threading.Event()

    def slow() -> Answer:
        arrived.set()
        time.sleep(1.0)
        return Answer(file.read_bytes())

    with serve() as site:
        site.pages["/m.onnx"] = slow
        card = write_card(tmp_path / "card.json", file, f"{site.url}/m.onnx")
        processes = [pulling(tmp_path / "cache", tmp_path / "card.json") for _ in range(3)]
        answers = {process.communicate(timeout=60)[0].strip() for process in processes}
        assert len(answers) == 1
        assert site.paths() == ["/m.onnx"]
    (entry,) = Registry(tmp_path / "cache").installed()
    assert entry.card == card
    assert answers == {entry.version}
    Registry(tmp_path / "cache").verify(entry)


def test_threads_that_pull_at_once_share_one_transfer(tmp_path: Path) -> None:
    file = model_file(tmp_path / "m.onnx", 1)
    with serve() as site:
        site.pages["/m.onnx"] = file.read_bytes()
        card = write_card(tmp_path / "card.json", file, f"{site.url}/m.onnx")
        registry, found = Registry(tmp_path / "cache"), []
        threads = [
            threading.Thread(target=lambda: found.append(registry.pull(card))) for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        assert len(set(map(str, found))) == 1
        assert len(site.requests) == 1


def test_killed_in_the_middle_of_a_transfer(tmp_path: Path) -> None:
    file = model_file(tmp_path / "m.onnx", 1, 1_000_000)
    hold = threading.Event()
    with serve() as site:
        site.pages["/m.onnx"] = Answer(file.read_bytes(), cut=3_000_000, hold=hold)
        card = write_card(tmp_path / "card.json", file, f"{site.url}/m.onnx")
        process = pulling(tmp_path / "cache", tmp_path / "card.json")
        partial: list[Path] = []
        limit = time.monotonic() + 60
        while not any(path.stat().st_size for path in partial):
            assert time.monotonic() < limit
            time.sleep(0.01)
            partial = list((tmp_path / "cache").glob("models/tiny/.tmp-*/fetched/*"))
        process.kill()
        process.communicate()
        hold.set()
        registry = Registry(tmp_path / "cache")
        assert registry.installed() == []
        assert registry.damaged() == []
        site.pages["/m.onnx"] = file.read_bytes()
        entry = registry.pull(card)
    registry.verify(entry)
    assert not list((tmp_path / "cache").rglob(".tmp-*"))


def test_killed_at_every_step_leaves_whole_versions_only(tmp_path: Path) -> None:
    for name, seed in (("old", 1), ("new", 2)):
        file = model_file(tmp_path / f"{name}.onnx", seed)
        write_card(tmp_path / f"{name}.json", file, file.as_uri())
    command = [sys.executable, "-c", KILLED_EVERYWHERE, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 20


@pytest.mark.parametrize("source", ["file", "wheel"])
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real small disk where mounting is permitted; elsewhere a real limit on file sizes."""
    file = model_file(tmp_path / "m.onnx", 1, 500_000)
    url = file.as_uri()
    if source == "wheel":
        (tmp_path / "shop").mkdir()
        wheel({"m.onnx": file.read_bytes()}, tmp_path / "shop")
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "shop"))
        url = "wheel:retinue-sample@1.2.3"
    write_card(tmp_path / "card.json", file, url)
    disk = tmp_path / "disk"
    pull = [sys.executable, "-c", PULL + LEFT, str(disk / "cache"), str(tmp_path / "card.json")]
    small = ["unshare", "-Urm", "sh", "-c", FULL_DISK, "sh", str(disk), *pull]
    expected: type[StorageError] = DiskFull
    try:
        done = subprocess.run(small, capture_output=True, text=True, check=False)
        refused = done.returncode in (1, 99) and not done.stdout
    except FileNotFoundError:
        refused = True
    if refused:
        disk.mkdir(exist_ok=True)
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2**19, 2**19))\n"
        pull[2] = limit + pull[2]
        done = subprocess.run(pull, capture_output=True, text=True, check=False)
        expected = StorageError
    said, _, left = done.stdout.strip().partition("\n")
    names = {cls.__name__ for cls in (expected, *expected.__subclasses__())}
    assert said.split()[0] in names, done
    assert json.loads(left) == []


LEFT = """
import json
print(json.dumps([str(p) for p in (cache / "models").glob("[!.]*")]))
"""
