"""Visual search: index pictures, find similar ones by picture, region, text or item."""
