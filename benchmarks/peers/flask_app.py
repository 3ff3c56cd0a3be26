"""Flask behind gunicorn: ``gunicorn -w 2 -k sync flask_app:app``, a model in each worker."""

from __future__ import annotations

import detector
from flask import Flask, Response, jsonify, request

app = Flask(__name__)
model = detector.load()


@app.post("/v1/detect")
def detect() -> Response | tuple[Response, int]:
    """Detect objects in the body."""
    try:
        (found,) = model.detect([request.get_data()])
    except ValueError as error:
        return jsonify(error=str(error)), 400
    return jsonify(detections=found)


@app.get("/healthz")
def healthz() -> str:
    """Say that it is there."""
    return "ok"
