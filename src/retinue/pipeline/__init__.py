"""Floor 3: scheduling, batching and the staged pipeline."""
