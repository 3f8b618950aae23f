"""Depth maps: read, estimated, rendered, and how a network takes them."""
