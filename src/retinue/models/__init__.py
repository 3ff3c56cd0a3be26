"""Floor 2: the catalogue, the registry, importers, and one file a model family."""
