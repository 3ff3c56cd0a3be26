"""AR filters: masks that sit on faces."""
