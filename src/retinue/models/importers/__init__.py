"""Importers: from a foreign weight format to ONNX, without the foreign framework."""
