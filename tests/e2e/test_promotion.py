"""Promotion as users do it: the program, several at once, killed at any moment, on a full disk."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retinue.models.registry import Entry, Registry
from retinue.testing.versions import NAME, derive, install

from .. import forked

KILLS = 60
# Moves prod between two versions without end; says when it begins.
MOVING = """
import sys
from pathlib import Path
from retinue.models.registry import Registry
registry = Registry(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    for version in sys.argv[2:]:
        registry.promote("colors", version)
"""
# Forked from one process, children cost no start of Python each.
KILLED = """
import os, random, signal, sys, time
from pathlib import Path
from retinue.models.registry import Registry
registry, dice = Registry(Path(sys.argv[1])), random.Random(1)
versions, ledger, count = sys.argv[3:], registry.ledger("colors"), 0
for number in range(int(sys.argv[2])):
    child = os.fork()
    if child == 0:
        while True:
            for version in versions:
                registry.promote("colors", version, reason="x" * 500)
    # A slow machine's child may not have begun by then: of four, three are waited for.
    late = time.monotonic() + 5 * (number % 4 > 0)
    while len(ledger.events()) <= count and time.monotonic() < late:
        time.sleep(0.001)
    time.sleep(dice.uniform(0.0, 0.03))
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    events = ledger.events()
    assert len(events) >= count
    assert registry.get("colors").version in versions
    chosen = versions[number % 2]
    registry.promote("colors", chosen, expect=dict(ledger.aliases()))
    assert registry.get("colors").version == chosen
    count = len(events) + 1
    assert len(ledger.events()) == count
print(count)
"""
# Promotes only what it saw: of several at once, each step is one process's.
RACING = """
import sys
from pathlib import Path
from retinue.core.errors import Conflict
from retinue.models.registry import Registry
registry, lost = Registry(Path(sys.argv[1])), 0
for number in range(20):
    seen = registry.ledger("colors").aliases().get("prod")
    try:
        registry.promote("colors", sys.argv[2], actor=sys.argv[3], expect={"prod": seen})
    except Conflict:
        lost += 1
print(lost)
"""
# A real limit on file sizes: the line that crosses it fails in the middle.
FULL = """
import resource, sys
from pathlib import Path
from retinue.core.errors import StorageError
from retinue.models.registry import Registry
registry = Registry(Path(sys.argv[1]))
size = registry.ledger("colors").path.stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
try:
    registry.promote("colors", sys.argv[2])
except StorageError as error:
    print(error.message)
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETINUE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path / "cache"


@pytest.fixture
def entries(cache: Path, tmp_path: Path) -> tuple[Entry, Entry]:
    registry = Registry(cache)
    return install(registry, tmp_path, 16), install(registry, tmp_path, 32)


def python(program: str, *words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def models(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = forked.run("models", *words)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    return done


def test_a_versions_life_on_the_command_line(cache: Path, entries: tuple[Entry, Entry]) -> None:
    first, second = (entry.version for entry in entries)
    said = models("promote", NAME, first[:6], "--reason", "[bold]proven").stdout
    assert said == f"{NAME}: prod is {first} (it was {second})\n"
    assert models("alias", NAME, "canary:12.5", second).stdout.endswith(
        "for 12.5% of the requests\n"
    )
    shown = json.loads(models("versions", NAME, "--json").stdout)
    assert [(row["version"], row["aliases"]) for row in shown] == [
        (first, {"prod": 1.0}),
        (second, {"canary": 0.125}),
    ]
    assert "canary:12.5" in models("versions", NAME).stdout
    assert json.loads(models("show", f"{NAME}@canary", "--json").stdout)["version"] == second
    assert "'canary'" in models("remove", NAME, second, code=64).stderr
    models("promote", NAME, "canary")
    models("rollback", NAME, "--reason", "slow")
    events = json.loads(models("history", NAME, "--json").stdout)
    assert [event["action"] for event in events[2:]] == ["promote", "alias", "promote", "rollback"]
    assert events[4]["changes"]["canary"] is None
    assert events == json.loads(models("history", NAME, "--json").stdout)
    text = models("history", NAME).stdout
    assert "[bold]proven" in text
    assert f"prod: {second}" in text
    models("remove", NAME, second)
    assert second not in models("versions", NAME).stdout


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("promote", NAME, "0000"), 66, "no version or alias '0000'; installed: "),
        (("promote", "nothing", "0000"), 66, "not installed"),
        (("rollback", NAME, "--to", "prod"), 64, "in production already"),
        (("alias", NAME, "canary", "prod"), 64, "as canary:10"),
        (("alias", NAME, "canary:0", "prod"), 64, "above 0 and at most 100"),
        (("alias", NAME, "canary:nan", "prod"), 64, "above 0 and at most 100"),
        (("alias", NAME, "shadow", "prod"), 64, "is in production"),
        (("alias", NAME, "mine"), 64, "name the version"),
        (("alias", NAME, "dead", "prod"), 64, "cannot be an alias"),
        (("alias", NAME, "mine", "--remove"), 66, "no alias"),
        (("history", "nothing"), 66, "no history"),
        (("versions", "nothing"), 66, "no whole version"),
        (("show", f"{NAME}@shadow"), 66, "no version or alias 'shadow'"),
        (("remove", NAME, "prod"), 64, "--force"),
    ],
)
def test_what_is_refused_says_why_and_changes_nothing(
    cache: Path, entries: tuple[Entry, Entry], words: tuple[str, ...], code: int, says: str
) -> None:
    before = Registry(cache).ledger(NAME).path.read_bytes()
    assert says in models(*words, code=code).stderr
    assert Registry(cache).ledger(NAME).path.read_bytes() == before


def test_a_version_that_does_not_run_is_not_promoted(
    cache: Path, entries: tuple[Entry, Entry]
) -> None:
    from retinue.models.card import RunWith

    run_with = RunWith(runtime="onnxruntime", precision="bf16")
    made = derive(Registry(cache), entries[1], run_with=run_with)
    for words in (("promote", NAME), ("alias", NAME, "canary:5"), ("alias", NAME, "shadow")):
        assert "bf16" in models(*words, made.version, code=78).stderr
    assert Registry(cache).get(NAME) == entries[1]
    models("promote", NAME, made.version, "--no-check")
    damaged = bytearray(entries[0].path.read_bytes())
    damaged[-1] ^= 1
    entries[0].path.write_bytes(damaged)
    for check in ((), ("--no-check",)):
        assert "sha256" in models("promote", NAME, entries[0].version, *check, code=70).stderr


def test_a_chosen_version_stays_when_another_is_imported(
    cache: Path, entries: tuple[Entry, Entry], tmp_path: Path
) -> None:
    models("promote", NAME, entries[0].version)
    card = tmp_path / "card.toml"
    card.write_text(
        'family = "yolo"\nlicense = "MIT"\nclasses = ["red", "green", "blue"]\n'
        '[input]\nheight = 64\nwidth = 64\n[output]\nlayout = "yolov8"\nnms_iou = 0.5\n'
    )
    words = ("import", str(tmp_path / "32.onnx"), "--name", NAME, "--task", "detect")
    done = models(*words, "--card", str(card))
    assert f"prod stays at {entries[0].version}" in done.stderr
    assert f"retinue models promote {NAME} " in done.stderr


def test_processes_that_promote_at_once(cache: Path, entries: tuple[Entry, Entry]) -> None:
    racers = [
        python(RACING, cache, entry.version, f"racer{number}")
        for number, entry in enumerate(entries * 2)
    ]
    lost = sum(int(racer.communicate(timeout=60)[0]) for racer in racers)
    events = Registry(cache).ledger(NAME).events()
    assert len(events) == 2 + 80 - lost
    assert all(racer.returncode == 0 for racer in racers)


def test_killed_at_any_moment_of_a_promotion(cache: Path, entries: tuple[Entry, Entry]) -> None:
    versions = [entry.version for entry in entries]
    killing = python(KILLED, cache, KILLS, *versions)
    said, _ = killing.communicate(timeout=120)
    assert killing.returncode == 0
    # Each kill is followed by a promotion that works; most come after some that worked too.
    assert int(said) > 2 * KILLS


def test_readers_need_no_lock_and_see_whole_lines(
    cache: Path, entries: tuple[Entry, Entry]
) -> None:
    ledger = Registry(cache).ledger(NAME)
    mover = python(MOVING, cache, *(entry.version for entry in entries))
    try:
        assert mover.stdout is not None
        assert mover.stdout.readline() == "ready\n"
        count, end = 0, time.monotonic() + 1.0
        while time.monotonic() < end:
            events = ledger.events()
            assert len(events) >= count
            count = len(events)
        assert count > 2
    finally:
        mover.kill()
        mover.communicate()


def test_a_disk_that_fills_in_the_middle_of_a_line(
    cache: Path, entries: tuple[Entry, Entry]
) -> None:
    ledger = Registry(cache).ledger(NAME)
    before = ledger.path.read_bytes()
    said, _ = python(FULL, cache, entries[0].version).communicate(timeout=60)
    assert "writing the ledger" in said
    assert ledger.path.read_bytes() == before
    assert Registry(cache).get(NAME) == entries[1]
    Registry(cache).promote(NAME, entries[0].version)
    assert Registry(cache).get(NAME) == entries[0]
