"""What the importers share: the ONNX graph under construction and how it becomes a file."""
