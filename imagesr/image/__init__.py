"""Photographs: `imagesr image`, `imagesr.upscale_image`.

`upscale` works on pictures in memory, `files` on files. Reading and writing photo files belongs in `media.photos`.
"""
