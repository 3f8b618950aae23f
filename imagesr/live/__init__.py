"""Cameras and films, upscaled as they play: `imagesr webcam`, `imagesr play`.

A source (`camera`, `film`) yields shots, the loop upscales them, a sink (`window`, `sinks`) shows them. OpenCV's
cameras and windows, sounddevice and pyvirtualcam are known here alone. Upscaling a file into a file is in `video`.
"""
