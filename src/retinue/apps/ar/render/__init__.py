"""Drawing triangles over a frame: with OpenGL, or on the CPU."""
