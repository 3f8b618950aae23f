"""The networks: one file each, and `MODELS`, from a name to the function that builds it."""

from imagesr.models.realtime import realtime

MODELS = {"realtime": realtime}
