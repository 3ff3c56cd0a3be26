"""The pieces of a report page, and that it is safe and needs nothing else."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from jinja2 import ChoiceLoader, DictLoader, FileSystemLoader, UndefinedError
from PIL import Image

from retinue.calibrate import report
from retinue.calibrate.report import Bar, Picture, Scale, jpeg_uri, number, render, size
from retinue.calibrate.speed import Timing
from retinue.measure.paired import Interval

NASTY = "<script>alert('x')</script>\" onload=\"x"
PAGE = """{% extends "base.html" %}
{% import "parts.html" as parts %}
{% block title %}{{ name }}{% endblock %}
{% block lead %}{{ name }}{% endblock %}
{% block main %}
{{ parts.verdict("good", name, name) }}
{{ parts.verdict("bad", "no") }}{{ parts.verdict("open", "?") }}
{{ parts.tiles([(name, name), ("1", "two", "bad")]) }}
{% call parts.section(name, name) %}
{{ parts.intervals(bars, name, heading=name, bound=-0.5, bound_label=name, zero=true, sign=true) }}
{{ parts.intervals([]) }}
{{ parts.speeds(bars) }}
{{ parts.table([name, "b"], [[name, 2], ["c", name]], numeric=[1], moods=["good", ""]) }}
{{ parts.pictures(pictures) }}
{{ parts.facts([(name, name)]) }}
{{ parts.notes([name]) }}
{% endcall %}
{% endblock %}"""
VOID = {"meta", "img", "link", "br"}


class Reader(HTMLParser):
    """Checks that elements nest, and collects them."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> str:
    loader = ChoiceLoader([DictLoader({"page.html": PAGE}), FileSystemLoader(report.TEMPLATES)])
    monkeypatch.setattr(report._environment(), "loader", loader)
    bars = [Bar(NASTY, -0.2, -0.9, 0.4, NASTY, "open"), Bar("none", np.nan, np.nan, np.nan)]
    uri = jpeg_uri(np.zeros((4, 6, 3), np.uint8))
    pictures = [Picture(NASTY, NASTY, [(NASTY, uri), ("b", uri)])]
    return render("page.html", name=NASTY, bars=bars, pictures=pictures)


def test_whole_and_nothing_gets_out_of_its_place(page: str) -> None:
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    assert not {tag for tag, _ in reader.tags} & {"script", "link", "iframe", "object", "base"}
    assert not any(name.startswith("on") for _, attrs in reader.tags for name in attrs)
    assert reader.text.count(NASTY) > 12
    assert "\N{MINUS SIGN}0.20" in reader.text
    assert "allowed" not in reader.text


def test_nothing_is_loaded_from_anywhere(page: str) -> None:
    assert "default-src 'none'" in page
    assert "//" not in re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", page)
    assert "url(" not in page and "@import" not in page


def test_what_a_template_misses_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        report._environment().from_string("{{ nothing }}").render()


def test_every_template_can_be_parsed() -> None:
    environment = report._environment()
    for file in report.TEMPLATES.glob("*.html"):
        environment.get_template(file.name)


def test_pictures_become_small() -> None:
    uri = jpeg_uri(np.full((300, 900, 3), 200, np.uint8), side=90)
    head, _, content = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (90, 30)
    thin = jpeg_uri(np.zeros((1, 2000, 3), np.uint8), side=100)
    assert Image.open(io.BytesIO(base64.b64decode(thin.partition(",")[2]))).size == (100, 1)


def test_axes_take_all_in() -> None:
    bars = [Bar("a", 3, 2, 5), Bar("b", 1, 0.5, 1.5)]
    axis = Scale.over(bars, [7.0])
    assert axis.start < 0.5
    assert axis.end > 7
    assert 0 < axis.at(0.5) < axis.at(3) < axis.at(7) < 100
    assert (axis.at(-9), axis.at(99)) == (0, 100)
    assert Scale.over(bars).start >= 0
    for lone in (Scale.over([Bar("x", 2, 2, 2)]), Scale.over([Bar("x", 0, 0, 0)]), Scale.over([])):
        assert lone.start < lone.end


def test_figures_for_people() -> None:
    assert number(-0.5) == "\N{MINUS SIGN}0.50"
    assert number(0.5, 1, sign=True) == "+0.5"
    assert number(-0.001, sign=True) == number(-0.001) == "0.00"
    assert number(float("nan")) == "\N{EN DASH}"
    assert [size(n) for n in (0, 999, 1500, 4_600_000, 3e12)] == [
        "0 B", "999 B", "1.5 kB", "4.6 MB", "3e+03 GB",
    ]  # fmt: skip


def test_bars_of_measured_figures() -> None:
    bar = Bar.of("a", Interval(0.3, 0.2, 0.4), "n", scale=100)
    assert (bar.value, bar.low, bar.high) == pytest.approx((30, 20, 40))
    timed = Bar.of("b", Timing(3.0, 2.0, 4.0, 9), mood="good")
    assert (timed.value, timed.low, timed.high, timed.mood) == (3, 2, 4, "good")
