"""Floor 0: values, contracts, the error tree, plug-in discovery and settings."""
