"""Cameras and films as they play: `imagesr webcam`, `imagesr play`."""
