"""Floor 1: records and blobs."""
