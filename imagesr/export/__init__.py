"""Export: a trained network becomes a saved model that the engines run.

`graph` builds the integer graph, `int8` quantizes it, `parity` compares every format with Keras, `export` writes the
folder and its card. Only `int8` imports NNCF. `shader` writes a network as a shader for mpv, `playback` runs it in
ffmpeg, `floating` writes ONNX on float samples, `players` copies the shipped shaders: `imagesr shaders`.
"""
