"""Photographs: `imagesr image`."""
