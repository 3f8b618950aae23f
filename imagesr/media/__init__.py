"""Files to frames and pictures, and back. This folder alone knows PyAV and libvips.

`source` reads videos, `writer` writes them. Networks and resizing policies belong in `video` and `image`.
"""
