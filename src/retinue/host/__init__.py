"""Floor 5: the composition root: HTTP, command line and console."""
