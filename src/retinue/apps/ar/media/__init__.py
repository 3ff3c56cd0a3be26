"""Ways in and out: photos, videos, cameras, windows."""
