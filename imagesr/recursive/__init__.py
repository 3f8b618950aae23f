"""Pixel Recursive Super Resolution (arXiv 1702.00783): draw pixel after pixel, given LR and the earlier pixels."""
