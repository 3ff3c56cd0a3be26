"""Search: find pictures by picture, by text, or by both."""
