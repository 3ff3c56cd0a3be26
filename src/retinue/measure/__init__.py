"""Floor 1: pure evaluation mathematics."""
