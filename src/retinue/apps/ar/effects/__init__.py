"""What filters do to a frame: in place, on the region of a face alone."""
