"""How good and how fast models are: `imagesr evaluate`, `imagesr bench`."""
