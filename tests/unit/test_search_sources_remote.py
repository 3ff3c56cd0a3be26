"""URLs and object stores as sources: against a real server, and fsspec's file system in memory."""

from __future__ import annotations

import gc
import importlib
import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from retinue.apps.search.sources import Found, Refused, open_source, source_name, web
from retinue.core.errors import (
    EmptyInput,
    FetchError,
    InputError,
    InputNotFound,
    InvalidRequest,
    MissingExtra,
    RetinueError,
    TooManyBytes,
    UnsupportedMedia,
)
from retinue.core.settings import Limits
from retinue.models.sources.transfer import ssl_context

JPEG = b"\xff\xd8\xff\xe0" + b"a photo" * 10
LIMITS = Limits(max_bytes=1000)


@cache
def trusted() -> ssl.SSLContext:
    """What every source of the web makes anew, which takes long."""
    return ssl_context()


@pytest.fixture(autouse=True)
def one_context(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "ssl_context", trusted)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str]]
    busy = 0

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        Handler.seen.append((self.headers["Host"], self.path))
        port = self.server.server_address[1]
        path, _, query = self.path.partition("?")
        if path == "/hop":
            self.answer(b"", 302, Location=f"/hop?{int(query) - 1}" if int(query) else "/a.jpg")
        elif path == "/inward":
            self.answer(b"", 302, Location=f"http://127.0.0.2:{port}/a.jpg")
        elif path == "/file":
            self.answer(b"", 302, Location="file:///etc/passwd")
        elif path == "/large":
            self.answer(JPEG + bytes(1000))
        elif path == "/endless":
            self.send_response(200)
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            try:
                for _ in range(1000):
                    self.wfile.write(JPEG)
            except OSError:
                pass
        elif path == "/drip":
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.close_connection = True
            try:
                for byte in b"x" * 30:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.05)
            except OSError:
                pass
        elif path == "/cut":
            self.answer(JPEG, Content_Length="500")
            self.close_connection = True
        elif path == "/page":
            self.answer(b"<!doctype html><html>" + b" " * 900)
        elif path == "/packed":
            self.answer(JPEG, Content_Encoding="gzip")
        elif path == "/busy":
            Handler.busy += 1
            self.answer(JPEG if Handler.busy > 1 else b"", 200 if Handler.busy > 1 else 503)
        elif path == "/empty":
            self.answer(b"")
        elif path.startswith("/status/"):
            self.answer(b"", int(path[8:]))
        else:
            self.answer(JPEG)


@pytest.fixture
def server() -> Iterator[str]:
    Handler.seen, Handler.busy = [], 0
    served = ThreadingHTTPServer(("0.0.0.0", 0), Handler)
    served.daemon_threads = True
    thread = threading.Thread(target=served.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{served.server_address[1]}"
    gc.collect()
    served.shutdown()
    served.server_close()
    thread.join()


def fetch(url: str, **options: Any) -> bytes:
    (offer,) = open_source(url, **{"limits": LIMITS, "allow_private": True, **options})
    if isinstance(offer, Refused):
        raise offer.error
    return offer.read()


def test_a_url(server: str) -> None:
    url = f"{server}/a%20b.jpg?size=1#part"
    (offer,) = open_source(url, limits=LIMITS, allow_private=True)
    assert isinstance(offer, Found)
    assert offer.id == offer.path == offer.source == source_name(url) == url.partition("#")[0]
    assert (offer.size, offer.mtime_us, offer.etag) == (-1, 0, "")
    assert not Handler.seen
    assert offer.read() == offer.read() == JPEG
    assert Handler.seen[0] == (server[7:], "/a%20b.jpg?size=1")


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/large", TooManyBytes),
        ("/endless", TooManyBytes),
        ("/page", UnsupportedMedia),
        ("/packed", UnsupportedMedia),
        ("/empty", EmptyInput),
        ("/status/404", InputNotFound),
        ("/status/403", InputError),
        ("/status/418", FetchError),
        ("/hop?5", FetchError),
        ("/file", InvalidRequest),
    ],
)
def test_answers_that_are_refused(server: str, path: str, error: type[RetinueError]) -> None:
    with pytest.raises(error):
        fetch(server + path)
    assert fetch(f"{server}/a.jpg") == JPEG


def test_redirects_and_second_tries(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web.time, "sleep", lambda _: None)
    assert fetch(f"{server}/hop?4") == JPEG
    assert fetch(f"{server}/busy") == JPEG
    with pytest.raises(FetchError, match="cannot fetch"):
        fetch(f"{server}/cut")
    with pytest.raises(FetchError, match="cannot be looked up"):
        fetch("http://nowhere.invalid/a.jpg")


def test_a_dripping_server_is_left(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "TOTAL_S", 0.3)
    begun = time.monotonic()
    with pytest.raises(FetchError):
        fetch(f"{server}/drip")
    assert time.monotonic() - begun < 1.2


def test_private_addresses_are_refused(server: str) -> None:
    port = server.rpartition(":")[2]
    hosts = ("127.0.0.1", "localhost", "0", "127.1", "2130706433", "0x7f000001", "[::1]")
    for host in (*hosts, "[::ffff:127.0.0.1]", "[::ffff:7f00:1]"):
        with pytest.raises((InvalidRequest, FetchError)) as caught:
            fetch(f"http://{host}:{port}/a.jpg", allow_private=False)
        if host != "[::1]":
            assert "not on the internet" in caught.value.message
    assert not Handler.seen


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("64:ff9b::5db8:d70e", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("240.0.0.1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fec0::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::1", False),
    ],
)
def test_what_a_public_address_is(address: str, public: bool) -> None:
    assert web.is_public(address) is public


def test_each_redirect_is_checked(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.1")
    assert fetch(f"{server}/hop?1", allow_private=False) == JPEG
    count = len(Handler.seen)
    with pytest.raises(InvalidRequest, match=r"127\.0\.0\.2"):
        fetch(f"{server}/inward", allow_private=False)
    assert len(Handler.seen) == count + 1


def test_a_name_is_looked_up_once_and_all_addresses_count(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [["127.0.0.1"], ["127.0.0.1", "10.0.0.1"]]
    asked: list[str] = []
    real = socket.getaddrinfo

    def changing(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        if host != "photos.test":
            return real(host, port, *args, **options)
        asked.append(host)
        found = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in found]

    monkeypatch.setattr(socket, "getaddrinfo", changing)
    monkeypatch.setattr(web, "is_public", lambda address: address == "127.0.0.1")
    url = f"http://photos.test:{server.rpartition(':')[2]}/a.jpg"
    assert fetch(url, allow_private=False) == JPEG
    assert len(asked) == 1
    assert Handler.seen[0][0].startswith("photos.test:")
    with pytest.raises(InvalidRequest, match=r"10\.0\.0\.1"):
        fetch(url, allow_private=False)
    assert len(Handler.seen) == 1


def test_urls_that_are_refused() -> None:
    for url in ("http://user:pw@host/a.jpg", "http:///a.jpg", "http://a\x01b/", "http://[::1/"):
        with pytest.raises(InvalidRequest) as caught:
            open_source(url, limits=LIMITS)
        assert "pw" not in caught.value.message


def test_a_table_of_urls(server: str, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    rows = f"1,{server}/a.jpg,red\n2,http://u:p@h/x,\n3,memory://shop/x.jpg,\n4,ftp://h/a.jpg,\n"
    table.write_text("id,url,colour\n" + rows)
    fsspec.filesystem("memory").pipe("/shop/x.jpg", JPEG)
    offers = list(open_source(str(table), limits=LIMITS, allow_private=True))
    found = {o.id: o for o in offers if isinstance(o, Found)}
    assert list(found) == ["1", "3"]
    assert found["1"].meta == {"colour": "red"}
    assert [o.read() for o in found.values()] == [JPEG, JPEG]
    assert [o.id for o in offers if isinstance(o, Refused)] == ["2", "4"]


@pytest.fixture
def bucket() -> Iterator[Any]:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    yield filesystem
    filesystem.store.clear()


def test_a_prefix_of_an_object_store(bucket: Any) -> None:
    for key in ("p/b.jpg", "p/a/c.png", "p/notes.txt", "p/.h/x.jpg", "q/x.jpg", "p/../up.jpg"):
        bucket.pipe(f"/shop/{key}", JPEG)
    bucket.pipe("/shop/p/large.jpg", bytes(1001))
    offers = list(open_source("memory://shop/p/", limits=LIMITS))
    found = {o.id: o for o in offers if isinstance(o, Found)}
    assert sorted(found) == ["a/c.png", "b.jpg"]
    one = found["b.jpg"]
    assert (one.source, one.path) == ("memory://shop/p", "memory:///shop/p/b.jpg")
    assert one.size == len(JPEG)
    assert one.mtime_us > 1_600_000_000_000_000
    assert one.read() == JPEG
    assert [type(o.error) for o in offers if isinstance(o, Refused)] == [TooManyBytes]
    (single,) = open_source("memory://shop/p/b.jpg", limits=LIMITS)
    assert single.id == "b.jpg"


def test_objects_that_vanish_or_change(bucket: Any) -> None:
    for key in ("a", "b", "c", "d"):
        bucket.pipe(f"/shop/{key}.jpg", b"" if key == "d" else JPEG)
    offers = [o for o in open_source("memory://shop", limits=LIMITS) if isinstance(o, Found)]
    bucket.rm("/shop/a.jpg")
    bucket.pipe("/shop/b.jpg", JPEG * 2)
    for offer, error in zip(offers, (InputNotFound, InputError), strict=False):
        with pytest.raises(error):
            offer.read()
    assert [offer.read() for offer in offers[2:]] == [JPEG, b""]


def test_stores_that_cannot_be_opened() -> None:
    with pytest.raises(InputNotFound):
        open_source("memory://nothing/here", limits=LIMITS)
    for url in ("simplecache::http://127.0.0.1/x", "zip://a.jpg::memory://x.zip", "s3://u:p@b/x"):
        with pytest.raises((InvalidRequest, InputNotFound)):
            open_source(url, limits=LIMITS)


def test_missing_packages_name_their_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("s3fs", "gcsfs", "pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, module, None)
    for scheme in ("s3", "gs"):
        monkeypatch.delitem(
            importlib.import_module("fsspec.registry")._registry, scheme, raising=False
        )
    with pytest.raises(MissingExtra, match=r"retinue\[s3\]"):
        open_source("s3://bucket/prefix", limits=LIMITS)
    with pytest.raises(MissingExtra, match="gcsfs"):
        open_source("gs://bucket/prefix", limits=LIMITS)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(MissingExtra, match=r"retinue\[parquet\]"):
        open_source(str(tmp_path / "t.parquet"), limits=LIMITS)
