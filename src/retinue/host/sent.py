"""What a request to an app's route carries: a file, fields, an object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from retinue.core.errors import EmptyInput, InvalidRequest
from retinue.host.upload import first_file, read_form


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent.

    Attributes:
        file: Bytes of the file; empty where there is none.
        filename: What the client calls it.
        fields: Of a form, what is no file.
        json: The object; None where none was sent.
    """

    file: bytes = b""
    filename: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    json: Mapping[str, Any] | None = None


def read_sent(kind: str, body: bytes, content_type: bytes) -> Sent:
    """Read a body as a route wants it; see `retinue.core.apps.Route` for the kinds.

    Raises:
        EmptyInput: it is empty, and a file or an object is needed.
        InvalidRequest: it is malformed, or not of the kind.
    """
    if kind == "none":
        if body:
            raise InvalidRequest("this route takes no body; send none")
        return Sent()
    is_json = content_type.partition(b";")[0].strip().lower() == b"application/json"
    if kind == "json" or (kind == "any" and is_json):
        return Sent(json=_object(body))
    if kind == "file":
        upload = first_file(body, content_type)
        if not upload.body:
            raise EmptyInput("the body is empty; send an image file as the body or in a form")
        return Sent(upload.body, upload.filename)
    form = read_form(body, content_type)
    if form is None:
        return Sent(body)
    if form.files > 1:
        raise InvalidRequest(f"the form has {form.files} files; send one")
    # A browser sends a file without a name where none was chosen.
    if form.file is None or not (form.file.body or form.file.filename):
        return Sent(fields=form.fields)
    if not form.file.body:
        raise EmptyInput("the form's file has zero bytes; send the image file itself")
    return Sent(form.file.body, form.file.filename, form.fields)


def _object(body: bytes) -> Mapping[str, Any]:
    if not body:
        raise EmptyInput("the body is empty; send an object as JSON")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"the body is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidRequest(f"the body must be a JSON object, not a {type(value).__name__}")
    return value
