"""Pixel Recursive Super Resolution (arXiv 1702.00783): draw pixels one by one, each given LR and those before it."""
