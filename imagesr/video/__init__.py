"""Videos: `imagesr video`.

`upscale` joins a source, upscalers and a writer. Files and codecs belong in `media`, networks in `engines`.
"""
