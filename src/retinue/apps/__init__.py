"""Floor 4: what users run. One folder is one app."""
