"""Photographs: `imagesr image`, `imagesr.upscale_image`.

`upscale` works on pictures in memory, `bounds` keeps their colours in range. `files` works on files, and `batch` plans
which picture becomes which file. Reading and writing photo files belongs in `media.photos`.
"""
