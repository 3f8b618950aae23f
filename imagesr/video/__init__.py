"""Videos: `imagesr video`."""
