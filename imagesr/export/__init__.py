"""Export: a trained network becomes a saved model that the engines run.

`graph` builds the integer graph, `int8` quantizes it, `parity` compares every format with Keras, `export` writes the
folder and its card. Only `int8` imports NNCF.
"""
