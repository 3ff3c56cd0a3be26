"""Floor 1: nearest neighbours. One file is one index."""
