"""What a request's body carries, by the kind of body that its route wants."""

from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retinue.core.errors import EmptyInput, InputError, InvalidRequest
from retinue.host.sent import Sent, read_sent

JSON = b"application/json"
PICTURE = b"image/jpeg"
KINDS = ("none", "json", "file", "any")


def form(**parts: object) -> tuple[bytes, bytes]:
    """Return a body and its type; bytes are files, texts are fields."""
    files = [(n, (f"{n}.jpg", v)) for n, v in parts.items() if isinstance(v, bytes)]
    fields = [(n, (None, v)) for n, v in parts.items() if isinstance(v, str)]
    request = httpx.Request("POST", "http://x", files=[*files, *fields])
    return request.read(), request.headers["content-type"].encode()


def test_none_takes_nothing() -> None:
    assert read_sent("none", b"", b"") == Sent()
    assert read_sent("none", b"", JSON) == Sent()
    with pytest.raises(InvalidRequest, match="takes no body"):
        read_sent("none", b"{}", JSON)


@pytest.mark.parametrize("kind", ["json", "any"])
@pytest.mark.parametrize("said", [JSON, b"Application/JSON; charset=utf-8", b" application/json "])
def test_an_object(kind: str, said: bytes) -> None:
    sent = read_sent(kind, b'{"a": [1, null]}', said)
    assert sent.json == {"a": [1, None]}
    assert (sent.file, sent.filename, dict(sent.fields)) == (b"", "", {})


def test_an_object_needs_no_type_where_nothing_else_is_taken() -> None:
    assert read_sent("json", b'{"a": 1}', b"").json == {"a": 1}
    assert read_sent("json", b'{"a": 1}', PICTURE).json == {"a": 1}


@pytest.mark.parametrize("kind", ["json", "any"])
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"[1]", "not a list"),
        (b'"a"', "not a str"),
        (b"5", "not a int"),
        (b"null", "not a NoneType"),
        (b"{", "is no JSON"),
        (b'{"a": NaN}', "is no JSON"),
        (b'{"a": "\xff"}', "is no JSON"),
        (b'{"a": "\\ud800"}', "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b'{"a":' * 100_000, "is no JSON"),
    ],
)
def test_json_that_is_no_object(kind: str, body: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        read_sent(kind, body, JSON)


def test_empty_bodies() -> None:
    with pytest.raises(EmptyInput, match="as JSON"):
        read_sent("json", b"", JSON)
    with pytest.raises(EmptyInput, match="as JSON"):
        read_sent("any", b"", JSON)
    with pytest.raises(EmptyInput, match="image file"):
        read_sent("file", b"", PICTURE)
    assert read_sent("any", b"", b"") == Sent()


@pytest.mark.parametrize("kind", ["file", "any"])
def test_a_file_as_the_body(kind: str) -> None:
    assert read_sent(kind, b"pixels", PICTURE) == Sent(b"pixels")
    assert read_sent(kind, b"pixels", b"") == Sent(b"pixels")


@pytest.mark.parametrize("kind", ["file", "any"])
def test_a_file_in_a_form(kind: str) -> None:
    sent = read_sent(kind, *form(file=b"pixels", text="red"))
    assert (sent.file, sent.filename, sent.json) == (b"pixels", "file.jpg", None)


def test_the_fields_of_a_form() -> None:
    sent = read_sent("any", *form(text="rød 🚗", where='{"a": 1}', empty=""))
    assert dict(sent.fields) == {"text": "rød 🚗", "where": '{"a": 1}', "empty": ""}
    assert (sent.file, sent.filename, sent.json) == (b"", "", None)
    both = read_sent("any", *form(picture=b"pixels", k="5"))
    assert (both.file, dict(both.fields)) == (b"pixels", {"k": "5"})


def test_forms_that_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="2 files; send one"):
        read_sent("any", *form(a=b"one", b=b"two"))
    with pytest.raises(EmptyInput, match="zero bytes"):
        read_sent("any", *form(a=b""))
    with pytest.raises(EmptyInput):
        read_sent("file", *form(a=b""))
    with pytest.raises(InvalidRequest, match="has no file"):
        read_sent("file", *form(a="text"))
    with pytest.raises(InvalidRequest, match="'text' has more than"):
        read_sent("any", *form(text="x" * 70_000))
    with pytest.raises(InvalidRequest, match="more than 32 parts"):
        read_sent("any", *form(**{f"n{n}": "x" for n in range(40)}))
    body, said = form(text="a", more="b")
    with pytest.raises(InvalidRequest, match="given twice"):
        read_sent("any", body.replace(b'"more"', b'"text"'), said)
    for broken in (body[:-20], b"no form", body.replace(b"\r\n", b"\n")):
        with pytest.raises(InvalidRequest, match=r"malformed|no file|boundary"):
            read_sent("file", broken, said)
    for wrong in (b"multipart/form-data", b"multipart/mixed; boundary=x"):
        with pytest.raises(InvalidRequest, match=r"boundary|multipart/form-data"):
            read_sent("any", body, wrong)


@given(st.sampled_from(KINDS), st.binary(max_size=200), st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(kind: str, body: bytes, said: bytes) -> None:
    try:
        sent = read_sent(kind, body, said)
    except InputError as error:
        assert error.message
    else:
        assert len(sent.file) <= len(body)


@given(st.binary(max_size=200), st.sampled_from(KINDS))
def test_any_bytes_in_a_form(inner: bytes, kind: str) -> None:
    body, said = form(file=inner, text="a")
    try:
        sent = read_sent(kind, body, said)
    except InputError:
        assert kind in ("none", "json") or not inner
    else:
        assert sent.file == inner
