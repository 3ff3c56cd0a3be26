"""The TensorFlow Lite importer's parts: reading the file, walking it, its operators."""
