"""Floor 3: observers of finished records. One file is one observer."""
