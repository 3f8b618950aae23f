"""The HTTP service: photographs in, larger ones out."""
