"""Detect: find and name the objects in photos and video."""

from __future__ import annotations

from retinue.core.apps import App, Command, Page, PipelineSpec, Route

_NUMBER = {"type": "number"}
_STRING = {"type": "string"}
_INTEGER = {"type": "integer"}
_DETECTION = {
    "type": "object",
    "required": ["class", "class_id", "score", "box"],
    "properties": {
        "class": _STRING,
        "class_id": _INTEGER,
        "score": {"type": "number", "minimum": 0, "maximum": 1},
        "box": {
            "description": "x1, y1, x2, y2 in pixels of the upright original",
            "type": "array",
            "items": _NUMBER,
            "minItems": 4,
            "maxItems": 4,
        },
    },
}
ANSWER_SCHEMA = {
    "type": "object",
    "required": ["path", "width", "height", "model", "detections", "timings_ms"],
    "properties": {
        "path": _STRING,
        "width": _INTEGER,
        "height": _INTEGER,
        "model": _STRING,
        "model_version": _STRING,
        "request_id": _STRING,
        "detections": {"type": "array", "items": _DETECTION},
        "timings_ms": {"type": "object", "additionalProperties": _NUMBER},
    },
}

APP = App(
    name="detect",
    title="Detect",
    summary="Find and name the objects in a photo",
    settings="retinue.apps.detect.settings:DetectSettings",
    pipelines=(PipelineSpec(task="detect"),),
    routes=(
        Route(
            path="/v1/detect",
            handler="retinue.apps.detect.route:detect",
            summary="Find the objects in a photo",
            parameters={
                "model": (
                    _STRING,
                    "Name of a loaded detector, or NAME@VERSION; the app's default if left out",
                ),
                "key": (
                    {**_STRING, "maxLength": 128},
                    "Whose request it is, for example a user: while a canary runs, the same key "
                    "is answered by the same version; the stream or the photo if left out",
                ),
                "conf": (
                    {"type": "number", "minimum": 0, "maximum": 1},
                    "Leave out detections below this score",
                ),
                "deadline_ms": (
                    {"type": "number", "exclusiveMinimum": 0},
                    "Give up, without doing the work, when it cannot be done in this time",
                ),
                "priority": (
                    {"type": "integer", "minimum": -100, "maximum": 100},
                    "Larger goes first",
                ),
                "stream": (
                    {**_STRING, "maxLength": 128},
                    "Name of the stream that the photo is a frame of: a newer frame replaces an "
                    "older one that still waits",
                ),
            },
            response=ANSWER_SCHEMA,
        ),
    ),
    commands=(Command("detect", "retinue.apps.detect.command:detect"),),
    observers=("metrics",),
    pages=(Page(path="/detect", title="Detect", template="detect.html", script="detect.js"),),
)
