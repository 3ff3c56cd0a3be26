"""Handing the same models to a larger engine: what `retinue export` writes."""
