"""The usual prototype: Flask, OpenCV, ONNX Runtime, one model in each gunicorn worker.

The same ONNX file, input size, score threshold and NMS threshold as Retinue's card, written the way
a first version is written; ``MODEL`` in the environment names the file.
"""

from __future__ import annotations

import os

import cv2
import numpy as np
import onnxruntime as ort
from flask import Flask, jsonify, request

SIZE = 416
STRIDES = (8, 16, 32)
CLASSES = int(os.environ["CLASSES"])
PAD = int(os.environ["PAD"])
PROBABILITIES = os.environ["SCORES"] == "probabilities"
MEAN = np.array([float(v) for v in os.environ["MEAN"].split(",")], np.float32)
STD = np.array([float(v) for v in os.environ["STD"].split(",")], np.float32)
RGB = os.environ["COLOR"] == "rgb"
IOU = float(os.environ["IOU"])

cv2.setNumThreads(1)
options = ort.SessionOptions()
options.intra_op_num_threads = int(os.environ.get("THREADS", "1"))
session = ort.InferenceSession(os.environ["MODEL"], options, providers=["CPUExecutionProvider"])
input_name = session.get_inputs()[0].name
app = Flask(__name__)


def letterbox(image):
    height, width = image.shape[:2]
    scale = min(SIZE / width, SIZE / height)
    resized = cv2.resize(image, (round(width * scale), round(height * scale)))
    top, left = (SIZE - resized.shape[0]) // 2, (SIZE - resized.shape[1]) // 2
    canvas = np.full((SIZE, SIZE, 3), PAD, np.uint8)
    canvas[top : top + resized.shape[0], left : left + resized.shape[1]] = resized
    return canvas, scale, left, top


def decode(outputs):
    by_cells = {}
    for output in outputs:
        by_cells.setdefault(output.shape[1], []).append(output[0])
    boxes, scores = [], []
    for stride in STRIDES:
        side = -(-SIZE // stride)
        pair = sorted(by_cells[side * side], key=lambda a: a.shape[1] == CLASSES, reverse=True)
        score, distance = pair
        e = np.exp(distance.reshape(-1, 4, distance.shape[1] // 4))
        sides = stride * (e / e.sum(2, keepdims=True)) @ np.arange(e.shape[2], dtype=np.float32)
        y, x = np.divmod(np.arange(side * side), side)
        centers = (np.stack([x, y], 1) + 0.5) * stride
        boxes.append(np.concatenate([centers - sides[:, :2], centers + sides[:, 2:]], 1))
        scores.append(score if PROBABILITIES else 1 / (1 + np.exp(-score)))
    return np.concatenate(boxes), np.concatenate(scores)


@app.post("/v1/detect")
def detect():
    conf = float(request.args.get("conf", 0.25))
    data = np.frombuffer(request.get_data(), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    if image is None:
        return jsonify(error="not an image"), 400
    canvas, scale, left, top = letterbox(image)
    pixels = canvas[:, :, ::-1] if RGB else canvas
    tensor = ((pixels.astype(np.float32) - MEAN) / STD).transpose(2, 0, 1)[None]
    boxes, scores = decode(session.run(None, {input_name: np.ascontiguousarray(tensor)}))
    boxes = (boxes - [left, top, left, top]) / scale
    cells, classes = np.nonzero(scores >= conf)
    boxes, kept = boxes[cells], scores[cells, classes]
    sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], 1)
    chosen = cv2.dnn.NMSBoxesBatched(sizes.tolist(), kept.tolist(), classes.tolist(), conf, IOU)
    return jsonify(
        detections=[
            {"class_id": int(classes[i]), "score": float(kept[i]), "box": boxes[i].tolist()}
            for i in np.array(chosen).reshape(-1)
        ]
    )


@app.get("/healthz")
def healthz():
    return "ok"
