"""Retinue turns a computer-vision model into a running production system on one machine."""

import os

# ONNX Runtime 1.29 and later reports its use to its maker, unless this is set when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
