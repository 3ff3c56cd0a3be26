"""Floor 1: pictures and video in, pictures out."""
