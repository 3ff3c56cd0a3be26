"""Faces in a frame: where they are, how they are turned, and what they do."""
