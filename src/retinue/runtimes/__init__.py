"""Floor 1: what executes weights. One file is one runtime."""
