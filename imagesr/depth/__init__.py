"""Depth: `maps` reads maps, `estimator` makes them of pictures, `network` adds them to a network, `scenes` renders.

Only `network` imports Keras, and only `estimator` ONNX Runtime.
"""
